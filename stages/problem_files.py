"""Reads problems that somebody else wrote: JSONL, TSV without a header, parquet, datasets of the Hugging Face Hub.

A row that cannot be used is set aside with its line number and the reason, and the rest is
used; more than 1 % of such rows means the file or the mapping is wrong, and nothing is.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.contract import DataError
from stages.hub_rows import HubRows, open_dataset
from stages.math_answers import AnswerFormat, parse_answer
from stages.rows import Prompt, Split

MAX_BAD_SHARE = 0.01

Line = tuple[int, str, Mapping[str, Any] | str]
"""(line number, text, row); where a row cannot be read, the reason why stands in its place."""


class RowSource(BaseModel):
    """Where rows are that somebody else wrote: in a file, or in a dataset on the Hugging Face Hub."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str = ""
    """JSONL, TSV without a header or parquet, relative to the working directory."""
    hub: str = Field(default="", pattern=r"^([\w.-]+/[\w.-]+)?$")
    """Instead of `path`: id of a dataset on the Hub, as `openai/gsm8k`. It is copied to the cache of `datasets`."""
    config: str = ""
    """Configuration of the dataset; empty = its default."""
    split: str = "train"
    """Split of the dataset."""
    revision: str = Field(default="", pattern=r"^([0-9a-f]{40})?$")
    """Commit of the dataset; empty = the newest, or without network that in the cache. The record names it."""

    @model_validator(mode="after")
    def check_source(self) -> "RowSource":
        if bool(self.path) == bool(self.hub):
            raise ValueError(f"path is '{self.path}' and hub '{self.hub}'; expected one of the two")
        return self

    @property
    def stem(self) -> str:
        """What ids of its rows begin with."""
        parts = (self.hub.rpartition("/")[2], self.config, self.split)
        return "-".join(filter(None, parts)) if self.hub else Path(self.path).stem

    def open(self) -> Path | HubRows:
        """Raises DataError for a dataset that cannot be read, StepError without network."""
        if not self.hub:
            return Path(self.path)
        return open_dataset(self.hub, self.config, self.split, self.revision, self.stem)


@dataclass(frozen=True)
class BadRow:
    """A row that was set aside."""

    line: int
    """Line of the file, from 1; in parquet and datasets the row, from 1."""
    reason: str
    content: str
    """The row as it stood, cut to 2,000 characters."""


def read_problems(
    path: Path | HubRows,
    columns: Mapping[str, str | int],
    answer_format: AnswerFormat,
    *,
    domain: str = "math",
    language: str = "en",
    split: Split = "test",
) -> tuple[list[Prompt], list[BadRow]]:
    """Problems of a file, in its order, and the rows that could not be used.

    `columns` says which column holds `question`, `answer` and, if there is one, `id`; in a TSV file
    a column's name is its number, from 0. Raises DataError if one of the first two is not said,
    if the file is missing, empty or of an unknown kind, or if more than 1 % of its rows are bad.
    """
    if not {"question", "answer"} <= columns.keys() <= {"question", "answer", "id"}:
        raise DataError(f"columns of {path} are given for {sorted(columns)}; expected question, answer and maybe id")
    names = {role: str(column) for role, column in columns.items()}
    prompts: list[Prompt] = []
    bad: list[BadRow] = []
    for line, raw, row in read_lines(path):
        reason = row if isinstance(row, str) else find_fault(row, names, answer_format)
        if reason or isinstance(row, str):
            bad.append(BadRow(line, reason, raw[:2000]))
            continue
        answer = parse_answer(row[names["answer"]], answer_format) or ""
        key = row[names["id"]] if "id" in names else line
        question = row[names["question"]].strip()
        prompts.append(Prompt(f"{domain}-{split}-{path.stem}-{key}", domain, language, question, answer))
    check_share(path, len(prompts), bad)
    return prompts, bad


def read_lines(path: Path | HubRows) -> Iterator[Line]:
    """Each line that is not blank."""
    if isinstance(path, HubRows):
        return number_rows(path.read_rows())
    readers = {".jsonl": read_jsonl, ".tsv": read_tsv, ".parquet": read_parquet}
    if path.suffix not in readers:
        raise DataError(f"{path} ends in '{path.suffix}'; expected one of: {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a file with problems")
    return readers[path.suffix](path)


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank; only a newline ends one, as U+2028 may stand inside a question."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def read_jsonl(path: Path) -> Iterator[Line]:
    for number, line in read_text_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, line, f"not JSON: {error.msg} at column {error.colno}"
        except RecursionError:
            yield number, line, "not usable: nested too deeply"
        else:
            yield number, line, row if isinstance(row, dict) else f"is {type(row).__name__}; expected an object"


def read_tsv(path: Path) -> Iterator[Line]:
    for number, line in read_text_lines(path):
        yield number, line, {str(column): cell for column, cell in enumerate(line.split("\t"))}


def read_parquet(path: Path) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file: {error}") from error
    with file:
        yield from number_rows(row for batch in file.iter_batches() for row in batch.to_pylist())


def number_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Line]:
    for number, row in enumerate(rows, 1):
        yield number, str(row), row


def find_fault(row: Mapping[str, Any], names: Mapping[str, str], answer_format: AnswerFormat) -> str:
    """Why a row cannot be used; empty if it can."""
    for name in names.values():
        if name not in row:
            return f"has no column '{name}'; it has: {', '.join(row) or 'none'}"
    for name in (names["question"], names["answer"]):
        if not isinstance(row[name], str) or not row[name].strip():
            return f"column '{name}' is {type(row[name]).__name__} {row[name]!r:.60}; expected text"
    if parse_answer(row[names["answer"]], answer_format) is None:
        return f"column '{names['answer']}' holds no answer in the format '{answer_format}'"
    return ""


def check_share(path: Path | HubRows, good: int, bad: Sequence[BadRow]) -> None:
    """Raises DataError if the file is empty or more than 1 % of it is bad."""
    rows = good + len(bad)
    if not rows:
        raise DataError(f"{path} is empty; expected at least one row")
    if len(bad) > MAX_BAD_SHARE * rows:
        first = bad[0]
        raise DataError(
            f"{path}: {len(bad)} of {rows} rows cannot be used, expected at most {MAX_BAD_SHARE:.0%}; "
            f"the first is line {first.line}: {first.reason}"
        )


def write_quarantine(bad: Sequence[BadRow], path: Path) -> None:
    """Writes the rows that were set aside as JSONL, so that they can be mended and read again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(asdict(row), ensure_ascii=False) for row in bad)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="replace")
