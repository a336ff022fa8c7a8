"""Rows that travel between steps, with TRL's column names.

A prompt row is conversational (`prompt`) plus the columns its domain grades it by. A dataset
artifact is `data/<split>-00000-of-0000N.parquet`, in a fixed row order.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stages.contract import DataError

Split = Literal["train", "dev", "test"]
Reasoning = Literal["required", "none"]
RewardSource = Literal["rule", "helpful", "safety"]
Row = dict[str, Any]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
# Parts of a pretraining document. No space after a colon: it belongs to the token of the word that follows.
QUESTION, THOUGHTS, ANSWER = "Question: ", "\nThoughts:", "\nAnswer: "
TAGGED = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
"""Greedy, so that a tag said twice stays inside and fails there."""


@dataclass(frozen=True)
class Prompt:
    """One question with everything its domain needs to grade an answer."""

    id: str
    """Unique within the dataset and stable over seeds of other domains: `<domain>-<split>-<n>`."""
    domain: str
    """File name in `stages/domains`, without `.py`."""
    language: str
    """ISO 639-1 code of the question, and so of the expected thoughts."""
    question: str
    answer: str
    """Gold answer as the domain's `verify` reads it."""
    reasoning: Reasoning = "required"
    """`none`: an empty think block is expected (greetings, small talk)."""
    reward: RewardSource = "rule"
    """What rewards it in stage 4: its rule, or the one reward model its prompt set names."""
    checks: str = "{}"
    """JSON object with what else `verify` needs: tests of a program, options, the operation count."""
    demonstration: str = ""
    """A full gold completion, think block included; empty where the source has none."""

    def to_row(self) -> Row:
        row = asdict(self)
        question = row.pop("question")
        return {"id": row.pop("id"), "prompt": user_turn(question), **row}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Prompt":
        """Reads a dataset row; columns that are not a prompt's are ignored."""
        names = [name for name in cls.__dataclass_fields__ if name != "question"]
        return cls(question=row["prompt"][-1]["content"], **{name: row[name] for name in names})


def user_turn(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def assistant_turn(completion: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": completion}]


def completion_text(completion: str | Sequence[Mapping[str, str]]) -> str:
    """Text of a completion in either of TRL's forms, plain or conversational."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def join_completion(thoughts: str, summary: str) -> str:
    """A completion as the policy writes it; empty thoughts give an empty think block.

    A space follows each tag, because it belongs to the token of the word after it.
    """
    return f"{THINK_OPEN}{' ' if thoughts else ''}{thoughts}{THINK_CLOSE}{' ' if summary else ''}{summary}"


def split_completion(text: str) -> tuple[str, str]:
    """(thoughts, summary). Without a closing tag all of it is thoughts: nothing was concluded."""
    head, closed, summary = text.rpartition(THINK_CLOSE)
    thoughts = head if closed else text
    return thoughts.removeprefix(THINK_OPEN).strip(), summary.strip() if closed else ""


def find_prefill(rendered: str) -> str:
    """What a chat template has written of the completion itself: a think tag at the end of a rendered prompt."""
    text = rendered.rstrip()
    return rendered[len(text) - len(THINK_OPEN) :] if text.endswith(THINK_OPEN) else ""


def read_completion(rendered: str, text: str) -> str:
    """The completion as `join_completion` writes one, whatever the rendered prompt asked for.

    R1-Zero's template asks for <answer> tags; a completion without them concludes nothing. A base model's document
    has headings instead of tags.
    """
    if rendered.endswith(THOUGHTS):
        thoughts, found, answer = text.partition(ANSWER)
        return join_completion(thoughts.strip(), answer.strip()) if found else text
    if "<answer>" in rendered:
        tagged = TAGGED.fullmatch(find_prefill(rendered) + text)
        return join_completion(tagged[1].strip(), tagged[2].strip()) if tagged else text.replace(THINK_CLOSE, "")
    return find_prefill(rendered) + text


def write_rows(rows: Sequence[Row], folder: Path, split: str, rows_per_shard: int = 50_000) -> None:
    """Writes `data/<split>-*.parquet` (zstd) below `folder`, in the order given.

    Raises DataError for no rows, and for rows whose columns differ: Arrow would drop a late one silently.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not rows:
        raise DataError(f"split '{split}' of {folder.name} would be empty; expected at least one row")
    if any(row.keys() != rows[0].keys() for row in rows):
        raise DataError(f"rows of split '{split}' of {folder.name} have different columns; expected the same in all")
    target = folder / "data"
    target.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    starts = range(0, len(rows), rows_per_shard)
    for number, start in enumerate(starts):
        path = target / f"{split}-{number:05d}-of-{len(starts):05d}.parquet"
        pq.write_table(table.slice(start, rows_per_shard), path, compression="zstd")


def read_rows(folder: Path, split: str) -> list[Row]:
    """All rows of one split of a dataset artifact, in order. Raises DataError if it has none."""
    return list(iterate_rows(folder, split))


def iterate_rows(folder: Path, split: str) -> Iterator[Row]:
    import pyarrow.parquet as pq

    shards = sorted((folder / "data").glob(f"{split}-*.parquet"))
    if not shards:
        raise DataError(f"{folder} has no split '{split}'; expected data/{split}-*.parquet in it")
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()


def has_split(folder: Path, split: Split) -> bool:
    return any((folder / "data").glob(f"{split}-*.parquet"))


def read_prompts(folder: Path, split: Split) -> list[Prompt]:
    return [Prompt.from_row(row) for row in iterate_rows(folder, split)]


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def group_rows(rows: Iterable[Row], column: str) -> dict[Any, list[Row]]:
    """Rows by the value of `column`, groups in order of first appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups
