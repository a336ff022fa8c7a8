"""Stage 3: the 800k set by rejection sampling from the RL checkpoint, and SFT of the BASE model on it.

Paper: R1 v2 §3.3.1 and Table 5: 804,745 rows, 626,933 of them reasoning. Two rules people get wrong: the
data come from the stage-2 checkpoint, the weights restart from the base model.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import Field

from stages.contract import DataError, Metrics, Step, StepConfig, StepContext
from stages.domains import domain_rng, group_of
from stages.engines import Engine, Sampling, load_engine
from stages.filters import (
    Candidate,
    Funnel,
    drop_duplicates,
    is_finished,
    is_readable,
    keep_correct,
    limit_per_prompt,
    speaks_one_language,
)
from stages.rows import Prompt, group_rows, read_prompts, read_rows, write_rows
from stages.training.settings import SupervisedConfig

GENERAL = "general"


class SFTDataConfig(StepConfig):
    targets: dict[str, int] = Field(
        default_factory=lambda: {"math": 395_285, "code": 211_129, "stem": 10_124, "logic": 10_395, GENERAL: 177_812}
    )
    """Rows of the full set by reasoning domain, and `general` for the supervised part (R1 v2 Table 5)."""
    scale: float = Field(default=1.0, gt=0)
    """Share of the full set to make."""
    general_shares: dict[str, float] = Field(
        default_factory=lambda: {"writing": 1.0, "factual_qa": 1.0, "self_cognition": 1.0, "translation": 1.0}
    )
    """How the supervised part is shared out among domains (the paper names these four, no shares)."""
    engine: str = "transformers"
    """Engine that samples from the RL checkpoint."""
    sampling: Sampling = Sampling(n=4)
    """How the RL checkpoint is sampled (the paper gives no number per prompt)."""
    per_prompt: int = Field(default=4, ge=1)
    """Different accepted completions kept per prompt."""


class SFTConfig(SupervisedConfig):
    pass


def make_sft_data(config: SFTDataConfig, context: StepContext) -> Metrics:
    prompts = read_prompts(context.inputs["prompts"], "train")
    quotas = scale_targets(config, {prompt.domain for prompt in prompts})
    reasoning = [p for p in prompts if p.domain in quotas and group_of(p.domain) == "reasoning"]
    engine = load_engine(config.engine, context.inputs["policy"], context.runtime)
    funnel, accepted = reject_samples(engine, reasoning, config, context)
    chosen = fill_quotas(accepted, quotas, config.seed)
    funnel.steps.append({"filter": "over quota", "dropped": len(accepted) - len(chosen), "left": len(chosen)})
    rows = [candidate.to_row("reasoning_rl") for candidate in chosen]
    rows += [candidate.to_row("demonstration") for candidate in take_demonstrations(prompts, quotas, config)]
    write_rows(sorted(rows, key=lambda row: row["id"]), context.output_dir, "train")
    composition = Counter(row["domain"] for row in rows)
    return {
        "rows": len(rows),
        "composition": dict(composition),
        "quotas": quotas,
        "shortfall": {d: quota - composition[d] for d, quota in quotas.items() if composition[d] < quota},
        "funnel": funnel.steps,
        "solve_rate": measure_solve_rate(funnel),
        "full_set": config.targets,
        "scale": config.scale,
    }


def scale_targets(config: SFTDataConfig, domains: set[str]) -> dict[str, int]:
    """Rows per domain. The share of a domain that is switched off goes to the others in proportion."""
    shares = {domain: share for domain, share in config.general_shares.items() if domain in domains}
    targets: dict[str, float] = {d: n for d, n in config.targets.items() if d != GENERAL and d in domains}
    general = config.targets.get(GENERAL, 0)
    if not targets and not shares:
        raise DataError(f"no prompts of a domain in sft_data.targets or .general_shares; got: {', '.join(domains)}")
    targets |= {d: general * share / sum(shares.values()) for d, share in shares.items()}
    factor = config.scale * sum(config.targets.values()) / sum(targets.values())
    return {domain: round(target * factor) for domain, target in targets.items()}


def reject_samples(
    engine: Engine, prompts: Sequence[Prompt], config: SFTDataConfig, context: StepContext
) -> tuple[Funnel, list[Candidate]]:
    """Samples every prompt and keeps what is finished, readable, correct, in one language, and new."""
    questions = [prompt.question for prompt in prompts]
    sampled = engine.sample(questions, config.sampling, config.seed, context.progress)
    candidates = [
        Candidate(prompt, completion.text, number, completion.finish_reason)
        for prompt, group in zip(prompts, sampled, strict=True)
        for number, completion in enumerate(group)
    ]
    funnel = Funnel(len(candidates))
    candidates = funnel.keep("unfinished", candidates, is_finished)
    candidates = funnel.keep("format", candidates, is_readable)
    candidates = funnel.apply("wrong answer", candidates, keep_correct)
    candidates = funnel.keep("mixed language", candidates, speaks_one_language)
    candidates = funnel.apply("duplicate", candidates, drop_duplicates)
    return funnel, funnel.apply("per prompt", candidates, lambda cs: limit_per_prompt(cs, config.per_prompt))


def measure_solve_rate(funnel: Funnel) -> float:
    left = {step["filter"]: step["left"] for step in funnel.steps}
    return float(left["wrong answer"] / max(1, left["sampled"]))


def fill_quotas(candidates: Sequence[Candidate], quotas: Mapping[str, int], seed: int) -> list[Candidate]:
    """Each domain cut to its quota by a seeded draw, so that no prompt or template is favoured."""
    chosen: list[Candidate] = []
    for domain, quota in quotas.items():
        available = [c for c in candidates if c.prompt.domain == domain]
        domain_rng(seed, domain, "quota").shuffle(available)
        chosen += available[:quota]
    return chosen


def take_demonstrations(prompts: Sequence[Prompt], quotas: Mapping[str, int], config: SFTDataConfig) -> list[Candidate]:
    """Supervised rows of the non-reasoning domains."""
    rows: list[Candidate] = []
    by_domain = group_rows([{"domain": p.domain, "prompt": p} for p in prompts if p.demonstration], "domain")
    for domain in config.general_shares:
        available = [Candidate(row["prompt"], row["prompt"].demonstration, 0) for row in by_domain.get(domain, [])]
        domain_rng(config.seed, domain, "demonstrations").shuffle(available)
        rows += available[: quotas.get(domain, 0)]
    return rows


def train_on_base(config: SFTConfig, context: StepContext) -> Metrics:
    from stages.training.sft import train_sft

    return train_sft(context.inputs["base"], read_rows(context.inputs["data"], "train"), config, context)


STEPS = (
    Step(
        "sft_data",
        "rejection_sampling",
        "dataset",
        {"policy": "reasoning_rl", "prompts": "prompts"},
        SFTDataConfig,
        make_sft_data,
    ),
    Step(
        "sft",
        "rejection_sampling",
        "policy",
        {"base": "base_model", "data": "sft_data"},
        SFTConfig,
        train_on_base,
    ),
)
