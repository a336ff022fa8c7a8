from typing import Any

import pytest

from stages.math_answers import MAX_ANSWER_CHARS, compare_text, echoes, extract_boxed, parse_answer
from stages.math_values import evaluate


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        (r"The answer is \boxed{42}.", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {7}", "7"),
        (r"\boxed{7} so again \boxed{7.0 }", None),
        (r"\boxed{7} so again \boxed{ 7 }", "7"),
        (r"\boxed{7} or \boxed{8}", None),
        (r"\boxed{7} then \boxed{}", None),
        (r"\boxed{7} then \boxed{8", None),
        (r"\boxed{ }", None),
        (r"\boxed 7", None),
        (r"\boxed{7", None),
        (r"\boxedtext{7}", None),
        ("The answer is 42", None),
        ("", None),
        (r"\boxed", None),
        (r"\boxed{４２}", "42"),
        ("\\boxed{4\u200b2}", "42"),
        ("\\boxed{\u202e42\u202c}", "42"),
        ("\\boxed{4²}", "4²"),
        (r"\boxed{" + "9" * (MAX_ANSWER_CHARS + 1) + "}", None),
        (r"\boxed{42}" + " " * 200_000, None),
    ],
)
def test_extraction(summary: str, expected: str | None) -> None:
    assert extract_boxed(summary) == expected


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("42", "42"),
        ("42", " 42. "),
        ("42", "42.0"),
        ("42", "+42"),
        ("42", "$42"),
        ("42", r"\$42"),
        ("42", "４２"),
        ("42", r"\text{42}"),
        ("1234", "1,234"),
        ("1234", "1{,}234"),
        ("1234567", r"1\,234\,567"),
        ("1234567.5", "1,234,567.50"),
        ("1/2", r"\frac{1}{2}"),
        ("1/2", r"\dfrac12"),
        ("0.5", r"\frac{1}{2}"),
        ("-1/2", r"-\frac{1}{2}"),
        ("-1/2", r"\frac{-1}{2}"),
        ("-3", "\N{MINUS SIGN}3"),
        ("7/2", r"3\frac{1}{2}"),
        ("-7/2", "-3 1/2"),
        ("50%", r"50\%"),
        (r"\left(1, 2\right)", "(1,2)"),
        (r"x^{2}+1", "x^{2} + 1"),
        ("B", "(B)"),
        ("B", r"\text{(B)}"),
        ("42 cm", r"42\text{ cm}"),
        ("1200", r"1.2 \times 10^3"),
        ("1200", r"1.2\cdot 10^{3}"),
        ("0.012", r"1.2\times10^{-2}"),
        ("10^6", "1,000,000"),
    ],
)
def test_equal(gold: str, answer: str) -> None:
    assert compare_text(gold, answer) is True
    assert compare_text(answer, gold) is True


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("42", "43"),
        ("42", "-42"),
        ("42", ""),
        ("", ""),
        (" ", " "),
        ("42", "4 2"),
        ("42", "4²"),
        ("42", "4,2"),
        ("42", "42 or 43"),
        ("42", r"\{42\}"),
        ("42", "[42, 42]"),
        ("42", "42 cm"),
        ("42", "42%"),
        ("42%", "42"),
        ("42", "6*7"),
        ("42", r"6\times7"),
        ("42", r"\sqrt{1764}"),
        ("42", "x=42"),
        ("42", "4200%"),
        ("31/2", "3½"),
        ("31/2", "3 1/2"),
        ("1/3", "0.333"),
        ("1", "1/0"),
        ("0", "0/0"),
        ("1234", "1,23,4"),
        ("1234", "12,34"),
        ("1000", "9**9**9**9"),
        ("9" * 600, "9" * 600),
        ("2", "1 1"),
        ("1", "10^0^0"),
        ("1", "10^{999999999}"),
    ],
)
def test_different(gold: str, answer: str) -> None:
    assert compare_text(gold, answer) is False


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        (r"2\sqrt{3}", r"2\sqrt3", True),
        (r"\frac{\sqrt{3}}{2}", r"\dfrac{3}{2\sqrt3}", True),
        (r"\frac12\sqrt2", r"\frac{\sqrt{2}}{2}", True),
        (r"\sqrt[3]{16}", r"2\sqrt[3]{2}", True),
        (r"\frac{\pi}{4}", r"\pi/4", True),
        (r"2^{1/2}", r"\sqrt{2}", True),
        (r"2^\frac{1}{2}", r"\sqrt{2}", True),
        (r"1+\sqrt{2}", r"\sqrt{2}+1", True),
        (r"\sqrt{2}", "1.41421356", False),
        (r"\sqrt{2}", r"-\sqrt{2}", False),
        (r"2^\frac{1}{2}", "2^1/2", False),
        (r"2\pi", "6.283185307", False),
    ],
)
def test_values(gold: str, answer: str, expected: bool) -> None:
    assert compare_text(gold, answer) is expected


@pytest.mark.parametrize(
    "text",
    [
        "x", "1/0", r"\sqrt{-1}", "2^3^4", "2 3", "9^65", "(" * 30 + "1" + ")" * 30, r"\sqrt{2", "2)", "", "1,2",
        r"\sqrt[0]{2}", r"\frac{1}", "^2", "10" * 300, "(-8)^{1/3}", r"\pi(", "1" + "+1" * 2000,
    ],
)  # fmt: skip
def test_what_is_no_value(text: str) -> None:
    assert evaluate(text) is None or len(text) > 512


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{a+b}{c}", "a+b/c"),
        (r"\sin 1", "0.8414709848"),
        ("x^2+2x+1", "(x+1)^2"),
        ("x=42", "42"),
        ("xy", r"y\cdot x"),
        (r"\{1, 2\}", r"\{2, 1\}"),
        ("(1, 2)", "(2, 1)"),
        (r"90^\circ", "90"),
        ("5!x", "120x"),
    ],
)
def test_only_algebra_can_tell_these(gold: str, answer: str) -> None:
    assert compare_text(gold, answer) is None


@pytest.mark.parametrize(
    "answer",
    [
        r"9^{9^{9^9}}",
        "9^9^9",
        r"\sqrt{2}^{100000}",
        "(10^9)!",
        r"\binom{100000000}{10000000}",
        "9" * 40,
        r"\sqrt{" * 13 + "2" + "}" * 13,
        r"\sqrt{2}, \sqrt{3}",
        r"\sqrt{2} or 3",
        r"\{\sqrt{2}\}",
        r"\pm\sqrt{2}",
        r"[\sqrt{2}, 2]",
        r"\sqrt{2}\%",
        "the root of two",
    ],
)
def test_what_no_parser_needs_to_see(answer: str) -> None:
    assert compare_text(r"\sqrt{2}", answer) is False


@pytest.mark.parametrize(
    ("question", "gold", "answer", "expected"),
    [
        (r"Simplify \sqrt{12}.", r"2\sqrt{3}", r"\sqrt{12}", True),
        (r"Simplify \sqrt {12}.", r"2\sqrt{3}", r"\sqrt{1 2}", True),
        (r"Simplify \sqrt{12}.", r"2\sqrt{3}", r"2\sqrt{3}", False),
        (r"Which is larger, \sqrt{2} or \sqrt{3}?", r"\sqrt{3}", r"\sqrt{3}", False),
        ("Tom has 1/2 a cake.", "0.5", "1/2", False),
        ("What is x?", "y", "x", False),
    ],
)
def test_echoes(question: str, gold: str, answer: str, expected: bool) -> None:
    assert echoes(question, gold, answer) is expected


@pytest.mark.parametrize(
    ("text", "answer_format", "expected"),
    [
        ("steps\n#### 72", "gsm8k", "72"),
        ("steps\n#### 1,234", "gsm8k", "1234"),
        ("steps 72", "gsm8k", None),
        ("#### none", "gsm8k", None),
        ("2 + 2 = 4\nA: 18", "numeric", "18"),
        ("A: $1,234.50.", "numeric", "1234.50"),
        ("A: -3/4", "numeric", "-3/4"),
        ("答案是18。", "numeric", "18"),
        ("A: \N{MINUS SIGN}5", "numeric", "-5"),
        ("no number", "numeric", None),
        ("The answer is (B).", "letter", "B"),
        ("C", "letter", "C"),
        ("答案是D。", "letter", "D"),
        ("Bob", "letter", None),
        (r"so \boxed{5}", "boxed", "5"),
        ("5", "boxed", None),
    ],
)
def test_answer_formats(text: str, answer_format: Any, expected: str | None) -> None:
    assert parse_answer(text, answer_format) == expected
