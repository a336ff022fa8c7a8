"""Format: 1.0 if a completion has the think block its row expects and a summary after it, else 0.0.

DeepSeek-R1 (Nature 645, 2025), "Reward design": the thoughts stand between `<think>` and
`</think>`, the answer after them.
"""

import re
from collections.abc import Sequence
from typing import Any

from stages.rows import THINK_CLOSE, THINK_OPEN, Reasoning, completion_text

ANY_TAG = re.compile(r"<\s*/?\s*think\b[^>]*>?", re.IGNORECASE)


def reward(
    completions: Sequence[Any], reasoning: Sequence[Reasoning], prefill: Sequence[str] = (), **columns: Any
) -> list[float | None]:
    """1.0 or 0.0 for each completion.

    `reasoning` says whether thoughts are expected, `prefill` what the chat template wrote of the completion.
    """
    written = prefill or [""] * len(completions)
    return [
        float(has_format(start + completion_text(completion), expected))
        for start, completion, expected in zip(written, completions, reasoning, strict=True)
    ]


def has_format(text: str, reasoning: Reasoning) -> bool:
    """One think block at the very start (empty if reasoning is 'none'), a summary, no other tag."""
    if not text.startswith(THINK_OPEN) or ANY_TAG.findall(text) != [THINK_OPEN, THINK_CLOSE]:
        return False
    thoughts, _, summary = text.removeprefix(THINK_OPEN).partition(THINK_CLOSE)
    return has_content(thoughts) == (reasoning == "required") and has_content(summary)


def has_content(text: str) -> bool:
    """Whether anything in the text can be seen; zero-width and control characters cannot."""
    return any(character.isprintable() and not character.isspace() for character in text)
