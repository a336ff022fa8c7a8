"""Datasets of the Hub in place of files: what is read, what is written down, what is said where it cannot be."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from pydantic import ValidationError

from stages.contract import DataError, StepContext
from stages.hub_rows import HubRows
from stages.problem_files import RowSource
from stages.prompts import DomainConfig, ProblemFile, PromptsConfig, make_prompts
from stages.rejection_sampling import EvaluationFile, read_evaluation
from stages.rows import Row, read_prompts, read_rows
from stages.supervised_files import SupervisedFile
from tests.loopback_hub import COMMIT, serve_hub
from tests.sampled_set import RoundsEngine, run_set, write_prompts
from tests.test_supervised import use_files

ROOT = Path(__file__).resolve().parent.parent
ROWS: list[Row] = [{"question": f"{n} + 1?", "answer": f"so\n#### {n + 1}"} for n in range(3)]
CARD = b"""---
configs:
- config_name: main
  default: true
  data_files: [{split: train, path: main/train.jsonl}, {split: test, path: main/test.jsonl}]
- config_name: short
  data_files: [{split: train, path: main/test.jsonl}]
---
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    train, test = ("".join(json.dumps(row) + "\n" for row in rows).encode() for rows in (ROWS, ROWS[:1]))
    sums = {"README.md": CARD, "main/train.jsonl": train, "main/test.jsonl": test}
    with serve_hub({"lab/sums": sums, "lab/code": {"README.md": b"", "code.py": b"print('hello')"}}) as url:
        yield url


def open_sources(home: Path, *sources: dict[str, str], **environment: str) -> list[dict[str, Any]]:
    """What a process that sees the Hub through `environment` alone makes of the sources."""
    command = [sys.executable, "-m", "tests.loopback_hub", *map(json.dumps, sources)]
    seen = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    run = subprocess.run(
        command, cwd=ROOT, env={**seen, "HF_HOME": str(home), **environment}, stdout=subprocess.PIPE, check=True
    )
    return list(json.loads(run.stdout))


def test_a_dataset_is_read_at_the_commit_that_it_names_and_then_without_network(hub: str, tmp_path: Path) -> None:
    newest, short = {"hub": "lab/sums"}, {"hub": "lab/sums", "config": "short", "revision": COMMIT}
    expected = {"name": f"lab/sums@{COMMIT}", "stem": "sums-train", "rows": ROWS}
    other = {"name": f"lab/sums@{COMMIT}", "stem": "sums-short-train", "rows": ROWS[:1]}
    assert open_sources(tmp_path, newest, short, HF_ENDPOINT=hub) == [expected, other]
    absent = {**short, "revision": "f" * 40}
    *found, refused = open_sources(tmp_path, {**newest, "config": "main"}, short, absent, HF_HUB_OFFLINE="1")
    assert found == [{**expected, "stem": "sums-main-train"}, other]
    assert (
        refused["error"] == "StepError" and f"the cache has commit {COMMIT}, expected {'f' * 40}" in refused["message"]
    )


def test_what_the_hub_does_not_have_is_named(hub: str, tmp_path: Path) -> None:
    wrong = [{"hub": "lab/none"}, {"split": "dev"}, {"config": "long"}, {"revision": "f" * 40}, {"hub": "lab/code"}]
    said = open_sources(tmp_path, *({"hub": "lab/sums", **fields} for fields in wrong), HF_ENDPOINT=hub)
    assert {answer["error"] for answer in said} == {"DataError"}
    expected = (
        "'lab/none' doesn't exist on the Hub or cannot be accessed",
        "lab/sums has no split 'dev'; it has: train, test",
        "'long' not found. Available: ['main', 'short']",
        f"Revision '{'f' * 40}' doesn't exist",
        "scripts are no longer supported, but found code.py",
    )
    for answer, part in zip(said, expected, strict=True):
        assert part in answer["message"]


@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_a_hub_id_without_network_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    (said,) = open_sources(tmp_path, {"hub": "lab/sums"}, **environment)
    assert said["error"] == "StepError"
    assert said["message"].startswith("a Hub id without network: lab/sums is not in the cache of this machine")


def test_a_source_is_a_file_or_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fields in ({}, {"path": "a.jsonl", "hub": "lab/sums"}):
        with pytest.raises(ValidationError, match="expected one of the two"):
            RowSource.model_validate(fields)
    for fields in ({"hub": "json"}, {"hub": "lab/sums", "revision": "main"}):
        with pytest.raises(ValidationError, match="should match pattern"):
            RowSource.model_validate(fields)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab" / "sums").mkdir(parents=True)
    with pytest.raises(DataError, match="'lab/sums' is also a folder here"):
        RowSource(hub="lab/sums").open()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dataset is that of the loopback Hub."""

    def open_dataset(id: str, config: str, split: str, revision: str, stem: str) -> HubRows:
        return HubRows(f"{id}@{COMMIT}", stem, Dataset.from_list(ROWS))

    monkeypatch.setattr("stages.problem_files.open_dataset", open_dataset)


@pytest.mark.usefixtures("opened")
def test_prompts_of_a_dataset_say_which_commit_they_are_from(tmp_path: Path) -> None:
    file = ProblemFile(hub="lab/sums", answer_format="gsm8k")
    config = PromptsConfig(domains={"math": DomainConfig(files={"test": file})})
    assert make_prompts(config, StepContext({}, tmp_path, tmp_path))["sources"] == {"math/test": f"lab/sums@{COMMIT}"}
    prompts = read_prompts(tmp_path, "test")
    assert [(p.id, p.answer) for p in prompts] == [(f"math-test-sums-train-{n}", str(n)) for n in (1, 2, 3)]
    wrong = PromptsConfig(domains={"math": DomainConfig(files={"test": file.model_copy(update={"columns": COLUMNS})})})
    with pytest.raises(
        DataError, match=f"lab/sums@{COMMIT}: 3 of 3 .* has no column 'reply'; it has: question, answer"
    ):
        make_prompts(wrong, StepContext({}, tmp_path, tmp_path))
    assert list(read_evaluation(EvaluationFile(hub="lab/sums", revision=COMMIT))) == [row["question"] for row in ROWS]
    with pytest.raises(ValidationError, match="'lab/sums' without a revision; expected the commit"):
        EvaluationFile(hub="lab/sums")


COLUMNS = {"question": "question", "answer": "reply"}


@pytest.mark.usefixtures("opened")
def test_supervised_rows_of_a_dataset_say_which_commit_they_are_from(tmp_path: Path) -> None:
    columns: dict[str, str | int] = {"question": "question", "completion": "answer"}
    file = SupervisedFile(hub="lab/sums", domain="writing", columns=columns, licence="MIT")
    prompts = write_prompts(tmp_path / "prompts")
    _, metrics = run_set(tmp_path, RoundsEngine(prompts), use_files(file, targets={"math": 3, "general": 20}))
    rows = [row for row in read_rows(tmp_path / "out", "train") if row["domain"] == "writing"]
    assert len(rows) == metrics["sources"][f"lab/sums@{COMMIT}"] == 3 and metrics["licences"] == {"lab/sums": "MIT"}
    assert {row["prompt_source"] for row in rows} == {f"lab/sums@{COMMIT}"}
