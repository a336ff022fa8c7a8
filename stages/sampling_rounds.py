"""Sampling and judging in shards of prompts, each published whole, so that a killed run loses the one in hand.

Prompts are ordered by a hash of their id and cut into shards of equal size. That order is also the order of the set's
rows, so the set does not depend on how it was cut. Within a shard every prompt is sampled; those without a usable
answer are sampled again, round after round, until the budget is spent.
"""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.candidates import Measure, Origin, make_table, read_notes, write_table
from stages.contract import DataError, Progress, StepContext, StepError, no_progress
from stages.engines import Completion, Engine, Sampling
from stages.executors import Load, load_executor
from stages.filters import Candidate, TextRules
from stages.judging import ModelJudge, Verdict, judge_candidates
from stages.ngrams import hash_text
from stages.rows import Prompt
from stages.shards import drop_partial, find_shard, publish_shard

SEED_BITS = 48


@dataclass(frozen=True)
class Rounds:
    """How much is sampled, and in which portions."""

    sampling: Sampling
    """Its `n` is that of one round."""
    budget: int
    """Completions of one prompt at most."""
    seed: int
    rejected_per_reason: int
    """Rejected rows of each reason that a shard keeps."""


@dataclass(frozen=True)
class Sampler:
    """Everything that turns a shard's prompts into judged rows."""

    engine: Engine
    judge: ModelJudge | None
    rules: TextRules
    rounds: Rounds
    origin: Origin
    measure: Measure

    def make_file(self, number: int, shard: pa.Table, progress: Progress = no_progress) -> bytes:
        """The parquet file of a shard: its rows, and as notes what became of each prompt and each sample."""
        prompts = [Prompt.from_row(row) for row in shard.to_pylist()]
        candidates, verdicts = self.sample_shard(prompts, number, progress)
        counts = count_outcomes(candidates, verdicts)
        chosen = choose_shown(candidates, verdicts, self.rounds)
        rates = {id: right / sampled for id, (_, right, sampled) in counts.items()}
        table = make_table(
            [candidates[n] for n in chosen], [verdicts[n] for n in chosen], rates, self.origin, self.measure
        )
        reasons = Counter(verdict.reason for verdict in verdicts)
        file = pa.BufferOutputStream()
        write_table(table, file, reasons=json.dumps(reasons), prompts=json.dumps(counts))
        return bytes(file.getvalue())

    def sample_shard(
        self, prompts: Sequence[Prompt], number: int, progress: Progress = no_progress
    ) -> tuple[list[Candidate], list[Verdict]]:
        """Candidates with what became of each, by prompt and sample."""
        found: list[tuple[Candidate, Verdict]] = []
        unsolved, done = list(prompts), 0
        while unsolved and done < self.rounds.budget:
            n = min(self.rounds.sampling.n, self.rounds.budget - done)
            candidates = self.sample_round(unsolved, n, done, number, progress)
            verdicts = self.judge_round(candidates)
            found += zip(candidates, verdicts, strict=True)
            solved = {c.prompt.id for c, verdict in zip(candidates, verdicts, strict=True) if not verdict.reason}
            unsolved = [prompt for prompt in unsolved if prompt.id not in solved]
            done += n
        place = {prompt.id: number for number, prompt in enumerate(prompts)}
        found.sort(key=lambda pair: (place[pair[0].prompt.id], pair[0].sample))
        return [candidate for candidate, _ in found], [verdict for _, verdict in found]

    def judge_round(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        return judge_candidates(candidates, self.rules, self.judge)

    def sample_round(
        self, prompts: Sequence[Prompt], n: int, done: int, number: int, progress: Progress
    ) -> list[Candidate]:
        seed = hash_text(f"{self.rounds.seed}/{number}/{done}") % 2**SEED_BITS
        sampling = self.rounds.sampling.model_copy(update={"n": n})
        groups = self.engine.sample([prompt.question for prompt in prompts], sampling, seed, progress)
        check_answers(prompts, groups, n)
        return [
            Candidate(prompt, answer.text, done + place, answer.finish_reason, answer.tokens)
            for prompt, group in zip(prompts, groups, strict=True)
            for place, answer in enumerate(group)
        ]


def sample_all(load: Load, shards: Sequence[pa.Table], folder: Path, context: StepContext) -> list[Path]:
    """A file for each shard, in order; those that an earlier run published in `folder` are taken as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    drop_partial(folder)
    names = [f"samples-{number:05d}" for number in range(len(shards))]
    paths = {number: path for number, name in enumerate(names) if (path := find_shard(folder, name))}

    def report(done: int, total: int, **metrics: float | str) -> None:
        """The step is alive, and as far as the shards that are done."""
        context.progress(len(paths), len(shards), prompts_of_shard=done)

    missing = {number: shard for number, shard in enumerate(shards) if number not in paths}
    if missing:
        executor = load_executor(context.runtime.executor)
        with closing(executor.make_shards(load, missing, context.runtime, report)) as files:
            for number, file in files:
                paths[number] = publish_shard(folder, names[number], partial(Path.write_bytes, data=file))
                context.progress(len(paths), len(shards))
    return [paths[number] for number in range(len(shards))]


def read_prompt_table(folder: Path, split: str) -> pa.Table:
    """The prompts of a split, compact. Raises DataError if there are none, or two with one id."""
    shards = sorted((folder / "data").glob(f"{split}-*.parquet"))
    if not shards:
        raise DataError(f"{folder} has no split '{split}'; expected data/{split}-*.parquet in it")
    table = pa.concat_tables([pq.ParquetFile(shard).read() for shard in shards])
    if pc.count_distinct(table["id"]).as_py() < table.num_rows:
        counts = pc.value_counts(table["id"]).to_pylist()
        twice = [entry["values"] for entry in counts if entry["counts"] > 1]
        raise DataError(
            f"split '{split}' of {folder} has {len(twice)} ids more than once, as '{twice[0]}'; "
            "expected each once: give the rows of its source ids of their own"
        )
    return table


def cut_shards(prompts: pa.Table, size: int) -> list[pa.Table]:
    """Prompts in the order of the hash of their id, `size` to a shard."""
    order = np.argsort(np.array([hash_text(id) for id in prompts["id"].to_pylist()], np.uint64), kind="stable")
    return [prompts.take(order[start : start + size]) for start in range(0, len(order), size)]


def check_answers(prompts: Sequence[Prompt], groups: Sequence[Sequence[Completion]], n: int) -> None:
    """Raises StepError if the engine did not answer all it was asked."""
    if len(groups) != len(prompts):
        raise StepError(f"the engine answered {len(groups)} of {len(prompts)} prompts; expected all: run again")
    for prompt, group in zip(prompts, groups, strict=True):
        if len(group) != n:
            raise StepError(
                f"the engine gave {len(group)} completions for prompt '{prompt.id}', expected {n}; "
                "the shards before it are kept: mend the engine and run again"
            )


def count_outcomes(candidates: Sequence[Candidate], verdicts: Sequence[Verdict]) -> dict[str, tuple[str, int, int]]:
    """(domain, right completions, all completions) of each prompt."""
    counts: dict[str, tuple[str, int, int]] = {}
    for candidate, verdict in zip(candidates, verdicts, strict=True):
        prompt = candidate.prompt
        _, right, sampled = counts.get(prompt.id, (prompt.domain, 0, 0))
        counts[prompt.id] = (prompt.domain, right + (verdict.accuracy == 1.0), sampled + 1)
    return counts


def choose_shown(candidates: Sequence[Candidate], verdicts: Sequence[Verdict], rounds: Rounds) -> list[int]:
    """All that were not rejected, and of each reason as many as are shown; drawn by hash, like those of the set."""
    chosen = {number for number, verdict in enumerate(verdicts) if not verdict.reason}
    for reason in {verdict.reason for verdict in verdicts} - {""}:
        rejected = [number for number, verdict in enumerate(verdicts) if verdict.reason == reason]
        rejected.sort(key=lambda number: hash_text(f"{rounds.seed}/{candidates[number].key}"))
        chosen |= set(rejected[: rounds.rejected_per_reason])
    return sorted(chosen)


def select_domains(prompts: pa.Table, domains: Sequence[str]) -> pa.Table:
    return prompts.filter(pc.is_in(prompts["domain"], pa.array(domains, pa.string())))


def count_reasons(paths: Sequence[Path]) -> Counter[str]:
    """Sampled rows by the reason they were rejected for; those that were not have an empty one."""
    counts = Counter[str]()
    for path in paths:
        counts.update(json.loads(read_notes(path)["reasons"]))
    return counts


def read_outcomes(path: Path) -> dict[str, tuple[str, int, int]]:
    """(domain, right completions, all completions) of each prompt of a shard."""
    return dict(json.loads(read_notes(path)["prompts"]))


def count_outcomes_by_domain(paths: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """(prompts asked, prompts solved) of each domain."""
    asked, solved = Counter[str](), Counter[str]()
    for path in paths:
        for domain, right, _ in read_outcomes(path).values():
            asked[domain] += 1
            solved[domain] += right > 0
    return {domain: (count, solved[domain]) for domain, count in sorted(asked.items())}


def write_solve_rates(paths: Sequence[Path], folder: Path) -> None:
    """`solve_rates.parquet`: how many completions of each prompt are right, for every prompt that was asked."""
    schema = pa.schema([("id", pa.string()), ("domain", pa.string()), ("right", pa.int32()), ("sampled", pa.int32())])
    with pq.ParquetWriter(folder / "solve_rates.parquet", schema, compression="zstd") as writer:
        for path in paths:
            rows = [(id, *outcome) for id, outcome in read_outcomes(path).items()]
            writer.write_table(pa.table(list(zip(*rows, strict=True)), schema=schema))
