"""Extraction and comparison of mathematical answers, strict and without a parser that can hang.

Only one well-formed, final `\\boxed{...}` counts as an answer, and two answers are compared by
text, then by normalised text, then by value. Model text is never evaluated; what only algebra can tell is
left to `stages.math_verifier`.
"""

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from stages.math_values import equal_values, evaluate

AnswerFormat = Literal["boxed", "gsm8k", "numeric", "letter"]

MAX_TEXT_CHARS = 100_000
MAX_ANSWER_CHARS = 512

MAX_DEPTH = 12
MAX_EXPONENT = 300
LONG_NUMBER = re.compile(r"\d{40}")
WORDS = re.compile(r"(?:[^\W\d_]{3,}[ .,'-]*)+|[A-Z]")
"""Two letters may be a product."""
SEVERAL = re.compile(r"[,;]|\\cup|\\pm|\\mp|\\\{|\[|(?<![a-z\\])(?:or|and)(?![a-z])")
"""A set, an interval, a list, or a hedge."""
ENDLESS = re.compile(r"!|\\[dt]?binom|\^\{?[^{}^]*\^|\^\{?[-+(]*\d{4,}|\^\{[^{}]*[*(\\]")
"""Towers of powers, large exponents, factorials, binomials."""

HIDDEN = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u00ad\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufeff\\ud800-\\udfff]"
)

BOX = re.compile(r"\\boxed(?![A-Za-z])\s*")
NUMBER = r"\d+(?:\.\d*)?|\.\d+"
VALUE = re.compile(rf"([-+]?)(?:(\d+) )?\(?([-+]?(?:{NUMBER}))\)?(?:/\(?([-+]?(?:{NUMBER}))\)?)?")
POWER_OF_TEN = re.compile(r"(?:(.+)(?:\\times|\\cdot|\*))?10\^\{?([-+]?\d{1,9})\}?")
NUMBER_IN_TEXT = re.compile(r"(?<![A-Za-z0-9_.])-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+(?![\d.]))?")
LETTER_IN_TEXT = re.compile(r"(?<![A-Za-z0-9_])[A-J](?![A-Za-z0-9_])")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:(,|\{,\}| )\d{3})(?:\1\d{3})*(?![\d,])")
SIMPLE_REWRITES = (
    (re.compile(r"\\(?:left|right|displaystyle|!)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"(?<=\d)\s*\\frac"), r" \\frac"),
    (re.compile(r"(?<!\^)\\frac\s*\{\s*([-+]?[\d.]+)\s*\}\s*\{\s*([-+]?[\d.]+)\s*\}(?!\^)"), r"\1/\2"),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\?\$"), ""),
    (re.compile(r"\\[,;: ]|~"), " "),
    (re.compile(r"(?<!\d)\s+|\s+(?!\d)"), ""),
)


def extract_boxed(summary: str) -> str | None:
    """Content of the one boxed answer of a summary.

    None if there is no box, if a box is empty or unterminated, or if boxes differ.
    """
    if len(summary) > MAX_TEXT_CHARS:
        return None
    answers: list[str] = []
    for answer in find_boxes(clean_text(summary)):
        if answer is None or not answer.strip():
            return None
        answers.append(answer)
    if len({normalise_answer(answer) for answer in answers}) != 1:
        return None
    return answers[-1].strip()


def find_boxes(text: str) -> Iterator[str | None]:
    """Content of each outermost box in order; None for one that is malformed or too long."""
    position = 0
    while box := BOX.search(text, position):
        position = box.end()
        end = find_closing_brace(text, position)
        yield None if end is None else text[position + 1 : end]
        position = position if end is None else end + 1


def find_closing_brace(text: str, start: int) -> int | None:
    """Index of the brace that closes the one at `start`; None if there is none within an answer's length."""
    depth = 0
    escaped = False
    for index in range(start, min(len(text), start + MAX_ANSWER_CHARS + 2)):
        character = text[index]
        depth += 0 if escaped else (character == "{") - (character == "}")
        if depth == 0:
            return index if index > start else None
        escaped = character == "\\" and not escaped
    return None


def compare_text(gold: str, answer: str) -> bool | None:
    """Whether two answers are equal as text, as normalised text, or in value; None if algebra must tell.

    A number is equal to a number alone: no unit, percent sign, set, alternative or sum yet to be done. An answer
    that is several where the gold one is not, or that makes a short text into a number without end, is wrong.
    """
    if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return False
    if gold.strip() == answer.strip():
        return bool(gold.strip())
    left, right = normalise_answer(gold), normalise_answer(answer)
    if left == right:
        return bool(left)
    value = read_number(left)
    if value is not None:
        return value == read_number(right)
    same = equal_values(clean_text(gold), clean_text(answer))
    return same if same is not None or may_be_equal(left, right) else False


def echoes(question: str, gold: str, answer: str) -> bool:
    """Whether an answer is an expression that stands in the question and still has to be worked out."""
    said = "".join(answer.split())
    if said.isalnum() or said == "".join(gold.split()) or read_number(normalise_answer(answer)) is not None:
        return False
    return said in "".join(question.split())


def is_plain(gold: str) -> bool:
    """Whether a gold answer is judged without a parser."""
    text = normalise_answer(gold)
    return bool(WORDS.fullmatch(text)) or read_number(text) is not None or evaluate(clean_text(gold)) is not None


def may_be_equal(gold: str, answer: str) -> bool:
    """Whether a parser should see two normalised answers; words are compared as text alone."""
    if not gold or not answer or WORDS.fullmatch(gold) or WORDS.fullmatch(answer):
        return False
    if any(pattern.search(answer) and not pattern.search(gold) for pattern in (SEVERAL, ENDLESS)):
        return False
    if ("%" in gold) != ("%" in answer) or any(text.count("{") != text.count("}") for text in (gold, answer)):
        return False
    return LONG_NUMBER.search(answer) is None and max(map(measure_depth, (gold, answer))) <= MAX_DEPTH


def measure_depth(text: str) -> int:
    """How deep brackets are nested."""
    return max(accumulate((character in "([{") - (character in ")]}") for character in text), default=0)


@lru_cache(maxsize=8192)
def normalise_answer(answer: str) -> str:
    """One spelling for what is written differently and means the same, as `\\frac{1}{2}` and `1/2`."""
    text = clean_text(answer).strip()
    for pattern, replacement in SIMPLE_REWRITES:
        text = pattern.sub(replacement, text)
    text = THOUSANDS.sub(lambda number: re.sub(r"\D", "", number.group()), text).strip()
    text = text.removesuffix(".") if not text.endswith("..") else text
    return text[1:-1] if re.fullmatch(r"\([A-Za-z]\)", text) else text


def read_number(text: str) -> Fraction | None:
    """Exact value of a normalised integer, decimal, fraction, mixed number or power of ten times one; else None."""
    if power := POWER_OF_TEN.fullmatch(text):
        factor, exponent = read_number(power[1] or "1"), int(power[2])
        return factor * Fraction(10) ** exponent if factor is not None and abs(exponent) <= MAX_EXPONENT else None
    match = VALUE.fullmatch(text)
    if not match:
        return None
    sign, whole, top, bottom = match.groups()
    if (whole and not bottom) or Fraction(bottom or 1) == 0:
        return None
    value = Fraction(whole or 0) + Fraction(top) / Fraction(bottom or 1)
    return -value if sign == "-" else value


def has_hidden(text: str) -> bool:
    """Whether a text has characters that nobody sees and `clean_text` removes."""
    return HIDDEN.search(text) is not None


def clean_text(text: str) -> str:
    """NFKC without control, bidi and zero-width characters; a minus sign becomes a hyphen.

    Superscripts and vulgar fractions stay as they are: NFKC would turn 4² into 42.
    """
    if text.isascii():
        return text.replace("\0", "")
    folded = (
        character
        if unicodedata.decomposition(character).startswith(("<super>", "<sub>", "<fraction>"))
        else unicodedata.normalize("NFKC", character)
        for character in text
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
    )
    return unicodedata.normalize("NFC", "".join(folded)).replace("\N{MINUS SIGN}", "-")


def parse_answer(text: str, answer_format: AnswerFormat) -> str | None:
    """The answer that stands in a text of the given format; None if there is none.

    boxed: `\\boxed{72}`; gsm8k: `#### 72` on the last line; numeric: the last number; letter: the
    last letter A to J that stands alone.
    """
    if len(text) > MAX_TEXT_CHARS:
        return None
    if answer_format == "boxed":
        return extract_boxed(text)
    if answer_format == "gsm8k":
        _, marker, text = text.rpartition("####")
        return last_match(NUMBER_IN_TEXT, text) if marker else None
    return last_match(NUMBER_IN_TEXT if answer_format == "numeric" else LETTER_IN_TEXT, text)


def last_match(pattern: re.Pattern[str], text: str) -> str | None:
    matches = pattern.findall(clean_text(text))
    return normalise_answer(matches[-1]) if matches else None
