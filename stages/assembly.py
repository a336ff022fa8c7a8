"""From shards of judged rows to the full set: duplicates, contamination, answers per prompt, quotas, parquet.

Two passes. The first reads a few hundred bytes of numbers for each row and decides; the second copies the rows that
were chosen, in the order of the shards, so that memory holds the numbers of all rows and the texts of a few thousand.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.candidates import SET_SCHEMA, Scope, find_constant_columns
from stages.contract import DataError, StepError
from stages.near_duplicates import SLOTS, Signatures, find_near_duplicates
from stages.vocabulary import Hashes

Reason = Literal["duplicate", "near duplicate", "contaminated", "per prompt", "over quota"]
REASONS: tuple[Reason, ...] = ("duplicate", "near duplicate", "contaminated", "per prompt", "over quota")
KEPT, REJECTED = 0, len(REASONS) + 1
"""Between them a row's number of the reason in REASONS, from 1; REJECTED came with a reason of its own."""
ROWS_AT_ONCE = 2048
SHARD_BYTES = 400_000_000
"""Text in one file, before compression: a published file stays below 500 MB."""
REJECTED_SCHEMA = pa.schema([*SET_SCHEMA, ("reason", pa.string())])
NUMBERS = ("domain", "language", "source", "reason", "draw", "prompt_hash", "text", "contaminated", "bytes", "tokens")


@dataclass(frozen=True)
class SetRules:
    """How the set is put together."""

    quotas: Mapping[str, int]
    scope: Scope
    near_duplicates: float
    """Share of common 5-grams from which a later text is dropped; above 1 keeps all."""
    per_prompt: int
    rejected_per_reason: int


@dataclass(frozen=True)
class Columns:
    """Numbers of all rows, in order."""

    codes: Mapping[str, NDArray[np.int32]]
    """Of text columns, places in `names`."""
    names: Mapping[str, Sequence[str]]
    draw: Hashes
    prompt_hash: Hashes
    text: Hashes
    bytes: NDArray[np.int64]
    tokens: NDArray[np.int32]
    """-1 where a row was not sampled."""
    signatures: Signatures
    decision: NDArray[np.uint8]

    def match(self, column: str, value: str) -> NDArray[np.bool_]:
        names = self.names[column]
        found: NDArray[np.bool_] = self.codes[column] == (names.index(value) if value in names else -1)
        return found

    def tell_reason(self, row: int) -> str:
        """Why a row was rejected."""
        decision = int(self.decision[row])
        return self.names["reason"][self.codes["reason"][row]] if decision == REJECTED else REASONS[decision - 1]

    def kept(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.decision == KEPT)

    def rejected(self, reason: Reason) -> NDArray[np.intp]:
        return np.flatnonzero(self.decision == REASONS.index(reason) + 1)

    def reject(self, rows: NDArray[np.intp], reason: Reason) -> None:
        self.decision[rows] = REASONS.index(reason) + 1


def read_columns(paths: Sequence[Path]) -> Columns:
    """The first pass. Raises DataError if there are no rows at all."""
    total = sum(pq.read_metadata(path).num_rows for path in paths)
    if not total:
        raise DataError("no answer was accepted and no supervised row given, so the set would be empty")
    coded = ("domain", "language", "source", "reason", "contaminated")
    codes = {name: np.zeros(total, np.int32) for name in coded}
    names: dict[str, dict[str, int]] = {name: {} for name in coded}
    hashes = {name: np.zeros(total, np.uint64) for name in ("draw", "prompt_hash", "text")}
    sizes, tokens = np.zeros(total, np.int64), np.zeros(total, np.int32)
    signatures = np.zeros((total, SLOTS), np.uint8)
    start = 0
    for path in paths:
        # `read_table` would load 65 MB of Arrow's modules for remote data sets.
        with pq.ParquetFile(path) as file:
            table = file.read([*NUMBERS, "signature"], use_threads=False).combine_chunks()
        rows = slice(start, start + table.num_rows)
        for name in coded:
            codes[name][rows] = encode(table[name], names[name])
        for name, values in hashes.items():
            values[rows] = table[name].to_numpy()
        sizes[rows] = table["bytes"].to_numpy()
        tokens[rows] = table["tokens"].fill_null(-1).to_numpy()
        signatures[rows] = read_signatures(table["signature"])
        start = rows.stop
    known = {name: list(values) for name, values in names.items()}
    columns = Columns(
        codes, known, **hashes, bytes=sizes, tokens=tokens, signatures=signatures, decision=np.zeros(total, np.uint8)
    )
    columns.decision[~columns.match("reason", "")] = REJECTED
    return columns


def encode(column: pa.ChunkedArray, places: dict[str, int]) -> NDArray[np.int32]:
    """Numbers of the column's texts; `places` learns those it has not met."""
    coded = column.combine_chunks().dictionary_encode()
    own = [places.setdefault(text, len(places)) for text in coded.dictionary.to_pylist()]
    numbers: NDArray[np.int32] = np.array(own, np.int32)[coded.indices.to_numpy()]
    return numbers


def read_signatures(column: pa.ChunkedArray) -> Signatures:
    parts = [np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, SLOTS) for chunk in column.chunks if len(chunk)]
    return np.concatenate([np.empty((0, SLOTS), np.uint8), *parts])


def choose_rows(columns: Columns, rules: SetRules) -> None:
    """Writes into `columns.decision` why a row is not in the set; reasons in the order of REASONS."""
    groups = columns.prompt_hash if rules.scope == "prompt" else np.zeros_like(columns.prompt_hash)
    kept = columns.kept()
    columns.reject(kept[find_repeats(columns.text[kept])], "duplicate")
    if rules.near_duplicates <= 1:
        kept = columns.kept()
        close = find_near_duplicates(columns.signatures, groups, kept, rules.near_duplicates)
        columns.reject(close, "near duplicate")
    kept = columns.kept()
    columns.reject(kept[~columns.match("contaminated", "")[kept]], "contaminated")
    kept = columns.kept()
    ranks = rank_answers(columns.prompt_hash[kept])
    columns.reject(kept[ranks >= rules.per_prompt], "per prompt")
    for domain, quota in rules.quotas.items():
        fitting = (columns.decision[kept] == KEPT) & columns.match("domain", domain)[kept]
        rows, own = kept[fitting], ranks[fitting]
        columns.reject(rows[np.lexsort((columns.draw[rows], own))[quota:]], "over quota")


def find_repeats(values: Hashes) -> NDArray[np.intp]:
    """Places of values that stand further up already."""
    _, first = np.unique(values, return_index=True)
    repeated = np.ones(len(values), np.bool_)
    repeated[first] = False
    return np.flatnonzero(repeated)


def rank_answers(prompts: Hashes) -> NDArray[np.intp]:
    """How many rows of the same prompt stand before each.

    Samples of a prompt are exchangeable, so the first are as good a choice as a draw and favour no length or style.
    """
    order = np.argsort(prompts, kind="stable")
    ordered = prompts[order]
    places = np.arange(len(prompts))
    begins = np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(prompts)]
    ranks = np.empty(len(prompts), np.intp)
    ranks[order] = places - np.maximum.accumulate(np.where(begins, places, 0))
    return ranks


def choose_rejected(columns: Columns, most: int) -> NDArray[np.intp]:
    """Rejected rows that are shown: of each reason those first in the draw."""
    shown: list[NDArray[np.intp]] = [np.empty(0, np.intp)]
    came = [np.flatnonzero(columns.match("reason", reason)) for reason in columns.names["reason"] if reason]
    for rows in (*came, *map(columns.rejected, REASONS)):
        shown.append(rows[np.argsort(columns.draw[rows], kind="stable")[:most]])
    return np.sort(np.concatenate(shown))


def write_set(paths: Sequence[Path], columns: Columns, rules: SetRules, output_dir: Path) -> None:
    """The second pass: the set in `data/`, rejected rows in `rejected/` with their reasons.

    Raises StepError where the disk does not take it.
    """
    kept = columns.kept()
    parts = (np.cumsum(columns.bytes[kept]) - 1) // SHARD_BYTES
    shown = choose_rejected(columns, rules.rejected_per_reason)
    try:
        with ExitStack() as stack:
            chosen = Writer(stack, output_dir / "data", "train", SET_SCHEMA, int(parts[-1]) + 1)
            rejected = Writer(stack, output_dir / "rejected", "rejected", REJECTED_SCHEMA, 1)
            for start, batch in read_batches(paths):
                own = find_own(kept, start, batch)
                for part in np.unique(parts[own]).tolist():
                    chosen.write(batch.take(kept[own][parts[own] == part] - start), part)
                lost = shown[find_own(shown, start, batch)]
                rejected.write(name_reasons(batch.take(lost - start), [columns.tell_reason(row) for row in lost]))
    except OSError as error:
        raise StepError(
            f"the set could not be written to {output_dir}: {error.strerror or error}; "
            "the samples are kept: make room and run again"
        ) from error


class Writer:
    """The parquet files of one split; those that get no row are not made."""

    def __init__(self, stack: ExitStack, folder: Path, split: str, schema: pa.Schema, parts: int) -> None:
        self.stack, self.folder, self.split, self.schema, self.parts = stack, folder, split, schema, parts
        self.open: dict[int, pq.ParquetWriter] = {}

    def write(self, rows: pa.RecordBatch, part: int = 0) -> None:
        if not rows.num_rows:
            return
        if part not in self.open:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{self.split}-{part:05d}-of-{self.parts:05d}.parquet"
            dictionaries = find_constant_columns(self.schema)
            writer = pq.ParquetWriter(path, self.schema, compression="zstd", use_dictionary=dictionaries)
            self.open[part] = self.stack.enter_context(writer)
        self.open[part].write_batch(rows.select(self.schema.names))


def read_batches(paths: Sequence[Path]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of the first row, rows), over all files."""
    start = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=REJECTED_SCHEMA.names, use_threads=False):
                yield start, batch
                start += batch.num_rows


def find_own(rows: NDArray[np.intp], start: int, batch: pa.RecordBatch) -> slice:
    """Where those of the sorted `rows` stand that are in a batch which begins with row `start`."""
    first, last = np.searchsorted(rows, (start, start + batch.num_rows))
    return slice(int(first), int(last))


def name_reasons(rows: pa.RecordBatch, reasons: Sequence[str]) -> pa.RecordBatch:
    place = rows.schema.get_field_index("reason")
    return rows.set_column(place, "reason", pa.array(reasons, pa.string()))


def count_values(columns: Columns, column: str, rows: NDArray[np.intp]) -> dict[str, int]:
    """How many of the rows have each value, most first."""
    counts = np.bincount(columns.codes[column][rows], minlength=len(columns.names[column]))
    pairs = zip(columns.names[column], counts.tolist(), strict=True)
    return dict(sorted(((name, count) for name, count in pairs if count), key=lambda pair: (-pair[1], pair[0])))


def describe_tokens(columns: Columns, rows: NDArray[np.intp]) -> dict[str, dict[str, float]]:
    """Lengths of sampled answers by domain, in tokens."""
    described: dict[str, dict[str, float]] = {}
    for domain in count_values(columns, "domain", rows):
        tokens = columns.tokens[rows[columns.match("domain", domain)[rows]]]
        tokens = tokens[tokens >= 0]
        if len(tokens):
            middle, high = np.quantile(tokens, (0.5, 0.95)).tolist()
            described[domain] = {"average": float(tokens.mean()), "median": middle, "p95": high}
    return described
