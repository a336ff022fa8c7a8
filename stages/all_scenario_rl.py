"""Stage 4, RL for all scenarios: preference data, two reward models, and GRPO over all prompts.

Paper: R1 v2 §3.2.2, eq. 8-10 and appendix B.2. The helpful model is pairwise and reads the final summary
only; the safety model is pointwise and reads thoughts and summary. Each general prompt uses the one reward
model its set names; reasoning prompts keep their rules.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import Field, field_validator, model_validator

from stages.contract import DataError, Metrics, Step, StepConfig, StepContext
from stages.domains import domain_rng, load_domain
from stages.engines import EngineName, Sampling, load_engine
from stages.judging import JudgeConfig
from stages.measures import mean_of
from stages.mixture import count_visits, draw_prompts, draw_reasoning, share_out
from stages.preference_judging import balance_lengths, judge_groups, load_preference_judge
from stages.preference_reward import Preference, PreferenceReward
from stages.rewards import check_rewards, load_reward
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

if TYPE_CHECKING:
    from stages.training.reward_model import RewardModel
    from stages.training.reward_refresh import Refresh

MIN_DIFFERENCE = 1.0
Config = TypeVar("Config", bound=StepConfig)


def check_servers(config: Config, engine: str, judge: JudgeConfig | None) -> Config:
    """`config`, unless its two models would be asked at the same servers."""
    if engine == "openai" and judge and judge.engine == "openai":
        raise ValueError("engine openai is named for two models, but has the same servers for both; expected one")
    return config


class HelpfulPairsConfig(StepConfig):
    prompts: int = Field(default=66_000, ge=1)
    """Helpful prompts to sample candidates for (paper: 66,000 pairs)."""
    pairs_per_prompt: int = Field(default=1, ge=1)
    """Pairs judged per prompt."""
    sampling: Sampling = Sampling(n=4)
    """How candidates are drawn from the SFT checkpoint."""
    engine: EngineName = "transformers"
    """Engine that samples from it."""
    judge: JudgeConfig | None = None
    """Model that scores the answers of a pair; without one the domains' rules do, which know the tiny world alone. At
    temperature 0 it says the same each time it sees one order."""
    votes: int = Field(default=4, ge=2, multiple_of=2)
    """Judgements of a pair, half of them with the answers swapped (paper: 4)."""
    min_difference: float = Field(default=MIN_DIFFERENCE, ge=0)
    """A pair is kept if its mean score difference exceeds this (paper: 1)."""

    @model_validator(mode="after")
    def check_engines(self) -> "HelpfulPairsConfig":
        return check_servers(self, self.engine, self.judge)


class SafetyLabelsConfig(StepConfig):
    prompts: int = Field(default=106_000, ge=1)
    """Safety prompts to sample candidates for (paper: 106,000)."""
    sampling: Sampling = Sampling(n=4)
    """How candidates are drawn from the SFT checkpoint."""
    engine: EngineName = "transformers"
    """Engine that samples from it."""
    judge: JudgeConfig | None = None
    """Model that says which responses are safe; without one the domains' rules do, which know the tiny world alone."""

    @model_validator(mode="after")
    def check_engines(self) -> "SafetyLabelsConfig":
        return check_servers(self, self.engine, self.judge)


class JudgedRefresh(RewardRefresh):
    judge: JudgeConfig | None = None
    """As `helpful_pairs.judge`."""


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
    reward_refresh: JudgedRefresh | None = None
    """Trains the helpful reward model further on the policy's answers; works in one process."""
    preference_share: float = Field(default=400 / 1700, gt=0, le=1)
    """Last part of the steps, in which `shares` hold; before it there are rule-rewarded prompts alone (R1 v2
    §3.2.2: preference rewards only in the last 400 of 1,700 steps, since more of them led to reward hacking)."""

    @field_validator("reward_weights")
    @classmethod
    def check_rewards(cls, weights: dict[str, float]) -> dict[str, float]:
        return check_rewards(weights, get_args(Preference))

    @model_validator(mode="after")
    def check_refresh(self) -> "AllScenarioRLConfig":
        """The monitor begins again at a refresh, and must find a checkpoint of that step to go back to."""
        if self.reward_refresh and self.reward_refresh.steps % self.save_steps:
            expected = f"expected a multiple of save_steps={self.save_steps}"
            raise ValueError(f"reward_refresh.steps={self.reward_refresh.steps} falls between checkpoints; {expected}")
        return self


def make_helpful_pairs(config: HelpfulPairsConfig, context: StepContext) -> Metrics:
    prompts = pick_prompts(context, "helpful", config.prompts, config.seed)
    groups = sample_texts(prompts, config, context)
    judge = load_preference_judge(config.judge, config.seed, context.runtime)
    judged = judge_groups(prompts, groups, judge, config.votes, config.pairs_per_prompt)
    clear = keep_clear(judged, config.min_difference)
    rows = balance_lengths(clear)
    if not rows:
        raise DataError(
            f"of {len(judged)} judged pairs {len(clear)} differ by more than {config.min_difference}, and none is left "
            f"with lengths balanced{tell_missing(judged)}; raise helpful_pairs.prompts or helpful_pairs.sampling.n"
        )
    write_rows(rows, context.output_dir, "train")
    counts = {"judged": len(judged), "not_understood": judged.count(None), "clear": len(clear)}
    return {**counts, "pairs": len(rows), "length_balanced": len(clear) - len(rows)}


def tell_missing(judged: Sequence[Any]) -> str:
    count = judged.count(None)
    return f" (of {count} of them the judge said nothing that could be read as scores or labels)" if count else ""


def sample_texts(
    prompts: Sequence[Prompt], config: HelpfulPairsConfig | SafetyLabelsConfig, context: StepContext
) -> list[list[str]]:
    """Completions of each prompt from the SFT checkpoint."""
    engine = load_engine(config.engine, context.inputs["policy"], context.runtime)
    groups = engine.sample([p.question for p in prompts], config.sampling, config.seed, context.progress)
    return [[completion.text for completion in group] for group in groups]


def keep_clear(judged: Sequence[Row | None], min_difference: float) -> list[Row]:
    return [pair for pair in judged if pair and pair["difference"] > min_difference]


def pick_prompts(context: StepContext, source: RewardSource, count: int, seed: int) -> list[Prompt]:
    """Train prompts of the set rewarded by `source`, drawn by seed."""
    prompts = [p for p in read_prompts(context.inputs["prompts"], "train") if p.reward == source]
    if not prompts:
        raise DataError(f"the train split has no prompts of the {source} set; expected at least one")
    domain_rng(seed, source, "prompts").shuffle(prompts)
    return prompts[:count]


def make_safety_labels(config: SafetyLabelsConfig, context: StepContext) -> Metrics:
    prompts = pick_prompts(context, "safety", config.prompts, config.seed)
    groups = sample_texts(prompts, config, context)
    responses = [(p, text) for p, texts in zip(prompts, groups, strict=True) for text in dict.fromkeys(texts)]
    judge = load_preference_judge(config.judge, config.seed, context.runtime)
    labels = judge.label(responses)
    rows = [
        {
            "id": prompt.id,
            "prompt": user_turn(prompt.question),
            "completion": assistant_turn(text),
            "safe": label,
            "judge": judge.name,
        }
        for (prompt, text), label in zip(responses, labels, strict=True)
        if label is not None
    ]
    safe = [row["safe"] for row in rows].count(True)
    if safe in (0, len(rows)):
        raise DataError(
            f"of {len(responses)} responses {safe} are labelled safe and {len(rows) - safe} unsafe, expected some of "
            f"each{tell_missing(labels)}; raise safety_labels.prompts or safety_labels.sampling.n"
        )
    write_rows(rows, context.output_dir, "train")
    counts = {"responses": len(rows), "safe": safe, "unsafe": len(rows) - safe}
    return {**counts, "not_understood": labels.count(None)}


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


def plan_refresh(model: "RewardModel", config: AllScenarioRLConfig, context: StepContext) -> "Refresh | None":
    """When and on what the helpful reward model learns from the policy's answers; None if it does not."""
    from stages.training.reward_refresh import Refresh

    if config.reward_refresh is None:
        return None
    prompts = pick_prompts(context, "helpful", config.reward_refresh.prompts, config.seed)
    judge = load_preference_judge(config.reward_refresh.judge, config.seed, context.runtime)
    return Refresh(
        config.reward_refresh,
        model,
        [prompt.question for prompt in prompts],
        lambda groups: balance_lengths(keep_clear(judge_groups(prompts, groups, judge), MIN_DIFFERENCE)),
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
