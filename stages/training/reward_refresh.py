"""A reward model that learns from the policy's own answers while the policy learns from it.

Iterative GRPO (DeepSeekMath, arXiv:2402.03300, algorithm 1): as the policy moves away from the answers that the reward
model has seen, new ones are judged and trained on, with a replay of old ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.domains import domain_rng
from stages.rows import Row
from stages.training.grpo_trainer import sample_policy
from stages.training.hacking_monitor import HackingMonitor
from stages.training.reward_model import RewardModel, agree_on_pairs, keep_short, split_held_out
from stages.training.settings import RewardRefresh


@dataclass(frozen=True)
class Refresh:
    """What the reward model learns from."""

    config: RewardRefresh
    model: RewardModel
    questions: Sequence[str]
    """Answered by the policy at each refresh."""
    judge: Callable[[Sequence[Sequence[str]]], list[Row]]
    """Pairs of the answers to each question, where one is clearly better."""
    replay: Sequence[Row]
    """Pairs made for the model's first training."""
    num_generations: int


class RefreshReward(TrainerCallback):
    """Judges answers of the policy every so many steps and trains the reward model on them."""

    def __init__(
        self, trainer: Any, tokenizer: PreTrainedTokenizerBase, refresh: Refresh, monitor: HackingMonitor | None
    ) -> None:
        self.trainer, self.tokenizer, self.refresh, self.monitor = trainer, tokenizer, refresh, monitor
        self.replay = self.drop_long(refresh.replay)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        due = state.global_step % self.refresh.config.steps == 0 and state.global_step < state.max_steps
        if not due or (self.monitor and self.monitor.is_hacked):
            return
        answers = sample_policy(
            self.trainer, self.tokenizer, self.refresh.questions, self.refresh.num_generations, seed=state.global_step
        )
        self.train(self.refresh.judge(answers), state.global_step)
        if self.monitor:
            self.monitor.restart(state.global_step)

    def train(self, pairs: Sequence[Row], step: int) -> None:
        """Trains on new and old pairs; logs how often the model agrees with the judge on new ones that it is not
        trained on, before and after."""
        config, fitting = self.refresh.config, self.drop_long(pairs)
        if len({row["prompt"][-1]["content"] for row in fitting}) < 2:
            self.log(pairs=0)
            return
        rng = domain_rng(config.training.seed, "reward_refresh", str(step))
        new, held_out = split_held_out(fitting, config.training)
        count = round(len(new) * config.replay_share / (1 - config.replay_share))
        asked = {row["prompt"][-1]["content"] for row in held_out}
        replay = [row for row in self.replay if row["prompt"][-1]["content"] not in asked]
        mixed = [*new, *rng.sample(replay, min(count, len(replay)))]
        rng.shuffle(mixed)
        before = self.measure(held_out)
        self.refresh.model.learn(mixed, config.training)
        self.log(pairs=len(mixed), agreement_before=before, agreement_after=self.measure(held_out))

    def drop_long(self, pairs: Sequence[Row]) -> list[Row]:
        model, training = self.refresh.model, self.refresh.config.training
        return keep_short(pairs, ("chosen", "rejected"), model.tokenizer, training.max_length)

    def measure(self, pairs: Sequence[Row]) -> float:
        return agree_on_pairs(self.refresh.model.model, self.refresh.model.tokenizer, pairs)

    def log(self, **values: float) -> None:
        for name, value in values.items():
            self.trainer._metrics["train"][f"reward_refresh/{name}"].append(value)
