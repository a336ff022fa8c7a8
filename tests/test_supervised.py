"""Supervised rows from files, evaluation sets from files, and what a domain that falls short says."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stages.contract import DataError, StepError
from stages.rejection_sampling import EvaluationFile, SFTDataConfig
from stages.rows import Row, read_rows
from stages.supervised_files import SupervisedFile
from tests.sampled_set import CONFIG, RoundsEngine, run_set, write_prompts


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def use_files(*files: SupervisedFile, **changes: object) -> SFTDataConfig:
    shares = {"self_cognition": 1.0, **{file.domain: 1.0 for file in files}}
    return CONFIG.model_copy(update={"budget": 2, "general_shares": shares, "supervised": files, **changes})


def test_rows_of_files_stand_beside_the_demonstrations(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    first = write_jsonl(
        tmp_path / "repair.jsonl",
        [{"q": f"Mend {n}", "a": f"Done {n}.", "why": f"We look at {n}." if n % 2 else ""} for n in range(4)],
    )
    columns = {"question": "q", "completion": "a", "thoughts": "why"}
    second = tmp_path / "more.parquet"
    pq.write_table(pa.table({"id": [7, 8], "question": ["A?", "B?"], "completion": ["<think></think> a", "b"]}), second)
    config = use_files(
        SupervisedFile(path=str(first), domain="program_repair", columns=columns, licence="MIT"),
        SupervisedFile(
            path=str(second), domain="greetings", columns={name: name for name in ("id", "question", "completion")}
        ),
        targets={"math": 30, "general": 30},
    )
    _, metrics = run_set(tmp_path, RoundsEngine(prompts), config)
    rows = {row["id"]: row for row in read_rows(tmp_path / "out", "train")}
    texts = [rows[f"program_repair-train-repair-{n}/0"]["completion"][0]["content"] for n in (1, 2)]
    assert texts == ["<think></think> Done 0.", "<think> We look at 1.</think> Done 1."]
    assert rows["greetings-train-more-7/0"]["completion"][0]["content"] == "<think></think> a"
    assert rows["greetings-train-more-8/0"]["completion"][0]["content"] == "<think></think> b"
    assert metrics["sources"]["repair.jsonl"] == 4 and metrics["sources"]["demonstration"] > 0
    assert metrics["licences"] == {"repair.jsonl": "MIT", "more.parquet": "unknown"}
    assert rows["greetings-train-more-7/0"]["prompt_source"] == "more.parquet"
    assert {rows["greetings-train-more-7/0"][name] for name in ("seed", "tokens", "solve_rate")} == {None}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"question": "question", "completion": "reply"},
            "3 of 3 rows .* line 1: has no column 'reply'; it has: question, answer",
        ),
        ({"question": "number", "completion": "answer"}, "line 1: column 'number' is int 1; expected text"),
        (
            {"question": "question", "completion": "answer", "id": "group"},
            "2 of 3 rows .* has the id 'g' of an earlier row",
        ),
    ],
)
def test_a_wrong_column_mapping_is_said(tmp_path: Path, columns: dict[str, str | int], message: str) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    rows = [{"question": f"Q{n}", "answer": "A", "number": 1, "group": "g"} for n in range(3)]
    path = write_jsonl(tmp_path / "wrong.jsonl", rows)
    engine = RoundsEngine(prompts)
    with pytest.raises(DataError, match=message):
        run_set(tmp_path, engine, use_files(SupervisedFile(path=str(path), domain="x", columns=columns)))
    assert not engine.asked, "a wrong file is said before anything is sampled"


def test_a_row_that_cannot_be_used_is_set_aside_once(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    rows: list[Row] = [{"question": f"Question {n}", "completion": f"Answer {n}"} for n in range(200)]
    path = write_jsonl(
        tmp_path / "some.jsonl", [*rows, {"question": "half \ud800", "completion": "x"}, {"question": "no"}]
    )
    _, metrics = run_set(tmp_path, RoundsEngine(prompts), use_files(SupervisedFile(path=str(path), domain="writing")))
    assert metrics["supervised_funnel"][0]["left"] == 220
    aside = (tmp_path / "out" / "quarantine" / "some.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in aside] == [201, 202]


def test_files_that_no_quota_would_take_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"columns are given for \['completion'\]; expected question, completion"):
        SupervisedFile(path="a/rows.jsonl", domain="writing", columns={"completion": "answer"})
    file = SupervisedFile(path="a/rows.jsonl", domain="writing")
    with pytest.raises(ValidationError, match="supervised has front_end, which general_shares lacks"):
        SFTDataConfig(supervised=(file.model_copy(update={"domain": "front_end"}),))
    with pytest.raises(ValidationError, match="names two files alike for one domain"):
        SFTDataConfig(supervised=(file, file.model_copy(update={"path": "b/rows.jsonl"})))


def test_rows_that_touch_an_evaluation_file_are_dropped_and_counted(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    spoiled = [prompt for prompt in prompts.values() if prompt.domain == "math"][5]
    path = write_jsonl(tmp_path / "exam.jsonl", [{"question": "unrelated", "solution": spoiled.demonstration}])
    columns = ("question", "solution")
    files = {"exam": EvaluationFile(path=str(path), columns=columns)}
    _, metrics = run_set(tmp_path, RoundsEngine(prompts), CONFIG.model_copy(update={"evaluation_files": files}))
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    found = {row["prompt_id"] for row in rejected if row["reason"] == "contaminated"}
    assert spoiled.id in found and metrics["contaminated"]["exam"] == len(found)
    assert spoiled.id not in {row["prompt_id"] for row in read_rows(tmp_path / "out", "train")}
    path.write_text('{"question": "whole"}\n')
    with pytest.raises(DataError, match=r"exam.jsonl, line 1: it has: question; expected text in question, solution"):
        run_set(tmp_path, RoundsEngine(prompts), CONFIG.model_copy(update={"evaluation_files": files}), "again")


def test_a_domain_that_falls_short_stops_the_step_if_the_profile_says_so(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    config = CONFIG.model_copy(update={"on_shortfall": "stop"})
    with pytest.raises(
        StepError, match=r"math has 17 of 30 rows from 20 prompts, 17 of them solved: about 16 more prompts"
    ):
        run_set(tmp_path, RoundsEngine(prompts), config)
    assert not list((tmp_path / "out").iterdir())
    _, metrics = run_set(tmp_path, RoundsEngine(prompts), name="again")
    assert metrics["shortfall"]["math"] == 13


def test_a_set_in_which_nothing_is_right_says_where_all_went(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    engine = RoundsEngine(prompts)
    engine.answer = lambda question, number: "no"
    config = CONFIG.model_copy(update={"targets": {"math": 10}, "general_shares": {}})
    with pytest.raises(DataError, match=r"would be empty \(format 120\): math has 0 of 10 rows from 20 prompts"):
        run_set(tmp_path, engine, config)
