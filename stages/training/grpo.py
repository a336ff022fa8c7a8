"""GRPO with TRL's trainer, set to the paper's objective.

Where TRL's default differs it is set here: `loss_type="grpo"` and token-level ratios (DeepSeekMath's
form), the KL without TRL's ratio correction, a reference that is replaced and not mixed, division by the
group's standard deviation, the learning rate constant after warm-up.
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, set_seed
from trl import GRPOConfig

from stages.contract import ConfigError, DataError, Metrics, StepContext
from stages.rows import Prompt, Row, completion_text, find_prefill, user_turn
from stages.training.checkpoints import LogLine, run_trainer, save_policy, shared_arguments, split_batch
from stages.training.grpo_trainer import CompactGRPOTrainer
from stages.training.settings import ReinforcementConfig

ZERO_BATCHES = 10
PENALTIES = ("length", "overlong", "repetition")
"""Rewards of which 0 is the best."""
logger = logging.getLogger(__name__)
RewardFunction = Callable[..., list[float | None]]


def train_grpo(
    policy: Path,
    prompts: Sequence[Prompt],
    rewards: Mapping[str, RewardFunction],
    config: ReinforcementConfig,
    context: StepContext,
) -> Metrics:
    """Trains `policy` on the prompts in their order; `rewards` are summed with `config.reward_weights`."""
    set_seed(config.seed)
    check_sizes(config)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    check_lengths(prompts, tokenizer, AutoConfig.from_pretrained(policy).max_position_embeddings)
    trainer = CompactGRPOTrainer(
        model=str(policy),
        args=make_arguments(config, context),
        reward_funcs=[reward if name in PENALTIES else watch_zeros(reward, name) for name, reward in rewards.items()],
        train_dataset=Dataset.from_list(make_rows(prompts, tokenizer, config)),
        processing_class=tokenizer,
    )
    log = run_trainer(trainer, context)
    save_policy(trainer.model, tokenizer, context.output_dir)
    return summarise_log(log, config)


def make_arguments(config: ReinforcementConfig, context: StepContext) -> GRPOConfig:
    completions = config.prompts_per_step * config.num_generations
    _, accumulation = split_batch(completions, context)
    return GRPOConfig(
        **shared_arguments(completions, config.seed, context),
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
        max_completion_length=config.max_completion_length,
        reward_weights=list(config.reward_weights.values()),
        save_steps=config.save_steps,
    )


def make_rows(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, config: ReinforcementConfig) -> list[Row]:
    """TRL's rows; rewards read the other columns. `prefill` is what the chat template writes of a completion."""
    rendered = str(tokenizer.apply_chat_template(user_turn("?"), add_generation_prompt=True, tokenize=False))
    known = {"prefill": find_prefill(rendered), "max_completion_length": config.max_completion_length}
    return [{**prompt.to_row(), **known} for prompt in prompts]


def check_sizes(config: ReinforcementConfig) -> None:
    """Raises where TRL would silently resume inside a rollout."""
    if config.save_steps % config.minibatches:
        raise ConfigError(
            f"save_steps={config.save_steps} would cut a rollout; "
            f"expected a multiple of minibatches={config.minibatches}"
        )


def check_lengths(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, context: int) -> None:
    """Raises for prompts that leave no room for an answer."""
    turns = [user_turn(prompt.question) for prompt in prompts]
    texts = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    longest = max(len(tokens) for tokens in tokenizer(texts, add_special_tokens=False)["input_ids"])
    if longest >= context:
        raise DataError(
            f"the longest prompt has {longest} tokens, expected less than the policy's context of {context}"
        )


SUMMARISED = ("reward", "reward_std", "kl", "entropy", "completions/mean_length", "completions/clipped_ratio")


def summarise_log(log: Sequence[LogLine], config: ReinforcementConfig) -> Metrics:
    """Means over the last tenth of the log: what the policy earned at the end.

    A reward that judged no row of a step is logged as null and left out of its mean.
    """
    lines = [line for line in log if "reward" in line]
    tail = lines[-max(1, len(lines) // 10) :]
    completions = config.steps * config.prompts_per_step * config.num_generations
    metrics: Metrics = {"steps": config.steps, "completions": completions}
    for name in tail[-1]:
        values = [value for line in tail if (value := line.get(name)) is not None]
        if values and (name in SUMMARISED or (name.startswith("rewards/") and name.endswith("/mean"))):
            metrics[name] = sum(values) / len(values)
    return metrics


def watch_zeros(reward: RewardFunction, name: str) -> RewardFunction:
    """The reward; the log says why, most likely, when it pays nobody for many batches in a row (open-r1 #420)."""
    batches = 0

    @wraps(reward)
    def watched(*args: Any, **columns: Any) -> list[float | None]:
        nonlocal batches
        values = reward(*args, **columns)
        judged = [value for value in values if value is not None]
        batches = batches + 1 if judged and not any(judged) else 0 if judged else batches
        if batches == ZERO_BATCHES:
            last = completion_text(columns["completions"][-1])
            logger.warning(
                "reward '%s' was 0 for all completions of %d batches in a row; the last one is %.200r. Most often a "
                "chat template writes <think> itself or removes the thoughts, or completions are cut short",
                name,
                batches,
                last,
            )
        return values

    return watched


def permute_rewards(reward: RewardFunction, seed: int) -> RewardFunction:
    """The reward with its values shuffled within each batch: the control that must show no gain."""
    rng = random.Random(seed)

    @wraps(reward)
    def permuted(*args: Any, **columns: Any) -> list[float | None]:
        values = reward(*args, **columns)
        rng.shuffle(values)
        return values

    return permuted
