"""Stage 1, cold start: a small set of readable, correct chains of thought, and SFT of the base model on it.

Paper: R1 v2 §3.1 and appendix B.3.2: few-shot prompting, direct prompting for detailed answers, and R1-Zero
outputs made readable; thousands of rows.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from stages.contract import DataError, Metrics, Step, StepConfig, StepContext, StepError
from stages.domains import domain_rng, group_of
from stages.engines import Completion, Engine, EngineName, Sampling, load_engine
from stages.filters import (
    Candidate,
    Funnel,
    drop_duplicates,
    is_readable,
    keep_correct,
    limit_per_prompt,
    speaks_one_language,
)
from stages.problem_files import BadRow, read_jsonl, write_quarantine
from stages.rows import (
    ANSWER,
    QUESTION,
    THOUGHTS,
    Prompt,
    assistant_turn,
    read_completion,
    read_prompts,
    read_rows,
    split_completion,
    user_turn,
    write_rows,
)
from stages.supervised_files import AnsweredFile, read_answers
from stages.training.settings import SupervisedConfig

END = "<|end|>"


class Teacher(StepConfig):
    """A policy that rewrites accepted completions."""

    path: str
    """Checkpoint folder of the teacher."""
    engine: EngineName = "transformers"
    """Engine that samples from it."""
    instruction: str = "Rewrite so that it is easy to read and keeps every step:\n{completion}"
    """What it is asked; `{completion}` stands for the text."""


class ColdStartDataConfig(StepConfig):
    method: Literal["few_shot", "direct", "r1_zero", "file"] = "few_shot"
    """How the rows come about: the base model shown worked examples or asked directly for a detailed answer, R1-Zero
    asked, or read from a file."""
    file: str | AnsweredFile = ""
    """Answered questions for `method: file`: the path of a file with columns `question` and `completion`, or a source
    that says more."""
    engine: EngineName = "transformers"
    """Engine that samples from the base model or R1-Zero."""
    prompts: int = Field(default=4000, ge=1)
    """Reasoning prompts to sample for, taken in turn from the domains."""
    examples: int = Field(default=2, ge=0)
    """Worked examples before each question, for `method: few_shot`."""
    instruction: str = "Reflect and verify each step."
    """Said after the question, for `method: direct`."""
    sampling: Sampling = Sampling(n=4)
    """How it is sampled (paper: temperature 1.0)."""
    per_prompt: int = Field(default=1, ge=1)
    """Accepted completions kept per prompt."""
    rows: int = Field(default=5000, ge=1)
    """Rows of the set at most (paper: thousands)."""
    teacher: Teacher | None = None
    """Rewrites accepted rows; a rewrite that is no longer correct is dropped."""
    review: str = ""
    """JSONL for a human check: written at the first run, read back (`keep`, edited text) at the next."""

    @model_validator(mode="after")
    def check_file(self) -> "ColdStartDataConfig":
        is_answered = self.file.is_answered if isinstance(self.file, AnsweredFile) else bool(self.file)
        if self.method == "file" and not is_answered:
            raise ValueError(
                "method is file, but no file with completions is named; expected questions and completions"
            )
        return self


class ColdStartSFTConfig(SupervisedConfig):
    pass


def make_cold_start_data(config: ColdStartDataConfig, context: StepContext) -> Metrics:
    if config.method == "file":
        return copy_answers(config.file, context.output_dir)
    prompts = select_prompts(read_prompts(context.inputs["prompts"], "train"), config.prompts)
    source = "r1_zero" if config.method == "r1_zero" else "base"
    engine = load_engine(config.engine, context.inputs[source], context.runtime)
    groups = sample_thoughts(engine, prompts, config, context)
    funnel = Funnel(sum(len(group) for group in groups))
    candidates = [
        Candidate(p, text, n) for p, group in zip(prompts, groups, strict=True) for n, text in enumerate(group)
    ]
    candidates = funnel.keep("readable", candidates, is_readable)
    candidates = funnel.apply("correct", candidates, keep_correct)
    if source == "r1_zero":
        candidates = funnel.keep("mixed language", candidates, speaks_one_language)
    candidates = funnel.apply("duplicate", candidates, drop_duplicates)
    candidates = funnel.apply("per prompt", candidates, lambda cs: limit_per_prompt(cs, config.per_prompt))
    if config.teacher:
        candidates = funnel.apply("teacher rewrite", candidates, lambda cs: rewrite(cs, config, context))
    if config.review:
        candidates = funnel.apply("human check", candidates, lambda cs: review(cs, Path(config.review)))
    if not candidates:
        raise DataError(
            "no sampled completion was readable and correct, so the cold-start set would be empty; "
            "expected at least one: raise cold_start_data.sampling.n or .prompts"
        )
    rows = [candidate.to_row("base_model" if source == "base" else source) for candidate in candidates[: config.rows]]
    write_rows(rows, context.output_dir, "train")
    return {"method": config.method, "rows": len(rows), "funnel": funnel.steps}


def select_prompts(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Reasoning prompts, from each domain in turn."""
    domains: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if group_of(prompt.domain) == "reasoning":
            domains.setdefault(prompt.domain, []).append(prompt)
    if not domains:
        raise DataError("the train split has no reasoning prompts; expected at least one enabled reasoning domain")
    longest = max(len(rows) for rows in domains.values())
    in_turn = [rows[n] for n in range(longest) for rows in domains.values() if n < len(rows)]
    return in_turn[:count]


def sample_thoughts(
    engine: Engine, prompts: Sequence[Prompt], config: ColdStartDataConfig, context: StepContext
) -> list[list[str]]:
    """Completions in the policy's format, for each prompt, from R1-Zero or from the base model's documents."""
    if config.method == "r1_zero":
        questions = [prompt.question for prompt in prompts]
        asked = engine.sample(questions, config.sampling, config.seed, context.progress)
        return [[completion.text for completion in group] for group in asked]
    if config.method == "few_shot":
        texts = [show_examples(p, prompts, config.examples, config.seed) + ask_document(p.question) for p in prompts]
    else:
        texts = [ask_document(f"{prompt.question} {config.instruction}".rstrip()) for prompt in prompts]
    sampled = engine.extend(texts, config.sampling, config.seed, context.progress)
    return [[parse_document(completion) for completion in group] for group in sampled]


def ask_document(question: str) -> str:
    return f"{QUESTION}{question}{THOUGHTS}"


def show_examples(prompt: Prompt, prompts: Sequence[Prompt], count: int, seed: int) -> str:
    """Worked examples of the same domain and language, closed as the base model's documents are."""
    alike = [p for p in prompts if (p.domain, p.language) == (prompt.domain, prompt.language) and p.id != prompt.id]
    alike = [p for p in alike if p.demonstration]
    rng = domain_rng(seed, prompt.id, "examples")
    shown = rng.sample(alike, min(count, len(alike)))
    return "".join(write_example(example) for example in shown)


def write_example(prompt: Prompt) -> str:
    thoughts, summary = split_completion(prompt.demonstration)
    return f"{ask_document(prompt.question)} {thoughts}{ANSWER}{summary}\n{END}"


def parse_document(completion: Completion) -> str:
    """The document's thoughts and answer as a completion; text without an answer stays unreadable."""
    return read_completion(THOUGHTS, completion.text) if completion.finish_reason == "stop" else completion.text


def rewrite(candidates: Sequence[Candidate], config: ColdStartDataConfig, context: StepContext) -> list[Candidate]:
    """The teacher's rewrites that are still readable and correct."""
    assert config.teacher is not None
    engine = load_engine(config.teacher.engine, Path(config.teacher.path), context.runtime)
    asked = [config.teacher.instruction.format(completion=candidate.text) for candidate in candidates]
    answers = engine.sample(asked, config.sampling.model_copy(update={"n": 1}), config.teacher.seed)
    rewritten = [Candidate(c.prompt, a[0].text, c.sample) for c, a in zip(candidates, answers, strict=True)]
    return keep_correct([candidate for candidate in rewritten if is_readable(candidate)])


def review(candidates: Sequence[Candidate], path: Path) -> list[Candidate]:
    """Candidates a person kept. Writes them out and stops the step when nobody has looked yet."""
    if not path.is_file():
        lines = [
            json.dumps({"id": c.key, "question": c.prompt.question, "text": c.text, "keep": True}, ensure_ascii=False)
            for c in candidates
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        raise StepError(
            f"{len(lines)} candidates wait for a human check in {path}: edit `text`, set `keep` to false "
            "for those to drop, and run the step again"
        )
    reviewed = read_review(path)
    kept = [c for c in candidates if reviewed.get(c.key, {}).get("keep")]
    return [Candidate(c.prompt, str(reviewed[c.key]["text"]), c.sample) for c in kept]


def read_review(path: Path) -> dict[str, Mapping[str, Any]]:
    """Lines by id. A malformed one raises DataError: what a person decided must not get lost."""
    reviewed: dict[str, Mapping[str, Any]] = {}
    for number, _, row in read_jsonl(path):
        if isinstance(row, str) or not {"id", "text", "keep"} <= row.keys():
            fault = row if isinstance(row, str) else f"has only {', '.join(row) or 'no keys'}"
            raise DataError(f"{path}, line {number}: {fault}; expected an object with id, text and keep")
        reviewed[row["id"]] = row
    return reviewed


def copy_answers(file: str | AnsweredFile, folder: Path) -> Metrics:
    """Answered questions as the set. Raises DataError if more than 1 % cannot be used."""
    answered = AnsweredFile(path=file) if isinstance(file, str) else file
    source, bad = answered.open(), list[BadRow]()
    rows = [
        {"prompt": user_turn(question), "completion": assistant_turn(completion)}
        for _, question, completion in read_answers(answered, source, bad)
    ]
    write_rows(rows, folder, "train")
    if bad:
        write_quarantine(bad, folder / "quarantine" / "train.jsonl")
    return {"method": "file", "rows": len(rows), "set_aside": len(bad), "source": source.name}


def train_cold_start(config: ColdStartSFTConfig, context: StepContext) -> Metrics:
    from stages.training.sft import train_sft

    return train_sft(context.inputs["base"], read_rows(context.inputs["data"], "train"), config, context)


STEPS = (
    Step(
        "cold_start_data",
        "cold_start",
        "dataset",
        {"base": "base_model", "prompts": "prompts"},
        ColdStartDataConfig,
        make_cold_start_data,
        choose_inputs=lambda config: {"r1_zero": "r1_zero"} if config.method == "r1_zero" else {},
    ),
    Step(
        "cold_start_sft",
        "cold_start",
        "policy",
        {"base": "base_model", "data": "cold_start_data"},
        ColdStartSFTConfig,
        train_cold_start,
    ),
)
