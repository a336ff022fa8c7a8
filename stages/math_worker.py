"""What a verifier process runs: math-verify on one gold answer and one answer.

Imported by the server that verifier processes are forked from, so that each starts with the parser loaded and warm.
"""

import logging
import resource
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

# The pool limits the time of a pair from outside; the library says at each call that nobody does.
logging.getLogger("math_verify").setLevel(logging.ERROR)

EXTRACTION = (
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True, malformed_operators=True, nits=True),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    ),
)
"""Those of TRL's `accuracy_reward`, and the short forms that LaTeX allows, as `\\sqrt3` and `\\frac12`."""


def limit_memory(max_bytes: int) -> None:
    """First thing in a verifier process: an expression that grows without end must not take the machine along."""
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def compare(gold: str, answer: str) -> bool | None:
    """Whether two LaTeX expressions are equal; None if the gold one cannot be parsed."""
    expected = parse_gold(gold)
    if not expected:
        return None
    return bool(verify(expected, parse_box(answer), timeout_seconds=None))


@lru_cache(maxsize=4096)
def parse_gold(gold: str) -> list[Any]:
    return parse_box(gold)


def parse_box(text: str) -> list[Any]:
    """Parsed forms of an expression, none if it is not one."""
    parsed: list[Any] = parse(f"\\boxed{{{text}}}", EXTRACTION, extraction_mode="first_match", parsing_timeout=None)
    return parsed


# The first expression costs half a second of tables; every process forked from here starts with them.
compare("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}")
