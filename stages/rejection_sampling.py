"""Stage 3: the 800k set by rejection sampling from the RL checkpoint, and SFT of the BASE model on it.

Paper: R1 v2 §3.3.1 and Table 5: 804,745 rows, 626,933 of them reasoning. Two rules people get wrong: the
data come from the stage-2 checkpoint, the weights restart from the base model.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from stages.contract import DataError, Metrics, Runtime, Step, StepConfig, StepContext, StepError
from stages.domains import group_of
from stages.engines import EngineName, Sampling, load_engine
from stages.filters import Funnel, TextRules
from stages.judging import JudgeConfig, ModelConfig, load_judge
from stages.problem_files import RowSource, read_lines
from stages.rows import Split, canonical_json, has_split, iterate_rows, read_rows
from stages.supervised_files import SupervisedFile
from stages.training.settings import SupervisedConfig

if TYPE_CHECKING:
    from stages.assembly import Columns
    from stages.candidates import Measure, Origin
    from stages.sampling_rounds import Sampler

GENERAL, SAMPLED, TEACHER = "general", "reasoning_rl", "teacher"
LOCAL_REASONS = (
    "unfinished",
    "broken text",
    "format",
    "cannot judge",
    "wrong answer",
    "mixed language",
    "long paragraph",
    "code block",
    "repetition",
    "length",
)
"""Why a sampled answer is rejected before it is compared with others, in the order of the tests."""


class EvaluationFile(RowSource):
    """An evaluation set beside the dev and test prompts, which the full set must not touch."""

    columns: tuple[str, ...] = ("question",)
    """Columns with its texts: questions, and solutions where it has them (R1 v2 appendix D.1)."""

    @model_validator(mode="after")
    def check_revision(self) -> "EvaluationFile":
        if self.hub and not self.revision:
            raise ValueError(
                f"hub is '{self.hub}' without a revision; expected the commit, as it says what is kept out"
            )
        return self


class TeacherConfig(ModelConfig):
    """A model that answers general questions which come without an answer."""

    sampling: Sampling = Sampling(n=1, max_completion_length=8192)
    """How its answers are drawn."""
    domains: tuple[str, ...] = ()
    """Domains whose prompts without a demonstration it answers; none named = all of `general_shares`."""
    instruction: str = (
        "Think about the request before you answer it. Write your thoughts between <think> and </think>, in the "
        "language of the request, and the answer after them.\n\n{question}"
    )
    """What it is asked where thoughts are required; `{question}` stands for the request. Elsewhere it is asked that."""


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
    supervised: tuple[SupervisedFile, ...] = ()
    """Files of answered questions, beside the demonstrations of generated domains; and of questions for the teacher."""
    teacher: TeacherConfig | None = None
    """Model that answers general questions which come without an answer; without one they are left out."""
    on_shortfall: Literal["go_on", "stop"] = "go_on"
    """What to do where a domain has fewer rows than its quota. The step says how many, and what would help."""
    engine: EngineName = "transformers"
    """Engine that samples from the RL checkpoint."""
    sampling: Sampling = Sampling(n=4)
    """How the RL checkpoint is sampled, in one round (the paper gives no number per prompt)."""
    budget: int | None = Field(default=None, ge=1)
    """Completions of one prompt at most: prompts without a usable one are sampled again until it is spent; null = one
    round."""
    shard_prompts: int = Field(default=512, ge=1)
    """Prompts that are sampled, judged and published together; a killed run loses at most so much. They share batches
    and a seed, so this is identity and not runtime."""
    judge: JudgeConfig | None = None
    """Model that judges answers which no rule can judge; without one these are rejected."""
    text: TextRules = TextRules()
    """What the text of an answer may be."""
    near_duplicate_scope: Literal["prompt", "global"] = "prompt"
    """Within what nearly equal rows are dropped: answers to one prompt, or all rows by question and answer. A generated
    world repeats its templates, real data should not: `global` there. Rows equal in both are dropped in any case."""
    near_duplicate_overlap: float = Field(default=0.8, gt=0)
    """Share of common 5-grams of words from which a row is a near duplicate of an earlier one; above 1 keeps all."""
    decontamination_ngram: int = Field(default=10, ge=2)
    """A row whose question or answer shares so many consecutive words with an evaluation set is dropped (R1 v2 appendix
    D.1: 10)."""
    evaluation_files: dict[str, EvaluationFile] = Field(default_factory=dict)
    """Evaluation sets by name, beside the questions of the dev and test splits."""
    per_prompt: int = Field(default=4, ge=1)
    """Different accepted answers kept per prompt: the first, as samples of one prompt are exchangeable. Where a domain
    has more rows than its quota, each prompt keeps one answer before any keeps a second."""
    rejected_per_reason: int = Field(default=200, ge=0)
    """Rejected rows of each reason that are kept, in `rejected/`."""

    @model_validator(mode="after")
    def check_supervised(self) -> "SFTDataConfig":
        names = [(file.domain, file.stem) for file in self.supervised]
        if len(set(names)) < len(names):
            raise ValueError(
                "supervised names two files alike for one domain; expected different names, as they are ids"
            )
        named = {"supervised": {file.domain for file in self.supervised}}
        named["teacher.domains"] = set(self.teacher.domains if self.teacher else ())
        for field, domains in named.items():
            if unknown := domains - self.general_shares.keys():
                raise ValueError(
                    f"{field} has {', '.join(sorted(unknown))}, which general_shares lacks; expected a share"
                )
        if not self.teacher and (asked := [file.domain for file in self.supervised if not file.is_answered]):
            raise ValueError(
                f"supervised has questions without completions for {', '.join(asked)}; expected a column for "
                "the completion, or a teacher"
            )
        return self

    @model_validator(mode="after")
    def check_engines(self) -> "SFTDataConfig":
        engines = [self.engine, *(model.engine for model in (self.judge, self.teacher) if model)]
        if engines.count("openai") > 1:
            raise ValueError("engine openai is named for two models, but has the same servers for both; expected one")
        return self


class SFTConfig(SupervisedConfig):
    pass


def make_sft_data(config: SFTDataConfig, context: StepContext) -> Metrics:
    # Here, so that planning waits for neither numpy nor Arrow.
    from stages.assembly import SetRules, choose_rows, read_columns, write_set
    from stages.sampling_rounds import read_prompt_table, write_solve_rates

    prompts = read_prompt_table(context.inputs["prompts"], "train")
    quotas = scale_targets(config, {*prompts["domain"].unique().to_pylist(), *(f.domain for f in config.supervised)})
    measure = make_measure(config, context.inputs["prompts"])
    # What others wrote comes first: a wrong file or id is then said before hours of sampling.
    supervised = collect_supervised(config, context, prompts, quotas, measure)
    taught = collect_taught(config, context, prompts, quotas, measure)
    sampled = sample_reasoning(config, context, prompts, quotas, measure)
    paths = [*sampled, *taught, *supervised]
    columns = read_columns(paths)
    rules = SetRules(
        quotas,
        config.near_duplicate_scope,
        config.near_duplicate_overlap,
        config.per_prompt,
        config.rejected_per_reason,
    )
    choose_rows(columns, rules)
    metrics = describe_set(config, quotas, columns, sampled, taught)
    check_shortfall(config, metrics)
    write_set(paths, columns, rules, context.output_dir)
    write_solve_rates(sampled, context.output_dir)
    return metrics


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


def make_measure(config: SFTDataConfig, prompts: Path) -> "Measure":
    from stages.candidates import Measure
    from stages.decontamination import HeldOut

    held_out = HeldOut(list_held_out(config, prompts), config.decontamination_ngram)
    return Measure(held_out, config.near_duplicate_scope, config.seed)


def list_held_out(config: SFTDataConfig, prompts: Path) -> Iterator[tuple[str, str]]:
    """(evaluation set, text): questions of the dev and test splits, and what other files hold."""
    splits: tuple[Split, ...] = ("dev", "test")
    for split in splits:
        if has_split(prompts, split):
            for row in iterate_rows(prompts, split):
                yield f"{row['domain']}/{split}", row["prompt"][-1]["content"]
    for name, file in config.evaluation_files.items():
        yield from ((name, text) for text in read_evaluation(file))


def read_evaluation(file: EvaluationFile) -> Iterator[str]:
    """Every text of the file. Raises DataError for a line that cannot be read: half of a set protects from nothing."""
    source = file.open()
    for line, _, row in read_lines(source):
        texts = [None] if isinstance(row, str) else [row.get(column) for column in file.columns]
        for text in texts:
            if not isinstance(text, str):
                fault = row if isinstance(row, str) else f"it has: {', '.join(row)}"
                raise DataError(f"{source}, line {line}: {fault}; expected text in {', '.join(file.columns)}")
            yield text


def sample_reasoning(
    config: SFTDataConfig, context: StepContext, prompts: Any, quotas: Mapping[str, int], measure: "Measure"
) -> list[Path]:
    """Shards of sampled and judged rows of the reasoning domains; `prompts` is an Arrow table."""
    from stages.sampling_rounds import cut_shards, sample_all, select_domains

    domains = [domain for domain in quotas if domain in config.targets and group_of(domain) == "reasoning"]
    chosen = select_domains(prompts, domains)
    origin = describe_origin(config, context)
    load = partial(load_sampler, config, context.inputs["policy"], context.runtime, origin, measure)
    return sample_all(load, cut_shards(chosen, config.shard_prompts), context.scratch_dir / "shards", context)


def load_sampler(
    config: SFTDataConfig, policy: Path, runtime: Runtime, origin: "Origin", measure: "Measure"
) -> "Sampler":
    from stages.sampling_rounds import Rounds, Sampler

    rounds = Rounds(config.sampling, config.budget or config.sampling.n, config.seed, config.rejected_per_reason)
    engine = load_engine(config.engine, policy, runtime)
    return Sampler(engine, load_judge(config.judge, config.seed, runtime), config.text, rounds, origin, measure)


def describe_origin(config: SFTDataConfig, context: StepContext) -> "Origin":
    from stages.candidates import Origin

    policy, sampler = read_record(context.inputs["policy"]), config.sampling.model_dump_json()
    sources = find_prompt_sources(context.inputs["prompts"])
    return Origin(SAMPLED, sources, policy.get("digest", ""), config.engine, sampler, config.seed)


def find_prompt_sources(prompts: Path) -> dict[str, str]:
    """Where the training prompts of each domain come from, as their step has written it down."""
    sources = read_record(prompts).get("metrics", {}).get("sources", {})
    return {name.removesuffix("/train"): source for name, source in sources.items() if name.endswith("/train")}


def read_record(folder: Path) -> dict[str, Any]:
    """What the store has written beside an input; empty for a folder that is no artifact."""
    path = folder / "record.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def collect_supervised(
    config: SFTDataConfig, context: StepContext, prompts: Any, quotas: Mapping[str, int], measure: "Measure"
) -> list[Path]:
    """Shards of the rows that nobody samples: demonstrations, then files in the order of the profile."""
    from stages.candidates import Origin
    from stages.supervised import DEMONSTRATION, write_demonstrations, write_file

    folder = context.scratch_dir / "supervised"
    domains = [domain for domain in config.general_shares if domain in quotas]
    origin = Origin(DEMONSTRATION, find_prompt_sources(context.inputs["prompts"]))
    paths = write_demonstrations(prompts, domains, origin, measure, folder)
    answered = [file for file in config.supervised if file.is_answered]
    for number, file in enumerate(answered):
        paths += write_file(file, number, measure, folder, context.output_dir)
    return paths


def collect_taught(
    config: SFTDataConfig, context: StepContext, prompts: Any, quotas: Mapping[str, int], measure: "Measure"
) -> list[Path]:
    """Shards of the teacher's answers: to general prompts without a demonstration, then to files of questions."""
    from stages.ngrams import hash_text
    from stages.sampling_rounds import cut_shards, sample_all
    from stages.supervised import read_questions
    from stages.teacher import select_unanswered

    if not config.teacher:
        return []
    domains = [domain for domain in config.teacher.domains or config.general_shares if domain in quotas]
    asked = [(find_prompt_sources(context.inputs["prompts"]), select_unanswered(prompts, domains))]
    asked += [read_questions(file, context.output_dir) for file in config.supervised if not file.is_answered]
    paths: list[Path] = []
    for sources, questions in asked:
        load = partial(load_teacher, config, config.teacher, context.runtime, sources, measure)
        # Named by what is asked, so that questions which were changed meanwhile are asked anew.
        folder = context.scratch_dir / TEACHER / f"{hash_text(canonical_json(questions.to_pylist())):016x}"
        paths += sample_all(load, cut_shards(questions, config.shard_prompts), folder, context)
    return paths


def load_teacher(
    config: SFTDataConfig, teacher: TeacherConfig, runtime: Runtime, sources: Mapping[str, str], measure: "Measure"
) -> "Sampler":
    from stages.candidates import Origin
    from stages.sampling_rounds import Rounds
    from stages.teacher import TeacherSampler

    path, sampling = Path(teacher.path), teacher.sampling
    policy = read_record(path).get("digest", path.name)
    origin = Origin(TEACHER, sources, policy, teacher.engine, sampling.model_dump_json(), config.seed)
    rounds = Rounds(sampling, sampling.n, config.seed, config.rejected_per_reason)
    engine = load_engine(teacher.engine, path, runtime)
    return TeacherSampler(engine, None, config.text, rounds, origin, measure, teacher.instruction)


def describe_set(
    config: SFTDataConfig,
    quotas: Mapping[str, int],
    columns: "Columns",
    sampled: Sequence[Path],
    taught: Sequence[Path],
) -> Metrics:
    """Everything the card says of the set."""
    from stages.assembly import count_values, describe_tokens
    from stages.sampling_rounds import count_outcomes_by_domain, count_reasons

    kept, asked = columns.kept(), count_outcomes_by_domain(sampled)
    counts = count_values(columns, "domain", kept)
    composition = {domain: counts[domain] for domain in quotas if domain in counts}
    shortfall = {d: quota - counts.get(d, 0) for d, quota in quotas.items() if counts.get(d, 0) < quota}
    funnel = fill_sampled_funnel(columns, count_reasons(sampled), SAMPLED)
    return {
        "rows": len(kept),
        "composition": composition,
        "quotas": dict(quotas),
        "shortfall": shortfall,
        "remedies": {d: suggest_remedy(d, quotas[d], counts.get(d, 0), asked.get(d)) for d in shortfall},
        "funnel": funnel.steps,
        **({"teacher_funnel": fill_sampled_funnel(columns, count_reasons(taught), TEACHER).steps} if taught else {}),
        "supervised_funnel": fill_supervised_funnel(columns).steps,
        "solve_rate": measure_solve_rate(funnel),
        "prompts": {domain: dict(zip(("asked", "solved"), pair, strict=True)) for domain, pair in asked.items()},
        "languages": count_values(columns, "language", kept),
        "sources": count_values(columns, "source", kept),
        "licences": {file.hub or Path(file.path).name: file.licence for file in config.supervised},
        "tokens": describe_tokens(columns, kept),
        "contaminated": count_values(columns, "contaminated", columns.rejected("contaminated")),
        "full_set": config.targets,
        "scale": config.scale,
    }


def fill_sampled_funnel(columns: "Columns", reasons: Mapping[str, int], source: str) -> Funnel:
    """What became of the rows sampled from `source`; `reasons` counts them as they left their shards."""
    funnel = Funnel(sum(reasons.values()))
    for reason in LOCAL_REASONS:
        funnel.drop(reason, reasons.get(reason, 0))
    return drop_globally(funnel, columns, columns.match("source", source))


def fill_supervised_funnel(columns: "Columns") -> Funnel:
    own = ~(columns.match("source", SAMPLED) | columns.match("source", TEACHER))
    return drop_globally(Funnel(int(own.sum()), "supervised"), columns, own)


def drop_globally(funnel: Funnel, columns: "Columns", own: Any) -> Funnel:
    """`own` is a mask over all rows."""
    from stages.assembly import REASONS

    for reason in REASONS:
        funnel.drop(reason, int(own[columns.rejected(reason)].sum()))
    return funnel


def measure_solve_rate(funnel: Funnel) -> float:
    left = {step["filter"]: step["left"] for step in funnel.steps}
    return float(left["wrong answer"] / max(1, left["sampled"]))


def suggest_remedy(domain: str, quota: int, rows: int, outcome: tuple[int, int] | None) -> str:
    """What would fill a quota, in figures."""
    missing = quota - rows
    said = f"{domain} has {rows:,} of {quota:,} rows"
    if outcome is None:
        return (
            f"{said}: {missing:,} more rows would fill it, from domains.{domain}.train or a file in sft_data.supervised"
        )
    asked, solved = outcome
    found = f"{said} from {asked:,} prompts, {solved:,} of them solved"
    if not rows:
        return f"{found}: no answer was usable, look at the funnel and at rejected/"
    more = math.ceil(missing * asked / rows)
    return f"{found}: about {more:,} more prompts would fill it, or a higher per_prompt, sampling.n or budget"


def check_shortfall(config: SFTDataConfig, metrics: Metrics) -> None:
    """Raises StepError if a domain falls short and the profile says to stop; DataError if there is no row at all."""
    remedies = "; ".join(metrics["remedies"].values())
    if not metrics["rows"]:
        steps = ", ".join(f"{step['filter']} {step['dropped']:,}" for step in metrics["funnel"] if step["dropped"])
        raise DataError(f"every answer was rejected, so the set would be empty ({steps}): {remedies}")
    if remedies and config.on_shortfall == "stop":
        raise StepError(f"{remedies}; or say sft_data.on_shortfall: go_on")


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
        revision=2,
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
