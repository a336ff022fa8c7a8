"""A model of the real architecture that a test can make and train in seconds."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from stages.base_model import BaseModelConfig, make_base_model
from stages.contract import Metrics, Progress, Runtime, StepContext, no_progress
from stages.domains import domain_rng, load_domain
from stages.rows import Prompt, Row, assistant_turn, user_turn
from stages.training.settings import SupervisedConfig
from stages.training.sft import train_sft

DOMAINS = ("math", "greetings", "safety")
BASE = BaseModelConfig(
    corpus={name: 1.0 for name in DOMAINS},
    documents=300,
    vocabulary=400,
    hidden_size=32,
    layers=1,
    heads=2,
    intermediate_size=64,
    attention_dropout=0.1,
    context=384,
    block=64,
    batch_size=16,
)
SFT = SupervisedConfig(epochs=2, batch_size=4, learning_rate=1e-3, max_length=384)


def make_context(folder: Path, progress: Progress = no_progress, **inputs: Path) -> StepContext:
    """Two sequences a device batch, so that most trainings accumulate gradients."""
    output, scratch = folder / "output", folder / "scratch"
    output.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return StepContext(inputs, output, scratch, Runtime(device="cpu", per_device_batch_size=2), progress)


def make_base(folder: Path, config: BaseModelConfig = BASE) -> Path:
    # One thread: sums come out the same everywhere, and waiting threads do not spin.
    torch.set_num_threads(1)
    context = make_context(folder)
    make_base_model(config, context)
    return context.output_dir


def make_servable_base(folder: Path) -> Path:
    """A base that vLLM can serve on a CPU: heads are 32 wide."""
    return make_base(folder, BASE.model_copy(update={"hidden_size": 64, "documents": 1500}))


def make_prompts(domain: str, count: int, split: str = "train") -> list[Prompt]:
    return load_domain(domain).generate(split, count, domain_rng(0, domain, split))


def make_sft_rows(count: int) -> list[Row]:
    return [
        {"prompt": user_turn(prompt.question), "completion": assistant_turn(prompt.demonstration)}
        for prompt in make_prompts("math", count)
    ]


def train(base: Path, folder: Path, rows: int, progress: Progress = no_progress) -> Metrics:
    return train_sft(base, make_sft_rows(rows), SFT, make_context(folder, progress))


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
