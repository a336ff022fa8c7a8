"""What the pipeline itself costs: a run with nothing to do, and each step beside its own work.

    python -m benchmarks.orchestration [--repeats N] [--config CONFIG]

The steps are toys that work for no time at all. With --config the run with nothing to do is also
measured on that profile, whose steps must all be made.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.measurement import print_figure
from pipeline.config import load_profile
from pipeline.runner import child_environment, run_step
from pipeline.store import Artifact, Store
from stages.contract import Runtime
from tests.toy_stage import STEPS, write_profile

ROOT = Path(__file__).resolve().parent.parent
NOOP_BAR, NOOP_AIM, STEP_BAR = 1.0, 0.3, 2.0
"""Seconds."""
TOY_CLI = "import sys; from pipeline.__main__ import main; from tests.toy_stage import STEPS; main(sys.argv[1:], STEPS)"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description="Costs of the pipeline.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--config", type=Path, help="a profile whose steps are all made")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_profile(folder)
        measure_steps(folder)
        measure_noop("no-op run, toy recipe", ["-c", TOY_CLI, "run", "toy.yaml"], folder, given.repeats)
    if given.config:
        command = ["-m", "pipeline", "run", str(given.config)]
        measure_noop(f"no-op run, {given.config}", command, Path.cwd(), given.repeats)


def measure_noop(name: str, command: Sequence[str], folder: Path, repeats: int) -> None:
    """A run that reuses everything, against an interpreter that does nothing."""
    runs = [time_process(command, folder) for _ in range(repeats)]
    starts = [time_process(["-c", "pass"], folder) for _ in range(repeats)]
    sides = {"run": runs, "interpreter alone": starts}
    print_figure(name, median(runs) - median(starts), "s", sides, bar=NOOP_BAR, aim=NOOP_AIM)


def time_process(command: Sequence[str], folder: Path) -> float:
    """Wall seconds of a Python process. Raises RuntimeError if it fails or has a step to run."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode or any(not line.startswith("reuse ") for line in done.stdout.splitlines()):
        raise RuntimeError(f"expected a run that reuses everything, got:\n{done.stdout}{done.stderr}")
    return seconds


def measure_steps(folder: Path) -> None:
    """Each toy step through the runner, against its process alone."""
    through_runner, alone = list[float](), list[float]()
    profile = load_profile(folder / "toy.yaml", (), STEPS)
    store = Store(folder / "artifacts", profile.project)
    made: dict[str, Artifact] = {}
    for step in STEPS:
        inputs = {role: made[name] for role, name in step.inputs.items()}
        began = time.perf_counter()
        made[step.name] = run_step(step, profile, store, inputs, report=lambda update: None)
        through_runner.append(time.perf_counter() - began)
        alone.append(time_child(store, step.name, folder))
    sides = {"through the runner": through_runner, "its process alone": alone}
    print_figure("orchestration of a step", median(through_runner) - median(alone), "s", sides, bar=STEP_BAR)
    print_figure("step that does nothing, start of its process included", median(through_runner), "s", sides)


def time_child(store: Store, step: str, folder: Path) -> float:
    """Wall seconds of the same process, started directly and writing elsewhere."""
    (path,) = (store.folder / ".scratch").glob(f"{step}-*.spec")
    spec: Mapping[str, object] = json.loads(path.read_text())
    elsewhere = folder / "alone" / step
    elsewhere.mkdir(parents=True)
    own = {name: str(elsewhere / name) for name in ("progress_path", "result_path")}
    own |= {"output_dir": str(elsewhere), "scratch_dir": str(elsewhere)}
    (elsewhere / "spec.json").write_text(json.dumps({**spec, **own}))
    command = [sys.executable, "-m", "stages", step, "--spec", str(elsewhere / "spec.json")]
    began = time.perf_counter()
    subprocess.run(command, env={**os.environ, **child_environment(Runtime(threads=1))}, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1:])
