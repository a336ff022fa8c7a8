"""Rewards from a learned reward model, for the prompts of its set alone.

Paper: R1 v2 §3.2.2: helpfulness is scored on the final summary, so that reasoning is left free;
harmlessness on the whole response, thoughts included.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from stages.rows import completion_text, split_completion

Preference = Literal["helpful", "safety"]
DECIMALS = 1
"""Digits that count. GRPO divides by the spread of a group, so that answers a model scores 0.951 and 0.952 would
be pushed as far apart as right and wrong ones: noise, which soon undoes what the policy knew."""
Scorer = Callable[[Sequence[str], Sequence[str]], list[float]]


class PreferenceReward:
    """A TRL reward function around `score(questions, responses) -> scores in (0, 1)`."""

    def __init__(self, source: Preference, score: Scorer) -> None:
        self.source, self.score = source, score
        self.__name__ = source

    def __call__(
        self, completions: Sequence[Any], prompts: Sequence[Any], reward: Sequence[str], **columns: Any
    ) -> list[float | None]:
        mine = [number for number, source in enumerate(reward) if source == self.source]
        texts = [completion_text(completions[number]) for number in mine]
        responses = [split_completion(text)[1] for text in texts] if self.source == "helpful" else texts
        scores = self.score([prompts[number][-1]["content"] for number in mine], responses) if mine else []
        results: list[float | None] = [None] * len(completions)
        for number, response, score in zip(mine, responses, scores, strict=True):
            results[number] = round(score, DECIMALS) if response else 0.0
        return results
