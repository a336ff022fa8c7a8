"""What a step of the recipe promises, and the errors it may raise.

A step is one node of the DAG and makes exactly one artifact. It knows nothing of versions,
of Prefect or of other steps: it reads `context.inputs[role]`, writes below
`context.output_dir`, keeps restartable state below `context.scratch_dir` and returns metrics.

PipelineError
├── ConfigError    the command line or the profile is wrong; never retried
├── DataError      rows, files or a model a step was given cannot be used
├── ArtifactError  an artifact is missing, damaged or not what its record says
└── StepError      a step ran and failed
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["policy", "reward_model", "dataset", "metrics"]
Metrics = dict[str, Any]
CORES = "R1_CORES"
"""Environment variable by which an executor tells a worker how many cores are its own."""


class PipelineError(Exception):
    """Root of every error the project raises on purpose; `exit_code` is the CLI's."""

    exit_code = 3


class ConfigError(PipelineError):
    """The command line or the profile asks for something that cannot be."""

    exit_code = 2


class DataError(PipelineError):
    """Rows, files or a model that a step was given cannot be used."""


class ArtifactError(PipelineError):
    """An artifact is missing, damaged, or not what its record says."""


class StepError(PipelineError):
    """A step ran and failed."""


class StepConfig(BaseModel):
    """Identity of a step: everything in it enters the fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = 0
    """Seed of every random choice of the step. Taken from the profile's `seed` unless set."""


class Runtime(BaseModel):
    """How a step is run. Never changes the result, never enters the fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    threads: int = 0
    """OpenMP threads of the child process, and of each worker; 0 = all cores, shared among workers."""
    executor: Literal["local", "ray"] = "local"
    """Where stage 3 samples: on this machine, or on the Ray cluster that RAY_ADDRESS names."""
    workers: int = Field(default=1, ge=1)
    """Processes that sample shards side by side, each with an engine of its own; 1 = with `local`, the step's own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models live; `auto` takes CUDA when PyTorch sees it."""
    per_device_batch_size: int = 64
    """Sequences in one forward pass of training. Gradient accumulation follows from the global batch."""
    interpreter: str = ""
    """Python of the child process; empty = the one that runs the pipeline."""
    launcher: tuple[str, ...] = ()
    """Prefix that makes a step distributed, as `[accelerate, launch]`, put before `-m stages`."""


def count_cores() -> int:
    """Cores that judging may keep busy: those of the machine, or the share that an executor gives this process."""
    return int(os.environ.get(CORES) or os.cpu_count() or 1)


class Progress(Protocol):
    """Reports how far a step is; also its heartbeat."""

    def __call__(self, done: int, total: int, **metrics: float | str) -> None: ...


def no_progress(done: int, total: int, **metrics: float | str) -> None:
    """A `Progress` that says nothing."""


@dataclass(frozen=True)
class StepContext:
    """Where a step reads and writes, and how it is run."""

    inputs: Mapping[str, Path]
    output_dir: Path
    scratch_dir: Path
    runtime: Runtime = field(default_factory=Runtime)
    progress: Progress = no_progress


@dataclass(frozen=True)
class Step:
    """One DAG node. `inputs` maps a role to the name of the step that fills it."""

    name: str
    stage: str
    kind: Kind
    inputs: Mapping[str, str]
    Config: type[StepConfig]
    run: Callable[[Any, StepContext], Metrics]
    revision: int = 1
    section: str = ""
    """Section of the profile with its config; empty = `name`."""
    choose_inputs: Callable[[Any], Mapping[str, str]] | None = None
    """Further inputs that a config asks for."""
    extendable: str = ""
    """Config field that may grow without a change to what was done before, as the number of steps at a constant
    learning rate: a finished run then goes on from its last state."""

    @property
    def config_section(self) -> str:
        return self.section or self.name


def find_step(steps: Sequence[Step], name: str) -> Step:
    """The step called `name`. Raises ConfigError naming those that exist."""
    for step in steps:
        if step.name == name:
            return step
    known = ", ".join(step.name for step in steps)
    raise ConfigError(f"step '{name}' does not exist; expected one of: {known}")
