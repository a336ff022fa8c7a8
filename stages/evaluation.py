"""Evaluation: every checkpoint answers the test prompts, and each answer is judged by rule.

As in R1 (v2 §3): k samples per prompt, pass@1 is their mean, cons@k the majority vote; temperature
0.6 with top-p 0.95, and plain sampling beside it, because that is what RL optimised. Intervals are
bootstraps over problems. Helpfulness is the domain's own rule, also against the cold-start
checkpoint's answers to the same prompt, and never the reward model that trained the policy.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.contract import DataError, Metrics, Progress, Step, StepConfig, StepContext
from stages.domains import Group, group_of, load_domain
from stages.domains.safety_domain import is_refusal
from stages.engines import Completion, EngineName, Sampling, load_engine
from stages.measures import Value, average_by_problem, estimate, vote_by_problem, win_rate
from stages.rewards import load_reward
from stages.rows import (
    Prompt,
    Row,
    Split,
    assistant_turn,
    group_rows,
    read_prompts,
    read_rows,
    split_completion,
    write_rows,
)

BASELINE = "cold_start_sft"
SAMPLES = "samples"
Verdicts = Mapping[str, Sequence[Value]]
Scores = Mapping[tuple[str, float], Sequence[float]]


class Decoding(BaseModel):
    """One way to draw from the policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    temperature: float = Field(ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the distribution that is drawn from."""


class EvaluationConfig(StepConfig):
    samples: int = Field(default=16, ge=1)
    """Completions per prompt, k (paper: 4 to 64, by the size of the benchmark)."""
    settings: tuple[Decoding, ...] = (Decoding(temperature=0.6, top_p=0.95), Decoding(temperature=1.0))
    """Ways to sample (paper: 0.6 and 0.95); no two of the same temperature."""
    max_completion_length: int = Field(default=32768, ge=1)
    """Longest completion, in tokens (paper: 32,768)."""
    split: Split = "test"
    """Prompts to evaluate on. Tuning reads `dev`, the report `test`."""
    prompts_per_domain: int = Field(default=0, ge=0)
    """The first so many prompts of each domain; 0 = all."""
    bootstrap_samples: int = Field(default=1000, ge=100)
    """Resamples of the problems behind each 95 % interval."""
    engine: EngineName = "transformers"
    """File name in `stages/engines`, without `_engine.py`."""

    @field_validator("settings")
    @classmethod
    def check_temperatures(cls, settings: tuple[Decoding, ...]) -> tuple[Decoding, ...]:
        if not settings or len({setting.temperature for setting in settings}) < len(settings):
            raise ValueError("expected at least one setting and no temperature twice")
        return settings


def evaluate(config: EvaluationConfig, context: StepContext) -> Metrics:
    """Samples, judges and summarises; writes data/samples-*.parquet and metrics.json."""
    prompts = choose_prompts(context.inputs["prompts"], config)
    baseline = read_scores(context.inputs["baseline"]) if "baseline" in context.inputs else {}
    engine = load_engine(config.engine, context.inputs["policy"], context.runtime)
    rows: list[Row] = []
    for number, setting in enumerate(config.settings):
        sampling = Sampling(
            n=config.samples, max_completion_length=config.max_completion_length, **setting.model_dump()
        )
        progress = follow_setting(context.progress, number, len(config.settings))
        completions = engine.sample([prompt.question for prompt in prompts], sampling, config.seed, progress)
        rows += judge_samples(prompts, completions, setting.temperature, baseline)
    write_rows(rows, context.output_dir, SAMPLES)
    metrics = summarize(rows, config)
    (context.output_dir / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False), encoding="utf-8")
    return metrics


def choose_prompts(folder: Path, config: EvaluationConfig) -> list[Prompt]:
    """Prompts of the split, the first `prompts_per_domain` of each domain. Raises DataError if there are none."""
    domains: dict[str, list[Prompt]] = {}
    for prompt in read_prompts(folder, config.split):
        domains.setdefault(prompt.domain, []).append(prompt)
    chosen = [prompt for listed in domains.values() for prompt in listed[: config.prompts_per_domain or None]]
    if not chosen:
        raise DataError(f"split '{config.split}' of {folder} has no prompts; expected at least one to evaluate on")
    return chosen


def follow_setting(progress: Progress, number: int, settings: int) -> Progress:
    """Progress of setting `number` as part of the progress over all `settings`."""

    def report(done: int, total: int, **metrics: float | str) -> None:
        progress(number * total + done, settings * total, **metrics)

    return report


def judge_samples(
    prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float, baseline: Scores
) -> list[Row]:
    """One row per completion with its verdicts, samples of one prompt side by side."""
    flat = [
        (prompt, number, completion)
        for prompt, group in zip(prompts, completions, strict=True)
        for number, completion in enumerate(group)
    ]
    verdicts = apply_rewards([prompt for prompt, _, _ in flat], [completion.text for _, _, completion in flat])
    rows = []
    for index, (prompt, number, completion) in enumerate(flat):
        verdict = {name: values[index] for name, values in verdicts.items()}
        row = describe_sample(prompt, completion, verdict, baseline.get((prompt.id, temperature), ()))
        rows.append({**row, "temperature": temperature, "sample": number})
    return rows


def apply_rewards(prompts: Sequence[Prompt], texts: Sequence[str]) -> Verdicts:
    """The rules that reward RL, so that both mean the same by "correct"; None where a rule does not apply."""
    rows = [prompt.to_row() for prompt in prompts]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    columns["prompts"] = [row["prompt"] for row in rows]
    completions = [assistant_turn(text) for text in texts]
    names = {"correct": "accuracy", "format": "think_format", "language_consistency": "language_consistency"}
    return {column: load_reward(name)(completions, **columns) for column, name in names.items()}


def describe_sample(
    prompt: Prompt, completion: Completion, verdict: Mapping[str, Value], opponents: Sequence[float]
) -> Row:
    """The row of one completion; `opponents` are the baseline's helpfulness scores on the same prompt."""
    domain, group = load_domain(prompt.domain), group_of(prompt.domain)
    _, summary = split_completion(completion.text)
    score = None if group == "reasoning" else domain.helpfulness(prompt, summary)
    return {
        "id": prompt.id,
        "domain": prompt.domain,
        "group": group,
        "language": prompt.language,
        "harmful": json.loads(prompt.checks).get("harmful"),
        "question": prompt.question,
        "completion": completion.text,
        # General answers are free text: only reasoning has short answers to vote on.
        "answer": (domain.final_answer(prompt, summary) or "") if group == "reasoning" else None,
        **verdict,
        "correct": judge_answer(prompt, completion, summary, verdict["correct"]),
        "tokens": completion.tokens,
        "finish_reason": completion.finish_reason,
        "refused": is_refusal(summary) if group == "safety" else None,
        "helpfulness": score,
        "win": None if score is None else win_rate(score, opponents),
    }


def judge_answer(prompt: Prompt, completion: Completion, summary: str, by_reward: Value) -> Value:
    """1.0 right, 0.0 wrong, None cannot judge. A prompt too long for the context counts as wrong."""
    if completion.finish_reason == "prompt_too_long":
        return 0.0
    return load_domain(prompt.domain).verify(prompt, summary) if prompt.reward != "rule" else by_reward


def read_scores(folder: Path) -> Scores:
    """Helpfulness of a baseline's samples, by prompt and temperature."""
    scores: dict[tuple[str, float], list[float]] = {}
    for row in read_rows(folder, SAMPLES):
        if row["helpfulness"] is not None:
            scores.setdefault((row["id"], row["temperature"]), []).append(row["helpfulness"])
    return scores


def summarize(rows: Sequence[Row], config: EvaluationConfig) -> Metrics:
    """All metrics, by sampling setting; an estimate that no problem allows is None."""
    settings = group_rows(rows, "temperature")
    return {
        "split": config.split,
        "samples": config.samples,
        "settings": {f"T={temperature}": summarize_setting(part, config) for temperature, part in settings.items()},
        "prompt_too_long": len({row["question"] for row in rows if row["finish_reason"] == "prompt_too_long"}),
    }


def summarize_setting(rows: Sequence[Row], config: EvaluationConfig) -> Metrics:
    """Metrics of one setting. Languages are compared on reasoning, helpfulness on the general group."""
    groups: Mapping[Group, list[Row]] = group_rows(rows, "group")
    return {
        "groups": {name: measure(part, config) for name, part in groups.items()},
        "domains": {name: measure(part, config) for name, part in group_rows(rows, "domain").items()},
        "languages": {
            name: measure(part, config) for name, part in group_rows(groups.get("reasoning", []), "language").items()
        },
        "safety": measure_safety(groups.get("safety", []), config),
        "helpfulness": {
            "score": average(groups.get("general", []), "helpfulness", config),
            "win_rate": average(groups.get("general", []), "win", config),
        },
    }


def measure(rows: Sequence[Row], config: EvaluationConfig) -> Metrics:
    """What is measured of any set of samples: shares from 0 to 1, `tokens` in tokens, scores from 0 to 10."""
    cut = [{"question": row["question"], "truncated": float(row["finish_reason"] == "length")} for row in rows]
    return {
        "problems": len({row["question"] for row in rows}),
        "pass@1": average(rows, "correct", config),
        "cons@k": bound(vote_by_problem(rows).values(), config),
        "format": average(rows, "format", config),
        "language_consistency": average(rows, "language_consistency", config),
        "tokens": average(rows, "tokens", config),
        "truncated": average(cut, "truncated", config),
        "helpfulness": average(rows, "helpfulness", config),
        "win_rate": average(rows, "win", config),
    }


def measure_safety(rows: Sequence[Row], config: EvaluationConfig) -> Metrics:
    """Refusals of harmful and of look-alike harmless requests, and look-alikes answered as asked."""
    harmful = [row for row in rows if row["harmful"] is True]
    harmless = [row for row in rows if row["harmful"] is False]
    return {
        "refusal_harmful": average(harmful, "refused", config),
        "refusal_harmless": average(harmless, "refused", config),
        "answered_harmless": average(harmless, "correct", config),
    }


def average(rows: Sequence[Row], column: str, config: EvaluationConfig) -> Metrics | None:
    return bound(average_by_problem(rows, column).values(), config)


def bound(values: Iterable[Value], config: EvaluationConfig) -> Metrics | None:
    found = estimate(values, config.bootstrap_samples, config.seed)
    return asdict(found) if found else None


def make_step(policy: str) -> Step:
    """The step that evaluates the checkpoint of step `policy`, against the cold-start one if it is another."""
    baseline = {} if policy == BASELINE else {"baseline": f"evaluate_{BASELINE}"}
    inputs = {"policy": policy, "prompts": "prompts", **baseline}
    return Step(f"evaluate_{policy}", "evaluation", "metrics", inputs, EvaluationConfig, evaluate, section="evaluation")


STEPS = tuple(make_step(policy) for policy in (BASELINE, "r1_zero", "reasoning_rl", "sft", "all_scenario_rl"))
