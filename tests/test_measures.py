import math
import random

import pytest

from stages.measures import average_by_problem, estimate, mean_of, paired_difference, vote, vote_by_problem, win_rate


def make_rows(question: str, correct: list[float | None], answers: list[str] | None = None) -> list[dict[str, object]]:
    given = answers or [""] * len(correct)
    return [{"question": question, "correct": c, "answer": a} for c, a in zip(correct, given, strict=True)]


def test_pass_at_1_is_the_mean_over_samples_of_each_problem() -> None:
    rows = make_rows("a", [1, 0, 0, 1]) + make_rows("b", [1, None, None, 1]) + make_rows("c", [None])
    assert average_by_problem(rows, "correct") == {"a": 0.5, "b": 1.0, "c": None}


def test_problems_that_cannot_be_judged_are_left_out_and_counted() -> None:
    found = estimate([1.0, 0.0, None, None, None], 200, seed=0)
    assert found and (found.mean, found.problems, found.excluded) == (0.5, 2, 3)
    assert estimate([None], 200, seed=0) is None
    assert estimate([], 200, seed=0) is None
    assert mean_of([]) is None


def test_interval_has_the_width_theory_gives() -> None:
    rng = random.Random(0)
    values = [float(rng.random() < 0.3) for _ in range(400)]
    found = estimate(values, 2000, seed=1)
    assert found
    expected = 1.96 * math.sqrt(found.mean * (1 - found.mean) / 400)
    assert found.high - found.mean == pytest.approx(expected, rel=0.15)
    assert found.mean - found.low == pytest.approx(expected, rel=0.15)


def test_more_samples_of_the_same_problems_do_not_narrow_the_interval() -> None:
    few = [row for n in range(50) for row in make_rows(str(n), [n % 2])]
    many = [row for n in range(50) for row in make_rows(str(n), [n % 2] * 16)]
    widths = [estimate(average_by_problem(rows, "correct").values(), 500, seed=3) for rows in (few, many)]
    assert widths[0] == widths[1]


def test_a_repeated_question_is_one_problem() -> None:
    rows = make_rows("same", [1.0]) + make_rows("same", [0.0])
    assert average_by_problem(rows, "correct") == {"same": 0.5}


def test_interval_depends_on_the_seed_alone() -> None:
    values = [0.1 * n for n in range(11)]
    assert estimate(values, 300, seed=5) == estimate(values, 300, seed=5)
    assert estimate(values, 300, seed=5) != estimate(values, 300, seed=6)


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["7", "7", "8"], [1, 1, 0], 1.0),
        (["8", "8", "7"], [0, 0, 1], 0.0),
        (["7", "8"], [1, 0], 1.0),
        (["8", "7"], [0, 1], 0.0),
        (["", "", "7"], [0, 0, 1], 1.0),
        (["", ""], [0, 0], 0.0),
        ([None, None], [1, 1], None),
    ],
)
def test_majority_vote(answers: list[str | None], correct: list[float | None], expected: float | None) -> None:
    assert vote(answers, correct) == expected


def test_vote_is_taken_within_each_problem() -> None:
    rows = make_rows("a", [1, 1, 0], ["7", "7", "8"]) + make_rows("b", [0, 0, 1], ["8", "8", "7"])
    assert vote_by_problem(rows) == {"a": 1.0, "b": 0.0}


def test_a_tie_is_half_a_win() -> None:
    assert win_rate(6.0, [1.0, 6.0, 10.0, 6.0]) == 0.5
    assert win_rate(10.0, [6.0]) == 1.0
    assert win_rate(10.0, []) is None


def test_difference_is_paired_over_shared_problems() -> None:
    before = {str(n): n / 100 for n in range(100)}
    after = {**{name: value + 0.1 for name, value in before.items()}, "other": 0.0}
    found = paired_difference(before, after, 200, seed=0)
    assert found and found.problems == 100
    # Paired, the spread between problems cancels: the interval is a point although the values span 0 to 1.
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert paired_difference({"a": None}, {"a": 1.0}, 200, seed=0) is None
