"""Answered questions that somebody else wrote, as rows of the full set or of the cold start.

A row that cannot be used is set aside with the reason, as in `stages/problem_files.py`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from stages.filters import Candidate
from stages.hub_rows import HubRows
from stages.problem_files import BadRow, RowSource, check_share, read_lines, write_quarantine
from stages.rows import THINK_OPEN, Prompt, Reasoning, join_completion

Answered = tuple[str, str, str]
"""(what tells it from the others, question, completion)."""


class AnsweredFile(RowSource):
    """Answered questions of a file or a dataset on the Hub."""

    columns: dict[str, str | int] = Field(default={"question": "question", "completion": "completion"})
    """Which column holds `question`, `completion` and, if there are such, `thoughts` and `id`; numbers for a TSV. A
    completion that does not begin with a think block gets one, with the thoughts or empty."""

    @model_validator(mode="after")
    def check_columns(self) -> "AnsweredFile":
        if not {"question"} <= self.columns.keys() <= {"question", "completion", "thoughts", "id"}:
            raise ValueError(
                f"columns are given for {sorted(self.columns)}; expected question, completion and maybe thoughts and id"
            )
        return self

    @property
    def is_answered(self) -> bool:
        return "completion" in self.columns


class SupervisedFile(AnsweredFile):
    """Questions for the full set; without a column for the completion it is the teacher that answers them."""

    domain: str
    """Domain whose quota it fills; one of `general_shares`."""
    language: str = "en"
    """ISO 639-1 code of the questions."""
    reasoning: Reasoning = "required"
    """Whether the teacher is to think before it answers."""
    licence: str = "unknown"
    """Licence of the rows, for the card."""


def read_file(file: SupervisedFile, source: Path | HubRows, output_dir: Path) -> Iterator[Candidate]:
    """Rows that can be used, in order; the others go to `quarantine/`, if they are not too many."""
    bad: list[BadRow] = []
    for key, question, text in read_answers(file, source, bad):
        id = f"{file.domain}-train-{file.stem}-{key}"
        yield Candidate(Prompt(id, file.domain, file.language, question, "", file.reasoning, "helpful"), text, 0)
    if bad:
        write_quarantine(bad, output_dir / "quarantine" / f"{file.stem}.jsonl")


def read_answers(file: AnsweredFile, path: Path | HubRows, bad: list[BadRow]) -> Iterator[Answered]:
    """Rows of `path`, which `file` has opened; an empty completion where there are questions alone.

    Raises DataError if more than 1 % cannot be used.
    """
    names = {role: str(column) for role, column in file.columns.items()}
    ids: set[str] = set()
    for line, raw, row in read_lines(path):
        reason = row if isinstance(row, str) else find_fault(row, names)
        key = "" if reason or isinstance(row, str) else str(row[names["id"]] if "id" in names else line)
        if reason or isinstance(row, str) or key in ids:
            bad.append(BadRow(line, reason or f"has the id '{key}' of an earlier row", raw[:2000]))
            continue
        ids.add(key)
        yield key, row[names["question"]].strip(), write_completion(row, names)
    check_share(path, len(ids), bad)


def find_fault(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Why a row cannot be used; empty if it can."""
    for role, name in names.items():
        if name not in row:
            return f"has no column '{name}'; it has: {', '.join(row) or 'none'}"
        value = row[name]
        if role == "id":
            continue
        if not isinstance(value, str) or (role != "thoughts" and not value.strip()):
            return f"column '{name}' is {type(value).__name__} {value!r:.60}; expected text"
        if not value.isascii() and value.encode("utf-8", "replace").decode() != value:
            return f"column '{name}' holds half of a surrogate pair, which is no text"
    return ""


def write_completion(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    text = str(row[names["completion"]]).strip() if "completion" in names else ""
    if not text or text.startswith(THINK_OPEN):
        return text
    return join_completion(row[names["thoughts"]].strip() if "thoughts" in names else "", text)
