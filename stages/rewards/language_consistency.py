"""Language consistency: the share of the thoughts' words that are in the language of the prompt.

DeepSeek-R1 (Nature 645, 2025), eq. 7: Reward_language = Num(Words_target) / Num(Words), over the
chain of thought. It is added to the accuracy reward to stop languages from mixing.

Thoughts without words, or with a single one said over and over, are in no language and earn nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

from stages.language import WordCount, count_words, foreign_words
from stages.rows import Reasoning, completion_text, split_completion

MIN_DISTINCT = 2
"""Distinct words of the target language that thoughts need to earn anything; a short step in Chinese has no more."""


def reward(
    completions: Sequence[Any],
    prompts: Sequence[Any],
    language: Sequence[str],
    reasoning: Sequence[Reasoning],
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Share from 0 to 1; None where no thoughts are expected, 0.0 where they are expected and have no words.

    `log_metric`, where the trainer gives it, gets the share of words that no rule could place
    (`language/undecided`) and of thoughts without words (`language/empty`).
    """
    counts = [
        None if expected == "none" else count_thoughts(completion_text(completion), completion_text(prompt), target)
        for completion, prompt, target, expected in zip(completions, prompts, language, reasoning, strict=True)
    ]
    if log_metric:
        report([count for count in counts if count], log_metric)
    return [None if count is None else score(count) for count in counts]


def count_thoughts(completion: str, question: str, target: str) -> WordCount:
    """Words of one completion's thoughts. Names that the question writes in another script are not counted."""
    thoughts, _ = split_completion(completion)
    return count_words(thoughts, target, exclude=foreign_words(question, target))


def score(count: WordCount) -> float:
    return count.share or 0.0 if count.distinct >= MIN_DISTINCT else 0.0


def report(counts: Sequence[WordCount], log_metric: Callable[[str, float], None]) -> None:
    total = sum(count.total for count in counts)
    if total:
        log_metric("language/undecided", sum(count.undecided for count in counts) / total)
    if counts:
        log_metric("language/empty", sum(not count.total for count in counts) / len(counts))
