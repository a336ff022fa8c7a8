"""Soft over-long punishment: 0 up to four fifths of the longest completion, then falling to -1 at its end.

DAPO (arXiv 2503.14476), eq. 13, with its proportions: 16,384 of 20,480 tokens are free.
"""

from collections.abc import Sequence
from typing import Any

FREE_SHARE = 0.8


def reward(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    max_completion_length: Sequence[int],
    **columns: Any,
) -> list[float | None]:
    """From -1.0 to 0.0, by the tokens of each completion."""
    return [punish(len(ids), longest) for ids, longest in zip(completion_ids, max_completion_length, strict=True)]


def punish(tokens: int, longest: int) -> float:
    free = FREE_SHARE * longest
    return -min(1.0, max(0.0, (tokens - free) / (longest - free)))
