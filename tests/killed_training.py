"""Trainings that are killed at random moments and resumed until they are done.

    python -m tests.killed_training KIND BASE FOLDER KILLS

A process of its own that has loaded everything and trains in forks of itself: twenty starts of Python would take longer
than the trainings. Fails if one ends otherwise than a training that nobody disturbed. Prints how often it killed, and
how often it did so after a checkpoint.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from stages.rewards import load_reward
from stages.rows import Row, assistant_turn, completion_text, user_turn
from stages.training.checkpoints import newest_checkpoint, read_log
from stages.training.grpo import train_grpo
from stages.training.hacking_monitor import Watch
from stages.training.reward_model import RewardModel, train_pairwise, train_pointwise
from stages.training.reward_refresh import Refresh
from stages.training.settings import ReinforcementConfig, RewardModelConfig, RewardRefresh
from stages.training.sft import train_sft
from tests import micro_model

GRPO = ReinforcementConfig(
    steps=12,
    prompts_per_step=2,
    num_generations=4,
    minibatches=2,
    beta=0.05,
    reference_refresh=4,
    learning_rate=1e-3,
    max_completion_length=24,
    save_steps=2,
    reward_weights={"accuracy": 1.0, "think_format": 1.0, "language_consistency": 1.0, "please": 1.0},
)
MUON = {"matrix_learning_rate": 0.005}
SFT = micro_model.SFT.model_copy(update=MUON)
REWARD_MODEL = RewardModelConfig(epochs=50, batch_size=8, learning_rate=3e-3, max_length=384, held_out=0.2)
REFRESH = RewardRefresh(steps=5, training=REWARD_MODEL.model_copy(update={"epochs": 2}))


def train_by_rl(base: Path, folder: Path) -> None:
    rewards = {name: load_reward(name) for name in GRPO.reward_weights if name != "please"}
    prompts, context = micro_model.make_prompts("math", 24), micro_model.make_context(folder)
    watch = Watch(micro_model.make_prompts("math", 4, "dev"), lambda texts: [1.0] * len(texts), lambda texts: 1.0)
    model = RewardModel(folder.parent / "reward_model" / "output", context)

    def please(completions: Sequence[Any], prompts: Sequence[Any], **columns: Any) -> list[float | None]:
        asked = [prompt[-1]["content"] for prompt in prompts]
        return list(model.score(asked, [completion_text(completion) for completion in completions]))

    refresh = Refresh(REFRESH, model, [prompt.question for prompt in prompts], prefer_longer, make_pairs(), 4)
    train_grpo(base, prompts, {**rewards, "please": please}, GRPO, context, watch=watch, refresh=refresh)


def prefer_longer(groups: Sequence[Sequence[str]]) -> list[Row]:
    pairs = [sorted(set(texts), key=len) for texts in groups]
    return [
        {"prompt": user_turn(f"{n}?"), "chosen": assistant_turn(texts[-1]), "rejected": assistant_turn(texts[0])}
        for n, texts in enumerate(pairs)
    ]


def train_by_example(base: Path, folder: Path) -> None:
    train_sft(base, micro_model.make_sft_rows(400), SFT, micro_model.make_context(folder))


def make_pairs() -> list[Row]:
    return [
        {
            "id": p.id,
            "prompt": user_turn(p.question),
            "chosen": assistant_turn("Yes."),
            "rejected": assistant_turn("No!"),
        }
        for p in micro_model.make_prompts("math", 40)
    ]


def train_on_pairs(base: Path, folder: Path) -> None:
    config = REWARD_MODEL.model_copy(update=MUON)
    train_pairwise(base, make_pairs(), config, micro_model.make_context(folder))


def train_on_labels(base: Path, folder: Path) -> None:
    prompts = micro_model.make_prompts("math", 40)
    rows = [
        {"id": p.id, "prompt": user_turn(p.question), "completion": assistant_turn(f"It is {n}."), "safe": n % 2 == 0}
        for n, p in enumerate(prompts)
    ]
    train_pointwise(base, rows, REWARD_MODEL, micro_model.make_context(folder))


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "grpo": train_by_rl,
    "sft": train_by_example,
    "pairs": train_on_pairs,
    "labels": train_on_labels,
}


Outcome = tuple[dict[str, torch.Tensor], list[dict[str, float | None]]]


def read_outcome(folder: Path) -> Outcome:
    """Weights, and the log without times."""
    lines = [
        {name: value for name, value in line.items() if name != "step_time"}
        for line in read_log(folder / "output" / "training_log.jsonl")
    ]
    return micro_model.read_weights(folder / "output"), lines


def start(train: Callable[[], None]) -> int:
    """Pid of a fork that trains."""
    if pid := os.fork():
        return pid
    train()
    os._exit(0)


def kill_and_resume(kind: str, base: Path, folder: Path, kills: int, longest: float) -> int:
    """Trains, is killed, and trains again, until it was killed often enough and came to its end; kills that left a
    checkpoint behind."""
    rng, killed, resumed = random.Random(kind), 0, 0
    while True:
        pid = start(lambda: KINDS[kind](base, folder / "broken"))
        if killed < kills:
            time.sleep(rng.uniform(0.2, longest))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            resumed += newest_checkpoint(folder / "broken" / "scratch") is not None
        elif status:
            raise SystemExit(f"a resumed training failed with status {status}")
        else:
            compare(read_outcome(folder / "whole"), read_outcome(folder / "broken"))
            if killed == kills:
                return resumed
            shutil.rmtree(folder / "broken")


def compare(whole: Outcome, broken: Outcome) -> None:
    (weights, log), (broken_weights, broken_log) = whole, broken
    for line, expected in zip(broken_log, log, strict=True):
        assert line == expected, f"logs differ: {line}, expected {expected}"
    assert weights.keys() == broken_weights.keys()
    assert all(torch.equal(weights[name], broken_weights[name]) for name in weights), "weights differ"


def main(kind: str, base: Path, folder: Path, kills: int) -> None:
    torch.set_num_threads(1)
    if kind == "grpo":
        train_on_pairs(base, folder / "reward_model")
    began = time.monotonic()
    _, status = os.waitpid(start(lambda: KINDS[kind](base, folder / "whole")), 0)
    if status:
        raise SystemExit(f"the unbroken training failed with status {status}")
    print(kills, kill_and_resume(kind, base, folder, kills, time.monotonic() - began))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
