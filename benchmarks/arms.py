"""Variations of the demo, trained and evaluated over seeds.

They run in the demo's own project, so what the demo has made is used and a second call makes nothing. What they make
has one thread, so that figures do not depend on the number of cores.
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import report
from pipeline.__main__ import ARTIFACTS
from pipeline.config import load_profile
from pipeline.plots import Points
from pipeline.recipe import R1
from pipeline.results import read_samples
from pipeline.store import Artifact, Store
from stages.measures import Estimate, Value, average_by_problem, estimate

CONFIG = Path("configs/demo.yaml")
SEEDS = (0, 1, 2)
RESAMPLES = 2000


@dataclass(frozen=True)
class Arm:
    """One variation of the demo, trained once for each seed."""

    name: str
    step: str
    settings: tuple[str, ...] = ()
    seeded: tuple[str, ...] = ()
    """Steps that take the seed; `step` does in any case."""
    seeds: tuple[int, ...] = SEEDS

    def overrides(self, seed: int) -> list[str]:
        return [*self.settings, *(f"{step}.seed={seed}" for step in (*self.seeded, self.step))]


@dataclass(frozen=True)
class Trained:
    """What came of an arm, by seed."""

    policies: Sequence[Artifact]
    evaluations: Sequence[Artifact]

    def measure(self, column: str, group: str = "reasoning", temperature: float = 1.0) -> Estimate:
        """Mean over problems of a column of the samples, those of all seeds averaged by problem."""
        columns = ["question", "group", "temperature", column]
        rows = [
            row
            for evaluation in self.evaluations
            for row in read_samples(evaluation.path, columns, group=group, temperature=temperature)
        ]
        return require(average_by_problem(rows, column).values())

    def follow(self, *names: str) -> list[Points]:
        """The sum of some values of the training log, by seed."""
        logs = [report.read_log(policy.path / "training_log.jsonl") for policy in self.policies]
        return [[(float(line["step"]), add(line, names)) for line in log if names[0] in line] for log in logs]


def add(line: Mapping[str, Any], names: Sequence[str]) -> float:
    return sum(line.get(name) or 0.0 for name in names)


def require(values: Iterable[Value]) -> Estimate:
    found = estimate(values, RESAMPLES, seed=0)
    if found is None:
        raise SystemExit("an evaluation has no problem that could be judged")
    return found


def show(found: Estimate, scale: float = 100) -> str:
    digits = 1 if scale == 100 else 2
    average, low, high = (f"{scale * value:.{digits}f}" for value in (found.mean, found.low, found.high))
    return f"{average} ({low}–{high})"


def train(arm: Arm) -> Trained:
    made = [train_seed(arm, seed) for seed in arm.seeds]
    return Trained([policy for policy, _ in made], [evaluation for _, evaluation in made])


def train_seed(arm: Arm, seed: int) -> tuple[Artifact, Artifact]:
    """(checkpoint, evaluation), made now or before."""
    overrides = arm.overrides(seed)
    print(f"{arm.name}, seed {seed}", flush=True)
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "pipeline", "run", str(CONFIG), "--local", "--set", "runtime.threads=1", *settings]
    subprocess.run([*command, "--until", f"evaluate_{arm.step}"], check=True, stdout=subprocess.DEVNULL)
    profile = load_profile(CONFIG, overrides, R1)
    chosen = report.choose_artifacts(profile, Store(ARTIFACTS, profile.project))
    return chosen[arm.step], chosen[f"evaluate_{arm.step}"]
