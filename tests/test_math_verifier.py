"""Answers that only algebra can tell apart, and what happens to those nobody can."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.domains.math_domain import verify, verify_all
from stages.math_verifier import Verifier, VerifierLimits, Worker, judge_answers, load_verifier
from stages.rows import Prompt

ROOT = Path(__file__).resolve().parent.parent
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


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    """As multiprocessing would; most training scripts have none."""
    script = tmp_path / "train.py"
    script.write_text(
        "from stages.math_verifier import judge_answers\nprint(judge_answers([('x^2+2x+1', '(x+1)^2')]), flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[True]\n"
    assert done.stderr == ""


def test_no_worker_outlives_its_user() -> None:
    code = (
        "import os, signal; from stages.math_verifier import Verifier, VerifierLimits; import threading\n"
        "verifier = Verifier(VerifierLimits(round_seconds=(60.0,), batch_seconds=60.0))\n"
        "print(verifier.server.pid, *(worker.pid for worker in verifier.idle), flush=True)\n"
        "threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()\n"
        rf"verifier.compare([{HANGING[0]!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    pids = [int(pid) for pid in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(pids) >= 2
    ended = time.monotonic() + 20
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < ended, alive
        time.sleep(0.05)


def test_a_batch_ends_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = Verifier(VerifierLimits(round_seconds=(30.0,), batch_seconds=0.5, workers=1))
    started: list[Worker] = []
    start = verifier.start_worker

    def count_start() -> Worker:
        started.append(start())
        return started[-1]

    monkeypatch.setattr(verifier, "start_worker", count_start)
    pairs = [*HANGING, *((rf"{n}x", rf"x{n}") for n in range(200))]
    verdicts = verifier.compare(pairs)
    assert len(verdicts) == 204
    assert [verdicts[pair] for pair in HANGING] == [None] * 4
    assert len(started) <= 2
    verifier.stop()


def test_a_worker_is_replaced_after_so_many_pairs_and_has_its_memory_limited() -> None:
    verifier = Verifier(VerifierLimits(recycle_after=3, workers=1, memory_bytes=3 << 30))
    first = verifier.idle[0].pid
    verifier.compare([("x", "y+1")])
    limits = Path(f"/proc/{first}/limits").read_text()
    assert re.search(rf"Max address space\s+{3 << 30}\s", limits)
    verifier.compare([(f"{n}x", f"x{n}") for n in range(3)])
    assert verifier.idle[0].pid != first
    assert not Path(f"/proc/{first}").exists()
    verifier.stop()


def test_a_dead_worker_is_replaced(hasty: Verifier) -> None:
    pair = (r"2\sqrt{3}", r"\sqrt{12}")
    for worker in hasty.idle:
        os.kill(worker.pid, signal.SIGKILL)
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
