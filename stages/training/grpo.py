"""GRPO with TRL's trainer, set to the paper's objective.

Where TRL's default differs it is set here: `loss_type="grpo"` and token-level ratios (DeepSeekMath's
form), the KL without TRL's ratio correction, a reference that is replaced and not mixed, division by the
group's standard deviation, the learning rate constant after warm-up.
"""

import math
import os
import random
import re
from collections.abc import Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, TrainerState, set_seed
from trl import GRPOConfig

from stages.contract import ConfigError, DataError, Metrics, StepContext, StepError
from stages.rows import Prompt, Row, assistant_turn, completion_text, read_completion, user_turn
from stages.training.checkpoints import (
    LOG_STEPS,
    KeepModel,
    LogLine,
    choose_device,
    run_trainer,
    save_policy,
    shared_arguments,
    split_batch,
)
from stages.training.grpo_trainer import CompactGRPOTrainer
from stages.training.hacking_monitor import HackingMonitor, Watch
from stages.training.monitoring import RewardFunction, monitor_rewards
from stages.training.reward_refresh import Refresh, RefreshReward
from stages.training.settings import ReinforcementConfig


def train_grpo(
    policy: Path,
    prompts: Sequence[Prompt],
    rewards: Mapping[str, RewardFunction],
    config: ReinforcementConfig,
    context: StepContext,
    chat_template: str = "",
    watch: Watch | None = None,
    refresh: Refresh | None = None,
) -> Metrics:
    """Trains `policy` on the prompts in their order; `rewards` are summed with `config.reward_weights`.

    `chat_template` takes the place of the policy's own and goes with the checkpoint. Where `watch` shows that the
    reward models are hacked, training ends: with the best checkpoint, or with StepError, as `watch.on_hacking` says.
    `refresh` says when and on what a reward model learns from the policy's answers.
    """
    set_seed(config.seed)
    if config.vllm and choose_device(context) == "cpu":
        raise ConfigError("vllm: true rolls out on a GPU, and this step runs on a CPU; expected vllm: false there")
    if refresh and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("reward_refresh trains the reward model in one process; expected a step without a launcher")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    rendered = str(tokenizer.apply_chat_template(user_turn("?"), add_generation_prompt=True, tokenize=False))
    context_length = AutoConfig.from_pretrained(policy).get_text_config().max_position_embeddings
    check_lengths(prompts, tokenizer, config.max_completion_length, context_length)
    trainer = CompactGRPOTrainer(
        model=str(policy),
        args=make_arguments(config, context),
        reward_funcs=[read_completions(reward, rendered) for reward in monitor_rewards(rewards)],
        train_dataset=Dataset.from_list(make_rows(prompts, config)),
        processing_class=tokenizer,
        ratio=config.ratio,
    )
    if trainer.ref_model is not None:
        trainer.add_callback(KeepModel(trainer.ref_model, "reference"))
    monitor = HackingMonitor(trainer, tokenizer, watch) if watch else None
    if monitor:
        trainer.add_callback(monitor)
    if refresh:
        trainer.add_callback(KeepModel(refresh.model.model, "reward_model"))
        trainer.add_callback(RefreshReward(trainer, tokenizer, refresh, monitor))
    log = run_trainer(trainer, context, config.minibatches, lambda: monitor is not None and monitor.is_hacked)
    seen = monitor.settle(policy) if monitor else {}
    metrics = summarise_log(log, config, seen.get("rolled_back_to", config.steps))
    if seen:
        metrics["monitor"] = seen
    save_policy(trainer.model, tokenizer, context.output_dir)
    return {**metrics, "seconds": {name: round(value, 1) for name, value in sorted(trainer.seconds.items())}}


def make_arguments(config: ReinforcementConfig, context: StepContext) -> GRPOConfig:
    completions = config.prompts_per_step * config.num_generations
    _, accumulation = split_batch(completions, context)
    return GRPOConfig(
        **{
            **shared_arguments(completions, config.seed, context),
            # A log line that spans a checkpoint would lose its first half in a resumed run.
            "logging_steps": math.gcd(LOG_STEPS, config.save_steps),
        },
        max_steps=config.steps,
        shuffle_dataset=False,
        steps_per_generation=accumulation * config.minibatches,
        num_generations=config.num_generations,
        num_iterations=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        beta=config.beta,
        epsilon=config.epsilon,
        loss_type="grpo",
        importance_sampling_level="token",
        scale_rewards="group",
        use_bias_correction_kl=False,
        sync_ref_model=config.beta > 0 and config.reference_refresh > 0,
        ref_model_mixup_alpha=1.0,
        ref_model_sync_steps=max(1, config.reference_refresh),
        temperature=config.temperature,
        use_vllm=config.vllm,
        vllm_mode="colocate",
        max_completion_length=config.max_completion_length,
        reward_weights=list(config.reward_weights.values()),
        save_steps=config.save_steps,
    )


def make_rows(prompts: Sequence[Prompt], config: ReinforcementConfig) -> list[Row]:
    """TRL's rows; rewards read the other columns."""
    return [{**prompt.to_row(), "max_completion_length": config.max_completion_length} for prompt in prompts]


def read_completions(reward: RewardFunction, rendered: str) -> RewardFunction:
    """The reward, of completions as all rewards expect them, whatever the chat template asks for."""

    @wraps(reward)
    def read(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        texts = [read_completion(rendered, completion_text(completion)) for completion in completions]
        values = reward(completions=list(map(assistant_turn, texts)), **columns)
        check_values(values, len(texts), reward.__name__)
        return values

    return read


def check_values(values: Sequence[float | None], count: int, name: str) -> None:
    """Raises StepError for what TRL would train on: NaN as "not judged", or values beside the wrong completions."""
    if len(values) != count:
        raise StepError(f"reward '{name}' returned {len(values)} values for {count} completions; expected one for each")
    for number, value in enumerate(values):
        if value is not None and not math.isfinite(value):
            raise StepError(
                f"reward '{name}' returned {value} for completion {number}; expected a finite number or None"
            )


def check_lengths(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, answer: int, context: int) -> None:
    """Raises DataError for prompts that leave no room in the policy's context for an answer of so many tokens."""
    turns = [user_turn(prompt.question) for prompt in prompts]
    texts = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    longest = max(len(tokens) for tokens in tokenizer(texts, add_special_tokens=False)["input_ids"])
    if longest + answer > context:
        raise DataError(
            f"the longest prompt has {longest} tokens and max_completion_length is {answer}, expected no more than the "
            f"policy's context of {context} in all; lower max_completion_length or leave the longest prompts out"
        )


SUMMARISED = (
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "kl",
    "entropy",
    "clip_ratio/region_mean",
    "completions/mean_length",
    "completions/clipped_ratio",
)
REFRESH = "reward_refresh/"
SUMMARISED_PARTS = re.compile(r"rewards/.*/mean|accuracy/.*|reflection/.*|sampling/.*")


def summarise_log(log: Sequence[LogLine], config: ReinforcementConfig, steps: int) -> Metrics:
    """Means over the last tenth of the lines up to a step that have a value: what the policy earned at the end.

    A reward that judged no row of a step is logged as null and left out of its mean.
    """
    lines = [line for line in log if (line["step"] or 0) <= steps]
    completions = steps * config.prompts_per_step * config.num_generations
    metrics: Metrics = {"steps": steps, "completions": completions}
    for name in [*SUMMARISED, *sorted({name for line in lines for name in line if SUMMARISED_PARTS.fullmatch(name)})]:
        values = [value for line in lines if (value := line.get(name)) is not None]
        if tail := values[-max(1, len(values) // 10) :]:
            metrics[name] = sum(tail) / len(tail)
    refreshes = [
        {"step": line["step"], **{name.removeprefix(REFRESH): line[name] for name in line if name.startswith(REFRESH)}}
        for line in log
        if f"{REFRESH}pairs" in line
    ]
    return {**metrics, "reward_refreshes": refreshes} if refreshes else metrics


def permute_rewards(reward: RewardFunction, seed: int) -> RewardFunction:
    """The reward with its values shuffled within each batch: the control that must show no gain.

    By seed and step alone, so that a resumed run shuffles alike.
    """

    @wraps(reward)
    def permuted(*args: Any, trainer_state: TrainerState, **columns: Any) -> list[float | None]:
        values = reward(*args, trainer_state=trainer_state, **columns)
        random.Random(f"{seed}-{trainer_state.global_step}").shuffle(values)
        return values

    return permuted
