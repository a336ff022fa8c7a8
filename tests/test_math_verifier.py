"""Answers that only algebra can tell apart, and what happens to those nobody can."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from stages.domains.math_domain import verify, verify_all
from stages.math_verifier import Verifier, VerifierLimits, judge_answers, load_verifier
from stages.rows import Prompt

# Passes every cap; sympy expands it for longer than any of these limits.
HANGING = [(r"x\sqrt{2}", rf"(x+\sqrt{{{n}}}+y)^{{999}}") for n in range(2, 6)]


@pytest.fixture(scope="module")
def hasty() -> Iterator[Verifier]:
    verifier = Verifier(VerifierLimits(round_seconds=(0.5, 2.0), batch_seconds=60.0, recycle_after=5))
    yield verifier
    verifier.stop()


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        (r"\frac{\sqrt{3}}{2}", r"\frac{3}{2\sqrt{3}}", True),
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        (r"2\sqrt{3}", r"\sqrt{13}", False),
        ("x^2+2x+1", "(x+1)^2", True),
        (r"\frac{a+b}{c}", "a+b/c", False),
        (r"\{1, 2\}", r"\{2, 1\}", True),
        ("(1, 2)", "(2, 1)", False),
        (r"\frac{\pi}{4}", r"\pi/4", True),
        (r"\sqrt{2}", "1.414", False),
        (r"\sqrt{2}", r"\sqrt{", False),
        ("42", "42.0", True),
        ("42", "43", False),
    ],
)
def test_tiers(gold: str, answer: str, expected: bool) -> None:
    assert judge_answers([(gold, answer)]) == [expected]


def test_what_takes_too_long_is_neither_right_nor_wrong_and_harms_nobody(hasty: Verifier) -> None:
    good = [(rf"{n}\sqrt{{3}}", rf"\sqrt{{{3 * n * n}}}") for n in range(2, 30)]
    verdicts = hasty.compare([*HANGING, *good])
    assert [verdicts[pair] for pair in HANGING] == [None] * 4
    assert all(verdicts[pair] for pair in good)


def test_loading_the_parser_is_no_pairs_time() -> None:
    """A forkserver that something else started before has not loaded it."""
    code = (
        "import multiprocessing; context = multiprocessing.get_context('forkserver'); context.Pool(1).close()\n"
        "from stages.math_verifier import Verifier, VerifierLimits\n"
        "pair = ('x^2+2x+1', '(x+1)^2')\n"
        "print(Verifier(VerifierLimits(round_seconds=(0.7,), workers=1)).compare([pair])[pair])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_a_batch_ends_in_its_time() -> None:
    verifier = Verifier(VerifierLimits(round_seconds=(30.0,), batch_seconds=0.5, workers=1))
    assert list(verifier.compare(HANGING).values()) == [None] * 4
    verifier.stop()


def test_a_dead_worker_is_replaced(hasty: Verifier) -> None:
    pair = (r"2\sqrt{3}", r"\sqrt{12}")
    for worker in hasty.idle:
        worker.process.kill()
        worker.process.join()
    assert hasty.compare([pair])[pair]


def test_it_works_in_a_thread() -> None:
    """Where a signal could not stop it (TRL PR #5281 switches both time limits off there)."""
    found: list[bool | None] = []
    thread = threading.Thread(target=lambda: found.extend(judge_answers([(r"2\sqrt{3}", r"\sqrt{12}")])))
    thread.start()
    thread.join()
    assert found == [True]


def test_numbers_and_text_need_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Verifier, "compare", lambda *_: pytest.fail("a worker was asked"))
    load_verifier.cache_clear()
    pairs = [("42", "42"), ("42", "43"), ("1/2", "0.5"), ("42", r"6\times7"), ("Monday", "Tuesday")]
    assert judge_answers(pairs) == [True, False, True, False, False]


def make_prompt(question: str, answer: str) -> Prompt:
    return Prompt("math-test-1", "math", "en", question, answer)


def test_the_math_domain_judges_many_as_it_judges_one() -> None:
    prompts = [make_prompt("Simplify.", r"2\sqrt{3}")] * 5
    summaries = [r"\boxed{2\sqrt3}", r"\boxed{\sqrt{12}}", r"\boxed{5}", "2", r"\boxed{1} \boxed{2}"]
    assert verify_all(prompts, summaries) == [verify(p, s) for p, s in zip(prompts, summaries, strict=True)]
    assert verify_all(prompts, summaries) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_an_expression_of_the_question_is_no_answer() -> None:
    assert verify(make_prompt(r"Simplify \sqrt{12}.", r"2\sqrt{3}"), r"\boxed{\sqrt{12}}") == 0.0
