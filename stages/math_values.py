"""Value of a closed expression in LaTeX to fifty digits: roots, fractions, powers, pi; None for anything else.

Two such values that agree in forty digits are taken as equal, so that most answers with roots need no algebra.
"""

import re
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal, DecimalException, localcontext
from functools import lru_cache

DIGITS, AGREEING = 50, Decimal(10) ** -40
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
MAX_EXPONENT = 64
MAX_DEPTH = 20
TOKEN = re.compile(
    r"\s*(\d+(?:\.\d+)?|\.\d+|\\(?:sqrt|frac|dfrac|tfrac|pi|cdot|times|div)(?![a-zA-Z])|[-+*/^(){}\[\]])"
)
SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
SPELLINGS = {"\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cdot": "*", "\\times": "*", "\\div": "/"}
STARTS = frozenset({"(", "{", "\\sqrt", "\\frac", "\\pi"})
"""Tokens that may follow a factor without a sign between them."""


class Unreadable(Exception):
    """The text is not an expression that is read here."""


def equal_values(first: str, second: str) -> bool | None:
    """Whether two expressions have one value; None if either is not read here."""
    left, right = evaluate(first), evaluate(second)
    if left is None or right is None:
        return None
    return abs(left - right) <= AGREEING * max(Decimal(1), abs(left), abs(right))


@lru_cache(maxsize=8192)
def evaluate(text: str) -> Decimal | None:
    try:
        with localcontext(Context(prec=DIGITS)):
            tokens = Tokens(list(split_tokens(text)))
            value = read_sum(tokens, 0)
            return value if tokens.at_end() else None
    except (Unreadable, DecimalException):
        return None


def split_tokens(text: str) -> Iterator[str]:
    position, text = 0, SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text).strip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if not match:
            raise Unreadable
        position = match.end()
        yield SPELLINGS.get(match[1], match[1])


class Tokens:
    """What is left to read."""

    def __init__(self, listed: Sequence[str]) -> None:
        self.listed, self.position = listed, 0

    def at_end(self) -> bool:
        return self.position == len(self.listed)

    def peek(self) -> str:
        return "" if self.at_end() else self.listed[self.position]

    def take(self, *wanted: str) -> str:
        """The next token, if it is one of those wanted or any is."""
        token = self.peek()
        if not token or (wanted and token not in wanted):
            raise Unreadable
        self.position += 1
        return token


def read_sum(tokens: Tokens, depth: int) -> Decimal:
    if depth > MAX_DEPTH:
        raise Unreadable
    sign = -1 if tokens.peek() in ("+", "-") and tokens.take() == "-" else 1
    value = sign * read_product(tokens, depth)
    while tokens.peek() in ("+", "-"):
        sign = -1 if tokens.take() == "-" else 1
        value += sign * read_product(tokens, depth)
    return value


def read_product(tokens: Tokens, depth: int) -> Decimal:
    value = read_power(tokens, depth)
    while tokens.peek() in ("*", "/") or tokens.peek() in STARTS:
        operator = tokens.take() if tokens.peek() in ("*", "/") else "*"
        factor = read_power(tokens, depth)
        value = value / factor if operator == "/" else value * factor
    return value


def read_power(tokens: Tokens, depth: int) -> Decimal:
    value = read_atom(tokens, depth)
    if tokens.peek() != "^":
        return value
    tokens.take()
    exponent = read_group(tokens, depth) if tokens.peek() == "{" else read_atom(tokens, depth)
    if tokens.peek() == "^" or abs(exponent) > MAX_EXPONENT or (value < 0 and exponent != int(exponent)):
        raise Unreadable
    return value**exponent


def read_atom(tokens: Tokens, depth: int) -> Decimal:
    token = tokens.peek()
    if token in ("(", "{"):
        return read_group(tokens, depth)
    tokens.take()
    if token == "\\pi":
        return PI
    if token == "\\frac":
        return read_argument(tokens, depth) / read_argument(tokens, depth)
    if token == "\\sqrt":
        return read_root(tokens, depth)
    if token[0].isdigit() or token[0] == ".":
        return Decimal(token)
    raise Unreadable


def read_root(tokens: Tokens, depth: int) -> Decimal:
    index = Decimal(2)
    if tokens.peek() == "[":
        tokens.take()
        index = Decimal(tokens.take("3", "4", "5", "6"))
        tokens.take("]")
    value = read_argument(tokens, depth)
    return value.sqrt() if index == 2 else value ** (1 / index)


def read_argument(tokens: Tokens, depth: int) -> Decimal:
    """The argument of a command: a group, or the one digit that LaTeX takes where there is none."""
    if tokens.peek() == "{":
        return read_group(tokens, depth)
    token = tokens.take()
    if not token.isdigit() or len(token) > 1:
        raise Unreadable
    return Decimal(token)


def read_group(tokens: Tokens, depth: int) -> Decimal:
    closing = ")" if tokens.take("(", "{") == "(" else "}"
    value = read_sum(tokens, depth + 1)
    tokens.take(closing)
    return value
