"""Answered questions that somebody else wrote, as rows of the full set or of the cold start.

A row that cannot be used is set aside with the reason, as in `stages/problem_files.py`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.contract import DataError
from stages.filters import Candidate
from stages.hub_rows import HubRows
from stages.problem_files import BadRow, RowSource, check_share, read_lines
from stages.rows import THINK_OPEN, Prompt, join_completion

Answered = tuple[str, str, str]
"""(what tells it from the others, question, completion)."""


class AnsweredFile(RowSource):
    """Answered questions of a file or a dataset on the Hub."""

    columns: dict[str, str | int] = Field(default={"question": "question", "completion": "completion"})
    """Which column holds `question`, `completion` and, if there are such, `thoughts` and `id`; numbers for a TSV. A
    completion that does not begin with a think block gets one, with the thoughts or empty."""


class SupervisedFile(AnsweredFile):
    """Answered questions for the full set."""

    domain: str
    """Domain whose quota it fills; one of `general_shares`."""
    language: str = "en"
    """ISO 639-1 code of the questions."""
    licence: str = "unknown"
    """Licence of the rows, for the card."""


def read_file(file: SupervisedFile, source: Path | HubRows, bad: list[BadRow]) -> Iterator[Candidate]:
    """Rows that can be used, in order; the others go to `bad`."""
    for key, question, text in read_answers(file, source, bad):
        id = f"{file.domain}-train-{file.stem}-{key}"
        yield Candidate(Prompt(id, file.domain, file.language, question, "", reward="helpful"), text, 0)


def read_answers(file: AnsweredFile, path: Path | HubRows, bad: list[BadRow]) -> Iterator[Answered]:
    """Rows of `path`, which `file` has opened. Raises DataError if more than 1 % cannot be used."""
    names = {role: str(column) for role, column in file.columns.items()}
    if not {"question", "completion"} <= names.keys() <= {"question", "completion", "thoughts", "id"}:
        expected = "question, completion and maybe thoughts and id"
        raise DataError(f"columns of {path} are given for {sorted(names)}; expected {expected}")
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
    text = str(row[names["completion"]]).strip()
    if text.startswith(THINK_OPEN):
        return text
    return join_completion(row[names["thoughts"]].strip() if "thoughts" in names else "", text)
