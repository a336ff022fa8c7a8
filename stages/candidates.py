"""Rows on their way into the full set: what they hold, and what is measured of each text once and for all.

A shard of them is a parquet file. Its first columns are those of the finished set; the others are what duplicates,
contamination and quotas are decided by, so that assembling never reads a text before it copies it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.decontamination import HeldOut
from stages.filters import Candidate
from stages.judging import Verdict
from stages.near_duplicates import SLOTS, sign_texts
from stages.ngrams import hash_text, hash_words
from stages.rows import Row
from stages.vocabulary import Hashes

Scope = Literal["prompt", "global"]

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SET_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("id", pa.string()),
        ("domain", pa.string()),
        ("language", pa.string()),
        ("source", pa.string()),
        ("prompt_source", pa.string()),
        ("prompt_id", pa.string()),
        ("policy", pa.string()),
        ("engine", pa.string()),
        ("sampler", pa.string()),
        ("seed", pa.int64()),
        ("tokens", pa.int32()),
        ("solve_rate", pa.float64()),
        ("rewards", pa.struct([("accuracy", pa.float64()), ("think_format", pa.float64())])),
        ("judge", pa.string()),
    ]
)
"""Columns of the finished set. `source` is what the answer comes from, `prompt_source` the question; `solve_rate` is
the share of the prompt's samples that are right; null where a row was not sampled or not judged."""
MEASURED = pa.schema(
    [
        ("reason", pa.string()),
        ("draw", pa.uint64()),
        ("prompt_hash", pa.uint64()),
        ("text", pa.uint64()),
        ("signature", pa.binary(SLOTS)),
        ("contaminated", pa.string()),
        ("bytes", pa.int32()),
    ]
)
"""`reason`: why it is rejected already, empty if it is not. `draw`: its place in any draw. `text` and `signature`: what
equal and close rows share. `contaminated`: the evaluation set it was found in. `bytes`: of question and answer."""
SHARD_SCHEMA = pa.schema([*SET_SCHEMA, *MEASURED])
NOT_SIGNED = bytes(SLOTS)


@dataclass(frozen=True)
class Origin:
    """What all rows of one source have in common."""

    source: str
    prompt_sources: Mapping[str, str]
    """Where the prompts of a domain come from."""
    policy: str = ""
    """Content digest of the policy that answered."""
    engine: str = ""
    sampler: str = ""
    """Its settings, as JSON."""
    seed: int | None = None
    """Of the run; a shard's seed follows from it."""


@dataclass(frozen=True)
class Measure:
    """What is decided once for all rows: what they are compared with, and within what."""

    held_out: HeldOut
    scope: Scope
    seed: int

    def measure(self, candidates: Sequence[Candidate], accepted: Sequence[bool]) -> list[Row]:
        """The MEASURED columns but `reason`. Texts that are rejected already are not compared with anything."""
        rows = [self._place(candidate) for candidate in candidates]
        asked: dict[str, tuple[Hashes, str]] = {}
        texts: list[Hashes] = []
        compared = [number for number, is_accepted in enumerate(accepted) if is_accepted]
        for number in compared:
            candidate = candidates[number]
            if candidate.prompt.id not in asked:
                question = hash_words(candidate.prompt.question)
                asked[candidate.prompt.id] = question, self.held_out.find(question)
            (question, found), words = asked[candidate.prompt.id], candidate.words
            rows[number]["contaminated"] = found or self.held_out.find(words)
            rows[number]["text"] = hash_text(f"{candidate.prompt.question}\0{candidate.text}")
            # Answers to one prompt share its words; elsewhere short answers are told apart by their questions.
            texts.append(words if self.scope == "prompt" else np.concatenate((question, words)))
        for number, signature in zip(compared, sign_texts(texts), strict=True):
            rows[number]["signature"] = signature.tobytes()
        return rows

    def _place(self, candidate: Candidate) -> Row:
        """What is known of a row without comparing it."""
        return {
            "draw": hash_text(f"{self.seed}/{candidate.key}"),
            "prompt_hash": hash_text(candidate.prompt.id),
            "bytes": len(candidate.text.encode()) + len(candidate.prompt.question.encode()),
            "text": 0,
            "contaminated": "",
            "signature": NOT_SIGNED,
        }


def make_table(
    candidates: Sequence[Candidate],
    verdicts: Sequence[Verdict],
    solve_rates: Mapping[str, float],
    origin: Origin,
    measure: Measure,
) -> pa.Table:
    """Rows in SHARD_SCHEMA, in the order given."""
    measured = measure.measure(candidates, [not verdict.reason for verdict in verdicts])
    rows = [
        {
            **candidate.to_row(origin.source),
            "prompt_source": origin.prompt_sources.get(candidate.prompt.domain, ""),
            "prompt_id": candidate.prompt.id,
            "policy": origin.policy,
            "engine": origin.engine,
            "sampler": origin.sampler,
            "seed": origin.seed,
            "tokens": candidate.tokens if origin.engine else None,
            "solve_rate": solve_rates.get(candidate.prompt.id) if verdict.judge else None,
            "rewards": describe_rewards(verdict),
            "judge": verdict.judge,
            "reason": verdict.reason,
            **numbers,
        }
        for candidate, verdict, numbers in zip(candidates, verdicts, measured, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SHARD_SCHEMA)


def describe_rewards(verdict: Verdict) -> dict[str, float | None]:
    """A row that was judged could be read."""
    return {"accuracy": verdict.accuracy, "think_format": 1.0 if verdict.judge else None}


def write_table(table: pa.Table, path: Path | pa.NativeFile, **notes: str) -> None:
    """`notes` go into the file's metadata."""
    noted = table.replace_schema_metadata(notes)
    pq.write_table(noted, path, compression="zstd", use_dictionary=find_constant_columns(table.schema))


def find_constant_columns(schema: pa.Schema) -> list[str]:
    """Columns with few different values; a dictionary of texts or hashes would only cost time."""
    varied = {"prompt", "completion", "id", "prompt_id", "draw", "prompt_hash", "text", "signature"}
    return [name for name in schema.names if name not in varied]


def read_notes(path: Path) -> dict[str, Any]:
    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}
