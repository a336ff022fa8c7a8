"""Statistics of an evaluation: averages over problems, majority vote, bootstrap intervals.

The unit of every interval is the problem. Samples of one problem are averaged first, because they
are not independent: drawing more of them must not make an interval narrower than the set of problems
allows. A problem is its question, so rows that repeat one count as one. Intervals are percentile
bootstraps; where all problems agree the interval is a point.
A value of None means "cannot be judged": it is left out and counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = float | None
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its bootstrap interval, of 95 % unless another level was asked for."""

    mean: float
    low: float
    high: float
    problems: int
    """Problems that could be judged."""
    excluded: int
    """Problems that could not."""


def mean_of(values: Iterable[Value]) -> Value:
    """Mean of those that could be judged; None if none could."""
    judged = [value for value in values if value is not None]
    return sum(judged) / len(judged) if judged else None


def average_by_problem(rows: Iterable[Mapping[str, Any]], column: str) -> dict[str, Value]:
    """Mean of `column` over the samples of each problem (pass@1 for `correct`, R1 §3), by question."""
    samples: dict[str, list[Value]] = {}
    for row in rows:
        samples.setdefault(row["question"], []).append(row[column])
    return {problem: mean_of(values) for problem, values in samples.items()}


def vote(answers: Sequence[str | None], correct: Sequence[Value]) -> Value:
    """cons@k of one problem: the verdict on the answer most samples gave, the earliest of equals.

    An answer of None means that the domain has no short answers to vote on (the result is None);
    "" means that the sample gave none, so it has no vote.
    """
    if all(answer is None for answer in answers):
        return None
    votes = Counter(answer for answer in answers if answer)
    if not votes:
        return 0.0
    winner = votes.most_common(1)[0][0]
    return mean_of(verdict for answer, verdict in zip(answers, correct, strict=True) if answer == winner)


def vote_by_problem(rows: Iterable[Mapping[str, Any]]) -> dict[str, Value]:
    """cons@k of each problem from the columns `answer` and `correct`, by question."""
    samples: dict[str, tuple[list[str | None], list[Value]]] = {}
    for row in rows:
        answers, correct = samples.setdefault(row["question"], ([], []))
        answers.append(row["answer"])
        correct.append(row["correct"])
    return {problem: vote(answers, correct) for problem, (answers, correct) in samples.items()}


def win_rate(score: float, opponents: Sequence[float]) -> Value:
    """Share of `opponents` that `score` beats, a tie counting half; None without opponents."""
    return mean_of(1.0 if score > other else 0.5 if score == other else 0.0 for other in opponents)


def estimate(values: Iterable[Value], resamples: int, seed: int, level: float = LEVEL) -> Estimate | None:
    """Mean over problems with its interval from `resamples` bootstraps; None if no problem can be judged."""
    every = list(values)
    judged = [value for value in every if value is not None]
    if not judged:
        return None
    low, high = bootstrap_interval(judged, resamples, seed, level)
    return Estimate(sum(judged) / len(judged), low, high, len(judged), len(every) - len(judged))


def paired_difference(
    first: Mapping[str, Value], second: Mapping[str, Value], resamples: int, seed: int
) -> Estimate | None:
    """Mean of `second` - `first` over the problems both have, resampled together; None if they share none."""
    pairs = [(first[problem], second[problem]) for problem in first if problem in second]
    return estimate([None if a is None or b is None else b - a for a, b in pairs], resamples, seed)


def bootstrap_interval(values: Sequence[float], resamples: int, seed: int, level: float) -> tuple[float, float]:
    """Percentile interval of the mean. One resample at a time, so that memory stays at one copy."""
    import numpy as np  # here, so that planning does not wait for it

    rng, sample = np.random.default_rng(seed), np.array(values, dtype=np.float64)
    means = [sample[rng.integers(sample.size, size=sample.size)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
