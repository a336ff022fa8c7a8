"""Repetition: minus the share of a completion's 4-grams of tokens that it has said before.

After the n-gram penalty of "Demystifying Long Chain-of-Thought Reasoning" (arXiv 2502.03373, appendix C), on tokens,
so that languages without spaces are treated alike.
"""

from collections.abc import Sequence
from typing import Any

NGRAM = 4


def reward(completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float | None]:
    """From just above -1.0 to 0.0; 0.0 for completions shorter than an n-gram."""
    return [-repeated_share(ids) for ids in completion_ids]


def repeated_share(ids: Sequence[int]) -> float:
    ngrams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
