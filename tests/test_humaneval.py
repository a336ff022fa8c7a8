"""HumanEval through the sandbox: right programs pass, changed ones do not."""

from pathlib import Path

import pytest

from benchmarks.humaneval import Problem, change_program, judge_all, read_problems, run_all, write_solution


@pytest.fixture(scope="module")
def problems(real_data: Path) -> list[Problem]:
    return read_problems(real_data / "humaneval" / "HumanEval.jsonl")


def test_every_canonical_solution_passes(problems: list[Problem]) -> None:
    verdicts = judge_all([(problem, write_solution(problem)) for problem in problems])
    refused = [problem["task_id"] for problem, verdict in zip(problems, verdicts, strict=True) if verdict is not True]
    assert (len(verdicts), refused) == (164, [])


def test_changed_solutions_get_the_verdict_of_a_plain_run(problems: list[Problem]) -> None:
    """One problem in eight; `python -m benchmarks.humaneval` runs all."""
    changed = [(problem, source) for problem in problems[::8] for source in change_program(problem)]
    plain = run_all(changed)
    assert 40 < plain.count(False) < len(plain)
    assert judge_all(changed) == plain
