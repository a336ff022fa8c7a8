"""A recipe of tiny pure-Python steps, for tests of the pipeline alone."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.config import load_profile
from pipeline.planner import plan_run
from pipeline.runner import run_plan
from pipeline.store import Store
from stages.contract import ConfigError, DataError, Metrics, Runtime, Step, StepConfig, StepContext
from stages.rows import read_rows, write_rows


class SourceConfig(StepConfig):
    """Makes numbers."""

    count: int = 10
    """Rows of the train split."""
    label: str = "a"
    """Written into no row: changes the identity, not the content."""


class WeighConfig(StepConfig):
    """Makes a checkpoint out of numbers."""

    scale: float = 1.0
    """Factor of every weight."""
    seconds: float = 0.0
    """How long the step takes."""
    marker: str = ""
    """File that gets the process ids of the step and of a child it starts."""
    fail: str = ""
    """What goes wrong."""


class CheckConfig(StepConfig):
    """Measures a checkpoint."""


def make_source(config: SourceConfig, context: StepContext) -> Metrics:
    rows = [{"id": str(number), "value": number + config.seed} for number in range(config.count)]
    write_rows(rows, context.output_dir, "train", rows_per_shard=4)
    return {"total": float(sum(int(row["value"]) for row in rows))}


def weigh(config: WeighConfig, context: StepContext) -> Metrics:
    with (context.scratch_dir / "runs").open("a") as file:
        file.write("x")
    if config.marker:
        start_helper(Path(config.marker))
    values = [row["value"] * config.scale for row in read_rows(context.inputs["data"], "train")]
    for number in range(10):
        time.sleep(config.seconds / 10)
        context.progress(number + 1, 10, loss=1 / (number + 1))
    write_safetensors(context.output_dir / "model.safetensors", {"weight": values})
    break_down(config.fail, context)
    return {"loss": 0.1, "unknown": float("nan")}


def start_helper(marker: Path) -> None:
    """A child in a session of its own, which a mere kill of the process group would miss."""
    helper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with marker.open("a") as file:
        file.write(f"{os.getpid()} {helper.pid}\n")


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


def break_down(fail: str, context: StepContext) -> None:
    if fail == "pickle":
        (context.output_dir / "pytorch_model.bin").write_bytes(b"x")
    elif fail == "data":
        raise DataError("row 3 has no answer")
    elif fail == "config":
        raise ConfigError("scale cannot be 7")
    elif fail == "memory":
        raise OutOfMemoryError("tried to allocate 3 GiB")
    elif fail == "bug":
        raise KeyError("oops")
    elif fail == "preempted":
        os.kill(os.getpid(), signal.SIGTERM)
    elif fail == "killed":
        os.kill(os.getpid(), 9)


def check(config: CheckConfig, context: StepContext) -> Metrics:
    size = (context.inputs["policy"] / "model.safetensors").stat().st_size
    write_rows([{"id": "size", "value": size}], context.output_dir, "test")
    return {"size": size}


def write_safetensors(path: Path, tensors: dict[str, Sequence[float]]) -> None:
    header, data = {}, b""
    for name, values in tensors.items():
        block = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(block)]}
        data += block
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


STEPS = (
    Step("source", "setup", "dataset", {}, SourceConfig, make_source),
    Step("weigh", "cold_start", "policy", {"data": "source"}, WeighConfig, weigh),
    Step("refine", "reasoning_rl", "policy", {"policy": "weigh", "data": "source"}, WeighConfig, weigh),
    Step("evaluate_weigh", "evaluation", "metrics", {"policy": "weigh"}, CheckConfig, check, section="evaluation"),
    Step("evaluate_refine", "evaluation", "metrics", {"policy": "refine"}, CheckConfig, check, section="evaluation"),
)


def write_profile(folder: Path, **sections: object) -> Path:
    path = folder / "toy.yaml"
    runtime = Runtime(threads=1).model_dump(mode="json", include={"threads"})
    path.write_text(yaml.safe_dump({"project": "toy", "runtime": runtime, **sections}))
    return path


def run_toy(folder: Path, *overrides: str, steps: Sequence[Step] = STEPS) -> None:
    """Runs the whole toy recipe on `folder`/toy.yaml, below `folder`/artifacts."""
    profile = load_profile(folder / "toy.yaml", overrides, steps)
    store = Store(folder / "artifacts", profile.project)
    run_plan(plan_run(steps, profile, store), steps, profile, store)


if __name__ == "__main__":
    # Imported under its own name, so that a child finds the module of a step.
    from tests import toy_stage

    toy_stage.run_toy(Path(sys.argv[1]), *sys.argv[2:])
