"""One file per sampling engine, `<id>_engine.py`: questions in, completions out.

An engine module has `load(model_dir, runtime) -> Engine`. Adding an engine is adding a file.
"""

import hashlib
import importlib
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stages.contract import ConfigError, DataError, Progress, Runtime, no_progress

FinishReason = Literal["stop", "length", "prompt_too_long"]


class Sampling(BaseModel):
    """How completions are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    n: int = Field(default=16, ge=1)
    """Completions per prompt."""
    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the distribution that is drawn from."""
    max_completion_length: int = Field(default=32768, ge=1)
    """Longest completion, in tokens."""
    batch_size: int = Field(default=128, ge=1)
    """Completions decoded side by side; with `openai` requests in flight at each server, while vLLM in the step
    decides for itself. Which prompts share a batch decides the random numbers that `transformers` and `cpu` draw
    with, so this is identity and not runtime."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer; `tokens` includes the end token."""

    text: str
    tokens: int
    finish_reason: FinishReason


class Engine(Protocol):
    """A loaded policy that answers."""

    def sample(
        self, questions: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        """`sampling.n` completions for each question, asked through the chat template."""
        ...

    def extend(
        self, texts: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        """`sampling.n` continuations of each text, as of a document."""
        ...


def name_draws(texts: Sequence[str]) -> list[str]:
    """What the random numbers of each prompt are found by: its text, and which repeat of it this is.

    So a sample depends on the prompt alone, not on those that are asked with it or in which order.
    """
    repeats: Counter[str] = Counter()
    names = []
    for text in texts:
        repeats[text] += 1
        names.append(f"{repeats[text]} {text}")
    return names


def seed_draw(seed: int, name: str) -> int:
    """A seed of 64 bits for what `name` names."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode(errors="surrogatepass")).digest()[:8])


def engine_names() -> list[str]:
    return sorted(path.name.removesuffix("_engine.py") for path in Path(__file__).parent.glob("*_engine.py"))


def check_engine(name: str) -> str:
    if name not in engine_names():
        raise ValueError(f"expected one of {', '.join(engine_names())}")
    return name


EngineName = Annotated[str, AfterValidator(check_engine)]
"""Id of an engine in a config: another one is refused before anything runs."""


def load_engine(name: str, model_dir: Path, runtime: Runtime) -> Engine:
    """The engine with this id over the policy in `model_dir`.

    Raises ConfigError for an unknown id, DataError for a folder that this machine does not have.
    """
    if name not in engine_names():
        raise ConfigError(f"engine '{name}' does not exist; expected one of: {', '.join(engine_names())}")
    if not model_dir.is_dir():
        raise DataError(
            f"{model_dir} does not exist on {platform.node()}; expected a policy, on every node that samples"
        )
    return cast(Engine, importlib.import_module(f"{__name__}.{name}_engine").load(model_dir, runtime))
