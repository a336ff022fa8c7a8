"""Tells when a policy learns to please a reward model and nothing else.

R1 (v2 §3.2.2) saw its reward models hacked when they rewarded for long. Here a score that cannot be pleased is measured
on dev prompts beside the reward models' own: when the reward rises while the score falls beyond its interval, training
ends.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_model
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.contract import Metrics, StepError
from stages.measures import LEVEL, Value, estimate, mean_of
from stages.rows import Prompt
from stages.training.checkpoints import find_checkpoint
from stages.training.grpo_trainer import sample_policy

FILE = "monitor.json"
RESAMPLES = 4000


@dataclass(frozen=True)
class Watch:
    """What is measured, on one completion of each prompt."""

    prompts: Sequence[Prompt]
    score: Callable[[Sequence[str]], list[Value]]
    """By rule, of each completion."""
    reward: Callable[[Sequence[str]], float]
    """Mean reward of the reward models."""
    on_hacking: Literal["stop", "roll_back"] = "roll_back"


@dataclass(frozen=True)
class Reading:
    """What was measured after a step."""

    step: int
    reward: float
    scores: list[Value]

    @property
    def score(self) -> float:
        return mean_of(self.scores) or 0.0


class HackingMonitor(TrainerCallback):
    """Measures at each checkpoint, of which the last step has one; its readings are kept there for a resumed run."""

    def __init__(self, trainer: Any, tokenizer: PreTrainedTokenizerBase, watch: Watch) -> None:
        self.trainer, self.watch = trainer, watch
        self.tokenizer, self.readings = tokenizer, list[Reading]()
        self.is_hacked = False
        """Whether the last reading has more reward than the best one, and a score below it beyond chance."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step:
            kept = json.loads((find_checkpoint(args, state.global_step) / FILE).read_text())
            self.readings = [Reading(**reading) for reading in kept]
        else:
            self.readings = [self.measure(0)]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % args.save_steps == 0 or state.global_step == state.max_steps:
            self.readings.append(self.measure(state.global_step))
            self.is_hacked = self.judge()
            # Kept from the rotation of checkpoints.
            state.best_model_checkpoint = str(find_checkpoint(args, self.best.step))
        if self.is_hacked:
            # Resumed from a checkpoint of this step, a killed run would go on behind it.
            control.should_training_stop, control.should_save = True, False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        text = json.dumps([asdict(reading) for reading in self.readings])
        (find_checkpoint(args, state.global_step) / FILE).write_text(text)

    @property
    def best(self) -> Reading:
        return max(self.readings, key=lambda reading: reading.score)

    def judge(self) -> bool:
        """The best of several readings is partly luck, so the interval is that of as many comparisons (Bonferroni)."""
        last, best = self.readings[-1], self.best
        level = 1 - (1 - LEVEL) / len(self.readings)
        pairs = zip(best.scores, last.scores, strict=True)
        change = estimate([None if a is None or b is None else b - a for a, b in pairs], RESAMPLES, seed=0, level=level)
        return last.reward > best.reward and change is not None and change.high < 0

    def measure(self, step: int) -> Reading:
        texts = self.sample()
        reading = Reading(step, self.watch.reward(texts), self.watch.score(texts))
        for name, value in (("score", reading.score), ("reward", reading.reward)):
            self.trainer._metrics["train"][f"monitor/{name}"].append(value)
        return reading

    def sample(self) -> list[str]:
        """One completion of each prompt, drawn alike each time."""
        questions = [prompt.question for prompt in self.watch.prompts]
        return [text for (text,) in sample_policy(self.trainer, self.tokenizer, questions, 1, seed=0)]

    def restart(self, step: int) -> None:
        """Begins again after a step: rewards of another reward model are not to be compared with those before."""
        self.readings = [self.measure(step)]

    def settle(self, policy: Path) -> Metrics:
        """What was seen. Hacked, the model gets its best weights back (`policy` is what training began from), or the
        step fails."""
        shown = [{"step": r.step, "reward": r.reward, "score": r.score} for r in self.readings]
        if not self.is_hacked:
            return {"readings": shown}
        if self.watch.on_hacking == "stop":
            raise StepError(self.explain())
        step = self.best.step
        folder = find_checkpoint(self.trainer.args, step) if step else policy
        load_model(self.trainer.model, str(folder / "model.safetensors"), strict=False)
        return {"readings": shown, "hacked_at": self.readings[-1].step, "rolled_back_to": step}

    def explain(self) -> str:
        last, best = self.readings[-1], self.best
        return (
            f"the reward models are hacked: from step {best.step} to {last.step} their reward rose from "
            f"{best.reward:.3f} to {last.reward:.3f}, while the score by rule on dev prompts fell from "
            f"{best.score:.3f} to {last.score:.3f}; expected both to rise. Take fewer steps or a lower "
            "preference_share, or set on_hacking: roll_back"
        )
