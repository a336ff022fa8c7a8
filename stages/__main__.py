"""The process that runs one step: `python -m stages STEP --spec spec.json`.

The spec names the module of the step, its config, its inputs and where to write. The result goes to
a file, last and at once; what is printed is only a log. Exit codes:

    0  done
    1  a bug: the traceback is in the log
    2  the config cannot be
    3  the step failed and says why
    4  asked to stop; run again to go on
    5  rows, files or a model it was given cannot be used
    6  out of memory

`python -m stages ask --model PATH --question TEXT` puts one question to a policy.
"""

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError

from stages.contract import (
    ArtifactError,
    ConfigError,
    DataError,
    Metrics,
    PipelineError,
    Runtime,
    StepContext,
    StepError,
    find_step,
)
from stages.rows import THINK_CLOSE, THINK_OPEN

CONFIG, FAILED, PREEMPTED, DATA, MEMORY = 2, 3, 4, 5, 6
PACKAGES = ("accelerate", "datasets", "numpy", "pyarrow", "ray", "tokenizers", "torch", "transformers", "trl", "vllm")


class ProgressFile:
    """A `Progress` that appends JSON lines for the runner to read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, done: int, total: int, **metrics: float | str) -> None:
        if not is_first_process():
            return
        entry = {"done": done, "total": total, "metrics": make_finite(metrics), "time": time.time()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, default=float) + "\n")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m stages", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("step", help="name of the step, or `ask`")
    parser.add_argument("--spec", type=Path, help="JSON file written by the runner")
    parser.add_argument("--model", type=Path, help="folder of a policy, for `ask`")
    parser.add_argument("--question", help="text of the question, for `ask`")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, leave)
    if given.step == "ask":
        if given.model is None or not given.question:
            parser.error("ask lacks --model or --question; expected the folder of a policy and a text")
        return answer(given.model, given.question)
    if given.spec is None:
        parser.error("--spec is missing; expected the JSON file of the step")
    return run_spec(given.step, json.loads(given.spec.read_text(encoding="utf-8")))


def leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(PREEMPTED)


def answer(model: Path, question: str) -> int:
    from stages.engines.ask import ask

    try:
        thoughts, summary = ask(model, question)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    print(f"{THINK_OPEN}\n{thoughts}\n{THINK_CLOSE}\n{summary}")
    return 0


def run_spec(name: str, spec: Mapping[str, Any]) -> int:
    """Runs the step, writes its result file and returns the exit code."""
    try:
        metrics = run_step(name, spec)
    except PipelineError as error:
        write_result(spec, {"error": str(error), "type": type(error).__name__})
        return exit_code(error)
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
        write_result(spec, {"error": describe_memory(error), "type": StepError.__name__})
        return MEMORY
    write_result(spec, {"metrics": make_finite(metrics), "packages": list_packages()})
    return 0


def run_step(name: str, spec: Mapping[str, Any]) -> Metrics:
    step = find_step(importlib.import_module(spec["module"]).STEPS, name)
    try:
        config = step.Config.model_validate(spec["config"])
    except ValidationError as error:
        raise ConfigError(f"config of step '{name}': {error}") from error
    context = StepContext(
        inputs={role: Path(path) for role, path in spec["inputs"].items()},
        output_dir=Path(spec["output_dir"]),
        scratch_dir=Path(spec["scratch_dir"]),
        runtime=Runtime.model_validate(spec["runtime"]),
        progress=ProgressFile(Path(spec["progress_path"])),
    )
    return step.run(config, context)


def exit_code(error: PipelineError) -> int:
    if isinstance(error, ConfigError):
        return CONFIG
    return DATA if isinstance(error, (DataError, ArtifactError)) else FAILED


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out. The class is torch's, and on a CPU only the text tells; neither needs torch imported."""
    named = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or named


def describe_memory(error: BaseException) -> str:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    mend = "lower runtime.per_device_batch_size, the sampling batch_size of the step, or in RL prompts_per_step"
    return f"out of memory: {detail}; {mend}"


def write_result(spec: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    if not is_first_process():
        return
    path = Path(spec["result_path"])
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(result, default=float, allow_nan=False), encoding="utf-8")
    temporary.replace(path)


def is_first_process() -> bool:
    """Of a distributed step only the first process reports; torchrun and accelerate set RANK."""
    return os.environ.get("RANK", "0") == "0"


def make_finite(value: Any) -> Any:
    """`value` with NaN and infinities as None, which JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): make_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [make_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def list_packages() -> dict[str, str]:
    """Versions in this environment, of the packages a step may use."""
    installed = {name: find_version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: text for name, text in installed.items() if text}}


def find_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
