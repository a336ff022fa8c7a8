"""A policy that learns to please a reward model and nothing else is noticed, and taken back or refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.contract import Metrics, StepError
from stages.measures import estimate
from stages.rows import Prompt
from stages.training.grpo import train_grpo
from stages.training.hacking_monitor import Watch
from stages.training.settings import ReinforcementConfig
from tests import micro_model

CONFIG = ReinforcementConfig(
    steps=8,
    prompts_per_step=2,
    num_generations=2,
    minibatches=1,
    beta=0.0,
    learning_rate=1e-3,
    max_completion_length=16,
    save_steps=2,
    reward_weights={"vary": 1.0},
)
DEV = micro_model.make_prompts("greetings", 20, "dev")


def vary(completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """No two of a group earn the same, so that each step changes the policy."""
    return [float(number % 3) for number in range(len(completions))]


class Scripted:
    """Readings as told, one after another; the last ones repeat."""

    def __init__(self, scores: Sequence[float], rewards: Sequence[float]) -> None:
        self.scores, self.rewards = list(scores), list(rewards)
        self.seen: list[list[str]] = []

    def score(self, texts: Sequence[str]) -> list[float | None]:
        self.seen.append(list(texts))
        return [self.scores[min(len(self.seen), len(self.scores)) - 1]] * len(DEV)

    def reward(self, texts: Sequence[str]) -> float:
        return self.rewards[min(len(self.seen), len(self.rewards) - 1)]


def train(base: Path, folder: Path, scripted: Scripted, on_hacking: str = "roll_back", steps: int = 8) -> Metrics:
    watch = Watch(DEV, scripted.score, scripted.reward, on_hacking)
    config = CONFIG.model_copy(update={"steps": steps})
    prompts: list[Prompt] = micro_model.make_prompts("math", 40)
    return train_grpo(base, prompts, {"vary": vary}, config, micro_model.make_context(folder), watch=watch)


def test_a_hacked_run_ends_with_its_best_checkpoint(micro_base: Path, tmp_path: Path) -> None:
    scripted = Scripted(scores=[0.2, 0.8, 0.8, 0.1], rewards=[0.1, 0.2, 0.3, 0.5])
    metrics = train(micro_base, tmp_path / "hacked", scripted)["monitor"]
    assert [reading["step"] for reading in metrics["readings"]] == [0, 2, 4, 6]
    assert (metrics["hacked_at"], metrics["rolled_back_to"]) == (6, 2)
    train(micro_base, tmp_path / "short", Scripted([0.5], [0.5]), steps=2)
    hacked, short = (micro_model.read_weights(tmp_path / name / "output") for name in ("hacked", "short"))
    assert all(torch.equal(hacked[name], short[name]) for name in short)


def test_the_last_step_is_measured_wherever_it_falls(micro_base: Path, tmp_path: Path) -> None:
    metrics = train(micro_base, tmp_path, Scripted([0.8, 0.8, 0.1], [0.1, 0.2, 0.5, 0.5]), steps=3)["monitor"]
    assert [reading["step"] for reading in metrics["readings"]] == [0, 2, 3]
    assert (metrics["hacked_at"], metrics["rolled_back_to"]) == (3, 0)
    start, end = micro_model.read_weights(micro_base), micro_model.read_weights(tmp_path / "output")
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_a_hacked_run_can_be_refused(micro_base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StepError, match=r"hacked: from step 0 to 2 their reward rose from 0\.100 to 0\.500, while .* 0\.8"
    ):
        train(micro_base, tmp_path, Scripted([0.8, 0.1], [0.1, 0.5]), "stop")
    assert not list((tmp_path / "output").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("scores", "rewards"), [([0.8, 0.1], [0.5, 0.1]), ([0.1, 0.8], [0.1, 0.5]), ([0.8, 0.8], [0.1, 0.5])]
)
def test_a_fall_of_both_or_a_rise_of_both_is_no_hacking(
    micro_base: Path, tmp_path: Path, scores: list[float], rewards: list[float]
) -> None:
    metrics = train(micro_base, tmp_path, Scripted(scores, rewards), steps=4)
    assert metrics["steps"] == 4 and "hacked_at" not in metrics["monitor"]


class Slipping(Scripted):
    """Like the script, but the fifth reading loses four prompts of twenty."""

    def score(self, texts: Sequence[str]) -> list[float | None]:
        scores = super().score(texts)
        return [0.0] * 4 + scores[4:] if len(self.seen) == 5 else scores


def test_the_best_of_many_readings_is_partly_luck(micro_base: Path, tmp_path: Path) -> None:
    alone = estimate([-0.5] * 4 + [0.0] * 16, resamples=4000, seed=0)
    assert alone is not None and alone.high < 0
    metrics = train(micro_base, tmp_path, Slipping([0.5], [0.1, 0.2, 0.3, 0.4, 0.5]))
    assert len(metrics["monitor"]["readings"]) == 5 and "hacked_at" not in metrics["monitor"]


def test_watching_changes_no_weight_and_answers_are_drawn_alike(micro_base: Path, tmp_path: Path) -> None:
    scripted = Scripted([0.5], [0.5])
    train(micro_base, tmp_path / "watched", scripted, steps=4)
    config, context = CONFIG.model_copy(update={"steps": 4}), micro_model.make_context(tmp_path / "plain")
    train_grpo(micro_base, micro_model.make_prompts("math", 40), {"vary": vary}, config, context)
    watched, plain = (micro_model.read_weights(tmp_path / name / "output") for name in ("watched", "plain"))
    assert all(torch.equal(watched[name], plain[name]) for name in plain)
    assert len(scripted.seen) == 3 and scripted.seen[0] != scripted.seen[2]
    again = Scripted([0.5], [0.5])
    train(micro_base, tmp_path / "again", again, steps=4)
    assert again.seen == scripted.seen
