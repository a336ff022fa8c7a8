"""A step of GRPO on a CPU: our trainer against TRL's own, the same model, prompts, settings and threads.

    python -m benchmarks.grpo CHECKPOINT PROMPTS [--steps N] [--group N]

CHECKPOINT and PROMPTS are folders of artifacts, as artifacts/demo/cold_start_sft/v1 and artifacts/demo/prompts/v1. TRL
runs in float32 without gradient checkpointing, with the device batch that suits it best of those tried. The rate is in
sampled tokens, because the two draw different ones; the learning rate is so small that they keep the same policy.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from datasets import Dataset
from trl import GRPOTrainer

from benchmarks.measurement import print_figure
from stages.contract import Runtime, StepContext
from stages.rows import Prompt, read_prompts
from stages.training.grpo import make_arguments, make_rows
from stages.training.grpo_trainer import CompactGRPOTrainer
from stages.training.settings import ReinforcementConfig

WARM_UP = 2
DEVICE_BATCHES = (16, 32, 64)
Reward = Callable[..., list[float | None]]


def reward_all(completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """No two of a group earn the same."""
    return [float(number % 7) for number in range(len(completions))]


def reward_half(completions: Sequence[Any], prompts: Sequence[Any], **columns: Any) -> list[float | None]:
    """Every second group earns nothing at all."""
    texts = [str(prompt) for prompt in prompts]
    dead = set(sorted(set(texts))[::2])
    return [0.0 if text in dead else float(number % 7) for number, text in enumerate(texts)]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo", description="Sampled tokens a second of GRPO.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    given = parser.parse_args(arguments)
    prompts = [prompt for prompt in read_prompts(given.prompts, "train") if prompt.reward == "rule"]
    random.Random(0).shuffle(prompts)
    compare(given, prompts, "beta 0.001, no dead group", 0.001, reward_all, at_least=1.5)
    compare(given, prompts, "beta 0, no dead group", 0.0, reward_all)
    compare(given, prompts, "beta 0, every second group dead", 0.0, reward_half)


def compare(
    given: argparse.Namespace, prompts: Sequence[Prompt], name: str, beta: float, reward: Reward, **bars: float
) -> None:
    stock = [measure(GRPOTrainer, given, prompts, beta, reward, batch) for batch in DEVICE_BATCHES]
    sides = {"ours": measure(CompactGRPOTrainer, given, prompts, beta, reward, 64), "trl": max(stock, key=median)}
    print_figure(f"GRPO, {name}: ours to trl", median(sides["ours"]) / median(sides["trl"]), "x", sides, **bars)


def measure(
    trainer_class: type[GRPOTrainer],
    given: argparse.Namespace,
    prompts: Sequence[Prompt],
    beta: float,
    reward: Reward,
    device_batch: int,
) -> list[float]:
    """Sampled tokens per second of each step."""
    config = ReinforcementConfig(
        steps=given.steps + WARM_UP,
        prompts_per_step=8,
        num_generations=given.group,
        minibatches=1,
        learning_rate=1e-9,
        beta=beta,
        reference_refresh=0,
        max_completion_length=128,
        save_steps=1_000_000,
        reward_weights={"score": 1.0},
    )
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(device="cpu", per_device_batch_size=device_batch)
        context = StepContext({}, Path(folder), Path(folder), runtime)
        settings = make_arguments(config, context)
        settings.logging_steps = 1
        rows = make_rows(prompts[: config.steps * config.prompts_per_step], config)
        trainer = trainer_class(
            model=str(given.checkpoint), reward_funcs=[reward], args=settings, train_dataset=Dataset.from_list(rows)
        )
        trainer.train()
    lines = [line for line in trainer.state.log_history if "step_time" in line][WARM_UP:]
    sampled = config.prompts_per_step * config.num_generations
    return [line["completions/mean_length"] * sampled / line["step_time"] for line in lines]


if __name__ == "__main__":
    main(sys.argv[1:])
