"""Length: minus the share of the longest completion that was used, for runs that should stay brief."""

from collections.abc import Sequence
from typing import Any


def reward(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    max_completion_length: Sequence[int],
    **columns: Any,
) -> list[float | None]:
    """From -1.0 to 0.0, by the tokens of each completion."""
    return [-min(1.0, len(ids) / longest) for ids, longest in zip(completion_ids, max_completion_length, strict=True)]
