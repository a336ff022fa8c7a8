"""Stage 4, RL for all scenarios: preference data, two reward models, and GRPO over all prompts.

Paper: R1 v2 §3.2.2, eq. 8-10 and appendix B.2. The helpful model is pairwise and reads the final summary
only; the safety model is pointwise and reads thoughts and summary. Each general prompt uses the one reward
model its set names; reasoning prompts keep their rules.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

from pydantic import Field

from stages.contract import DataError, Metrics, Step, StepConfig, StepContext
from stages.domains import domain_rng, load_domain
from stages.engines import Sampling, load_engine
from stages.measures import mean_of
from stages.mixture import count_visits, draw_prompts, draw_reasoning, share_out
from stages.rewards import load_reward
from stages.rewards.preference import Preference, PreferenceReward
from stages.rows import (
    Prompt,
    RewardSource,
    Row,
    assistant_turn,
    has_split,
    read_prompts,
    read_rows,
    split_completion,
    user_turn,
    write_rows,
)
from stages.training.settings import ReinforcementConfig, RewardModelConfig, RewardRefresh


class HelpfulPairsConfig(StepConfig):
    prompts: int = Field(default=66_000, ge=1)
    """Helpful prompts to sample candidates for (paper: 66,000 pairs)."""
    pairs_per_prompt: int = Field(default=1, ge=1)
    """Pairs judged per prompt."""
    sampling: Sampling = Sampling(n=4)
    """How candidates are drawn from the SFT checkpoint."""
    engine: str = "transformers"
    """Engine that samples from it."""
    votes: int = Field(default=4, ge=2, multiple_of=2)
    """Judgements of a pair, half of them with the answers swapped (paper: 4)."""
    min_difference: float = Field(default=1.0, ge=0)
    """A pair is kept if its mean score difference exceeds this (paper: 1)."""


class SafetyLabelsConfig(StepConfig):
    prompts: int = Field(default=106_000, ge=1)
    """Safety prompts to sample candidates for (paper: 106,000)."""
    sampling: Sampling = Sampling(n=4)
    """How candidates are drawn from the SFT checkpoint."""
    engine: str = "transformers"
    """Engine that samples from it."""


class AllScenarioRLConfig(ReinforcementConfig):
    temperature: float = Field(default=0.7, gt=0)
    """Sampling temperature of the rollouts (paper: 0.7)."""
    reward_weights: dict[str, float] = Field(
        default_factory=lambda: {
            "accuracy": 1.0,
            "think_format": 1.0,
            "language_consistency": 1.0,
            "helpful": 1.0,
            "safety": 1.0,
        }
    )
    """Weight of each reward; `helpful` and `safety` are the two reward models (paper: a plain sum, eq. 8-10)."""
    shares: dict[RewardSource, float] = Field(default={"rule": 80.0, "helpful": 66.0, "safety": 12.0})
    """Prompts trained on by what rewards them, in proportion (R1 v2 Table 4, in thousands: reasoning, helpful and
    harmless)."""
    monitor_prompts: int = Field(default=200, ge=0)
    """Dev prompts that are answered at each checkpoint to see whether a reward model is hacked; 0 = not watched."""
    on_hacking: Literal["stop", "roll_back"] = "roll_back"
    """What happens then: the step fails, or its best checkpoint is published."""
    reward_refresh: RewardRefresh | None = None
    """Trains the helpful reward model further on the policy's answers; works in one process."""
    preference_share: float = Field(default=400 / 1700, gt=0, le=1)
    """Last part of the steps, in which `shares` hold; before it there are rule-rewarded prompts alone (R1 v2
    §3.2.2: preference rewards only in the last 400 of 1,700 steps, since more of them led to reward hacking)."""


def make_helpful_pairs(config: HelpfulPairsConfig, context: StepContext) -> Metrics:
    prompts = pick_prompts(context, "helpful", config.prompts, config.seed)
    engine = load_engine(config.engine, context.inputs["policy"], context.runtime)
    groups = engine.sample([p.question for p in prompts], config.sampling, config.seed, context.progress)
    judged, kept = judge_groups(prompts, [[completion.text for completion in group] for group in groups], config)
    rows = balance_lengths(kept)
    if not rows:
        raise DataError(
            f"of {len(judged)} judged pairs {len(kept)} differ by more than {config.min_difference}, and none is left "
            "with lengths balanced; raise helpful_pairs.prompts or helpful_pairs.sampling.n"
        )
    write_rows(rows, context.output_dir, "train")
    return {"judged": len(judged), "clear": len(kept), "pairs": len(rows), "length_balanced": len(kept) - len(rows)}


def pick_prompts(context: StepContext, source: RewardSource, count: int, seed: int) -> list[Prompt]:
    """Train prompts of the set rewarded by `source`, drawn by seed."""
    prompts = [p for p in read_prompts(context.inputs["prompts"], "train") if p.reward == source]
    if not prompts:
        raise DataError(f"the train split has no prompts of the {source} set; expected at least one")
    domain_rng(seed, source, "prompts").shuffle(prompts)
    return prompts[:count]


def judge_groups(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[str]], config: HelpfulPairsConfig
) -> tuple[list[Row], list[Row]]:
    """(all judged pairs, those that differ clearly) of the answers to each prompt."""
    asked = zip(prompts, groups, strict=True)
    judged = [pair for prompt, texts in asked for pair in judge_group(prompt, texts, config)]
    return judged, [pair for pair in judged if pair["difference"] > config.min_difference]


def judge_group(prompt: Prompt, texts: Sequence[str], config: HelpfulPairsConfig) -> list[Row]:
    """Neighbouring samples compared; unfinished ones lose by having no summary."""
    different = list(dict.fromkeys(texts))
    pairs = list(pairwise(different))[: config.pairs_per_prompt]
    return [judge_pair(prompt, first, second, config.votes) for first, second in pairs]


def judge_pair(prompt: Prompt, first: str, second: str, votes: int) -> Row:
    """Mean scores of `votes` judgements, every second one with the answers swapped."""
    totals = [0.0, 0.0]
    for vote in range(votes):
        swapped = vote % 2 == 1
        scores = score_answers(prompt, (second, first) if swapped else (first, second))
        totals = [total + score for total, score in zip(totals, reversed(scores) if swapped else scores, strict=True)]
    means = [total / votes for total in totals]
    chosen, rejected = (first, second) if means[0] >= means[1] else (second, first)
    return {
        "id": prompt.id,
        "prompt": user_turn(prompt.question),
        "chosen": assistant_turn(split_completion(chosen)[1]),
        "rejected": assistant_turn(split_completion(rejected)[1]),
        "difference": abs(means[0] - means[1]),
        "domain": prompt.domain,
    }


def score_answers(prompt: Prompt, answers: Sequence[str]) -> list[float]:
    """The judge of the tiny world: the domain's own rule, on the summaries, from 0 to 10."""
    domain = load_domain(prompt.domain)
    return [domain.helpfulness(prompt, split_completion(answer)[1]) for answer in answers]


def balance_lengths(pairs: Sequence[Row]) -> list[Row]:
    """As many pairs with the longer answer chosen as with the shorter one, so that length tells nothing."""

    def gap(pair: Row) -> int:
        return len(pair["chosen"][0]["content"]) - len(pair["rejected"][0]["content"])

    longer, shorter = [p for p in pairs if gap(p) > 0], [p for p in pairs if gap(p) < 0]
    most = min(len(longer), len(shorter))
    dropped = {id(pair) for pair in (*longer[most:], *shorter[most:])}
    return [pair for pair in pairs if id(pair) not in dropped]


def make_safety_labels(config: SafetyLabelsConfig, context: StepContext) -> Metrics:
    prompts = pick_prompts(context, "safety", config.prompts, config.seed)
    engine = load_engine(config.engine, context.inputs["policy"], context.runtime)
    groups = engine.sample([p.question for p in prompts], config.sampling, config.seed, context.progress)
    rows = [
        {
            "id": prompt.id,
            "prompt": user_turn(prompt.question),
            "completion": assistant_turn(text),
            "safe": bool(load_domain(prompt.domain).verify(prompt, split_completion(text)[1])),
        }
        for prompt, group in zip(prompts, groups, strict=True)
        for text in dict.fromkeys(completion.text for completion in group)
    ]
    safe = [row["safe"] for row in rows].count(True)
    if safe in (0, len(rows)):
        raise DataError(
            f"all {len(rows)} labelled responses are {'safe' if safe else 'unsafe'}, so nothing can be told apart; "
            "raise safety_labels.prompts or safety_labels.sampling.n"
        )
    write_rows(rows, context.output_dir, "train")
    return {"responses": len(rows), "safe": safe, "unsafe": len(rows) - safe}


def train_helpful(config: RewardModelConfig, context: StepContext) -> Metrics:
    from stages.training.reward_model import train_pairwise

    return train_pairwise(context.inputs["policy"], read_rows(context.inputs["pairs"], "train"), config, context)


def train_safety(config: RewardModelConfig, context: StepContext) -> Metrics:
    from stages.training.reward_model import train_pointwise

    return train_pointwise(context.inputs["policy"], read_rows(context.inputs["labels"], "train"), config, context)


def train_all_scenario_rl(config: AllScenarioRLConfig, context: StepContext) -> Metrics:
    from stages.training.grpo import train_grpo
    from stages.training.hacking_monitor import Watch
    from stages.training.reward_model import RewardModel

    models = {source: RewardModel(context.inputs[f"{source}_reward_model"], context) for source in get_args(Preference)}
    learned: dict[str, Any] = {source: PreferenceReward(source, model.score) for source, model in models.items()}
    rewards = {name: learned[name] if name in learned else load_reward(name) for name in config.reward_weights}
    prompts = mix_prompts(read_prompts(context.inputs["prompts"], "train"), config)
    dev = pick_dev_prompts(context, config)
    watch = Watch(
        dev,
        lambda texts: judge_by_rule(dev, texts),
        lambda texts: average_reward(dev, texts, list(learned.values())),
        config.on_hacking,
    )
    return train_grpo(
        context.inputs["policy"],
        prompts,
        rewards,
        config,
        context,
        watch=watch if dev else None,
        refresh=plan_refresh(models["helpful"], config, context),
    )


def plan_refresh(model: Any, config: AllScenarioRLConfig, context: StepContext) -> Any:
    """When and on what the helpful reward model learns from the policy's answers; None if it does not."""
    from stages.training.reward_refresh import Refresh

    if config.reward_refresh is None:
        return None
    prompts = pick_prompts(context, "helpful", config.reward_refresh.prompts, config.seed)
    return Refresh(
        config.reward_refresh,
        model,
        [prompt.question for prompt in prompts],
        lambda groups: balance_lengths(judge_groups(prompts, groups, HelpfulPairsConfig())[1]),
        read_rows(context.inputs["pairs"], "train"),
        config.num_generations,
    )


def pick_dev_prompts(context: StepContext, config: AllScenarioRLConfig) -> list[Prompt]:
    """Dev prompts of the sets that reward models reward, drawn by seed; none where there is no dev split."""
    folder = context.inputs["prompts"]
    if not config.monitor_prompts or not has_split(folder, "dev"):
        return []
    prompts = [prompt for prompt in read_prompts(folder, "dev") if prompt.reward in get_args(Preference)]
    domain_rng(config.seed, "all_scenario_rl", "monitor").shuffle(prompts)
    return prompts[: config.monitor_prompts]


def judge_by_rule(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float | None]:
    return [load_domain(p.domain).verify(p, split_completion(text)[1]) for p, text in zip(prompts, texts, strict=True)]


def average_reward(prompts: Sequence[Prompt], texts: Sequence[str], rewards: Sequence[PreferenceReward]) -> float:
    """Mean over the prompts, each rewarded by the model of its set."""
    asked, sources = [user_turn(prompt.question) for prompt in prompts], [prompt.reward for prompt in prompts]
    values = [value for reward in rewards for value in reward(texts, prompts=asked, reward=sources)]
    return mean_of(values) or 0.0


def mix_prompts(prompts: Sequence[Prompt], config: AllScenarioRLConfig) -> list[Prompt]:
    """Prompts in the order of the steps: rule-rewarded ones, then all sets in proportion."""
    early = (config.steps - round(config.steps * config.preference_share)) * config.prompts_per_step
    parts = share_out(count_visits(config) - early, config.shares)
    rules = draw_reasoning(prompts, early + parts.get("rule", 0), config)
    mixed = rules[early:]
    rng = domain_rng(config.seed, "all_scenario_rl", "order")
    for source in get_args(Preference):
        mixed += draw_prompts(prompts, source, parts.get(source, 0), rng)
    rng.shuffle(mixed)
    return rules[:early] + mixed


STEPS = (
    Step(
        "helpful_pairs",
        "all_scenario_rl",
        "dataset",
        {"policy": "sft", "prompts": "prompts"},
        HelpfulPairsConfig,
        make_helpful_pairs,
    ),
    Step(
        "safety_labels",
        "all_scenario_rl",
        "dataset",
        {"policy": "sft", "prompts": "prompts"},
        SafetyLabelsConfig,
        make_safety_labels,
    ),
    Step(
        "helpful_reward_model",
        "all_scenario_rl",
        "reward_model",
        {"policy": "sft", "pairs": "helpful_pairs"},
        RewardModelConfig,
        train_helpful,
    ),
    Step(
        "safety_reward_model",
        "all_scenario_rl",
        "reward_model",
        {"policy": "sft", "labels": "safety_labels"},
        RewardModelConfig,
        train_safety,
    ),
    Step(
        "all_scenario_rl",
        "all_scenario_rl",
        "policy",
        {
            "policy": "sft",
            "prompts": "prompts",
            "helpful_reward_model": "helpful_reward_model",
            "safety_reward_model": "safety_reward_model",
        },
        AllScenarioRLConfig,
        train_all_scenario_rl,
        choose_inputs=lambda config: {"pairs": "helpful_pairs"} if config.reward_refresh else {},
    ),
)
