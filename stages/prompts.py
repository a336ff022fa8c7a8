"""Setup: the prompts of every domain, split into train, dev and test."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.contract import ConfigError, Metrics, Step, StepConfig, StepContext
from stages.domains import domain_names, domain_rng, load_domain
from stages.math_verifier import find_ungradable
from stages.problem_files import BadRow, RowSource, read_problems, write_quarantine
from stages.rows import Prompt, Split, write_rows

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class ProblemFile(RowSource):
    """Real problems of a file or a dataset on the Hub."""

    columns: dict[str, str | int] = Field(default={"question": "question", "answer": "answer"})
    """Which column holds `question`, `answer` and, if there is one, `id`; numbers for a TSV."""
    answer_format: Literal["boxed", "gsm8k", "numeric", "letter"] = "boxed"
    """How the gold answer is written."""
    language: str = "en"
    """ISO 639-1 code of the questions."""


class DomainConfig(BaseModel):
    """How many rows of one domain, and where they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    """False leaves the domain out of every split and every quota."""
    train: int = Field(default=0, ge=0)
    """Generated training rows, in rows; of a file the first so many, 0 = all."""
    dev: int = Field(default=0, ge=0)
    """Generated dev rows."""
    test: int = Field(default=0, ge=0)
    """Generated test rows."""
    files: dict[Split, ProblemFile] = Field(default_factory=dict)
    """Splits read from a file instead of generated."""


class PromptsConfig(StepConfig):
    domains: dict[str, DomainConfig]
    """Domains by id. Taken from the profile's `domains` unless set."""
    decontamination_ngram: int = Field(default=10, ge=2)
    """A training row that shares so many consecutive words with a test row is dropped (R1 v2 appendix D.1: 10)."""

    @field_validator("domains")
    @classmethod
    def check_domains(cls, domains: dict[str, DomainConfig]) -> dict[str, DomainConfig]:
        if unknown := sorted(domains.keys() - set(domain_names())):
            raise ValueError(f"no domain is called {', '.join(unknown)}; expected some of {', '.join(domain_names())}")
        return domains


def enabled_domains(domains: Mapping[str, DomainConfig]) -> dict[str, DomainConfig]:
    return {name: domain for name, domain in domains.items() if domain.enabled}


def make_prompts(config: PromptsConfig, context: StepContext) -> Metrics:
    from stages.decontamination import find_contaminated  # here, so that planning does not wait for numpy

    splits: dict[Split, list[Prompt]] = {split: [] for split in SPLITS}
    sources: dict[str, str] = {}
    set_aside: dict[str, int] = {}
    for name, domain in enabled_domains(config.domains).items():
        for split in SPLITS:
            rows, source, bad = _load_split(name, domain, split, config.seed, context.output_dir)
            splits[split] += rows
            if rows:
                sources[f"{name}/{split}"] = source
            if bad:
                set_aside[f"{name}/{split}"] = bad
    if not any(splits.values()):
        raise ConfigError("domains: no enabled domain has train, dev or test rows; expected at least one row")
    held_out = [prompt.question for split in SPLITS[1:] for prompt in splits[split]]
    contaminated = find_contaminated([p.question for p in splits["train"]], held_out, config.decontamination_ngram)
    splits["train"] = [p for number, p in enumerate(splits["train"]) if number not in contaminated]
    for split, rows in splits.items():
        if rows:
            write_rows([prompt.to_row() for prompt in rows], context.output_dir, split)
    return {
        "rows": {split: dict(Counter(p.domain for p in rows)) for split, rows in splits.items()},
        "operations": {split: _count_operations(rows) for split, rows in splits.items()},
        "contaminated": len(contaminated),
        "sources": sources,
        "set_aside": set_aside,
    }


def _load_split(
    name: str, domain: DomainConfig, split: Split, seed: int, output_dir: Path
) -> tuple[list[Prompt], str, int]:
    """(prompts, where they come from, how many rows were set aside)."""
    count = {"train": domain.train, "dev": domain.dev, "test": domain.test}[split]
    if split not in domain.files:
        generated = load_domain(name).generate(split, count, domain_rng(seed, name, split))
        if split != "train":
            _check_distinct(name, split, generated)
        return generated, "tiny world", 0
    if not getattr(load_domain(name), "READS_FILES", False):
        raise ConfigError(
            f"domains.{name}.files: the rule of '{name}' needs more than a question and its answer; expected generated "
            "rows, or files of problems in a domain such as math"
        )
    file = domain.files[split]
    source = file.open()
    prompts, bad = read_problems(
        source, file.columns, file.answer_format, domain=name, language=file.language, split=split
    )
    gradable, ungradable = split_gradable(prompts)
    if bad or ungradable:
        write_quarantine([*bad, *ungradable], output_dir / "quarantine" / f"{name}-{split}.jsonl")
    return gradable[: count or None], source.name, len(bad) + len(ungradable)


def split_gradable(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[BadRow]]:
    """Prompts whose gold answer a right answer in other words can match, and the others."""
    refused = find_ungradable(prompt.answer for prompt in prompts)
    ungradable = [
        BadRow(number, f"the gold answer '{prompt.answer}' cannot be graded", prompt.question[:2000])
        for number, prompt in enumerate(prompts, 1)
        if prompt.answer in refused
    ]
    return [prompt for prompt in prompts if prompt.answer not in refused], ungradable


def _check_distinct(name: str, split: Split, prompts: Sequence[Prompt]) -> None:
    """Refuses a held-out split in which a question would be asked, and so counted, twice."""
    different = len({prompt.question for prompt in prompts})
    if different < len(prompts):
        raise ConfigError(
            f"domains.{name}.{split} is {len(prompts)}, but so many rows hold only {different} different questions; "
            f"expected at most {different}"
        )


def _count_operations(prompts: Sequence[Prompt]) -> dict[str, int]:
    """Math problems by operation count: shows that the splits are equally hard."""
    loaded = (json.loads(prompt.checks) for prompt in prompts if prompt.domain == "math")
    counts = Counter(len(checks["operations"]) for checks in loaded if "operations" in checks)
    return {str(count): counts[count] for count in sorted(counts)}


STEPS = (Step("prompts", "setup", "dataset", {}, PromptsConfig, make_prompts, revision=3),)
