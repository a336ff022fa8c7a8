"""Language consistency: the share of the thoughts' words that are in the language of the prompt.

DeepSeek-R1 (Nature 645, 2025), eq. 7: Reward_language = Num(Words_target) / Num(Words), over the
chain of thought. It is added to the accuracy reward to stop languages from mixing.
"""

from collections.abc import Sequence
from typing import Any

from stages.language import foreign_words, language_share
from stages.rows import Reasoning, completion_text, split_completion


def reward(
    completions: Sequence[Any],
    prompts: Sequence[Any],
    language: Sequence[str],
    reasoning: Sequence[Reasoning],
    **columns: Any,
) -> list[float | None]:
    """Share from 0 to 1; None where no thoughts are expected, 0.0 where they are expected and have no words."""
    return [
        None if expected == "none" else score(completion_text(completion), completion_text(prompt), target)
        for completion, prompt, target, expected in zip(completions, prompts, language, reasoning, strict=True)
    ]


def score(completion: str, question: str, target: str) -> float:
    """Share of one completion. Names that the question writes in another script are not counted."""
    thoughts, _ = split_completion(completion)
    return language_share(thoughts, target, exclude=foreign_words(question, target)) or 0.0
