import json
from pathlib import Path

import pytest

from stages.contract import DataError
from stages.problem_files import BadRow, read_problems, write_quarantine

BY_NAME = {"question": "question", "answer": "answer"}
BY_NUMBER = {"question": 0, "answer": 1}


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def good_lines(count: int) -> list[str]:
    return [json.dumps({"question": f"{n} + 1?", "answer": f"so\n#### {n + 1}"}) for n in range(count)]


def test_jsonl(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", *good_lines(2), "")
    prompts, bad = read_problems(path, BY_NAME, "gsm8k", language="en", split="dev")
    assert [(prompt.question, prompt.answer) for prompt in prompts] == [("0 + 1?", "1"), ("1 + 1?", "2")]
    assert [prompt.id for prompt in prompts] == ["math-dev-sums-1", "math-dev-sums-2"]
    assert bad == []


def test_tsv_keeps_quotes_and_line_separators(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.tsv", 'He said "2\u20282"?\t1,234')
    prompts, _ = read_problems(path, BY_NUMBER, "numeric")
    assert (prompts[0].question, prompts[0].answer) == ('He said "2\u20282"?', "1234")


def test_parquet_with_ids(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "letters.parquet"
    pq.write_table(pa.table({"q": ["Which?", "And?"], "a": ["B", "(C)"], "key": [7, 8]}), path)
    prompts, _ = read_problems(path, {"question": "q", "answer": "a", "id": "key"}, "letter", domain="stem")
    assert [(prompt.id, prompt.answer) for prompt in prompts] == [
        ("stem-test-letters-7", "B"),
        ("stem-test-letters-8", "C"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "is list; expected an object"),
        ('{"question": "2 + 2?"}', "has no column 'answer'; it has: question"),
        ('{"question": "2 + 2?", "answer": 4}', "column 'answer' is int 4; expected text"),
        ('{"question": " ", "answer": "#### 4"}', "column 'question' is str ' '; expected text"),
        ('{"question": "2 + 2?", "answer": "four"}', "column 'answer' holds no answer in the format 'gsm8k'"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_rows_are_set_aside_with_their_line(tmp_path: Path, line: str, reason: str) -> None:
    lines = good_lines(200)
    path = write(tmp_path / "sums.jsonl", *lines[:120], line, *lines[120:])
    prompts, bad = read_problems(path, BY_NAME, "gsm8k")
    assert len(prompts) == 200
    assert [(row.line, reason in row.reason) for row in bad] == [(121, True)]
    assert bad[0].content == line[:2000]


def test_too_many_bad_rows_stop_everything(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", *good_lines(97), "{", "{", "{")
    with pytest.raises(DataError, match=r"3 of 100 rows .* at most 1%; the first is line 98: not JSON"):
        read_problems(path, BY_NAME, "gsm8k")


def test_a_missing_column_names_those_that_exist(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", *good_lines(3))
    with pytest.raises(DataError, match="has no column 'problem'; it has: question, answer"):
        read_problems(path, {**BY_NAME, "question": "problem"}, "gsm8k")


@pytest.mark.parametrize("columns", [{}, {"question": "question"}, {**BY_NAME, "solution": "x"}])
def test_columns_must_be_said(tmp_path: Path, columns: dict[str, str]) -> None:
    with pytest.raises(DataError, match="expected question, answer and maybe id"):
        read_problems(write(tmp_path / "sums.jsonl", *good_lines(3)), columns, "gsm8k")


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_problems(tmp_path / "none.jsonl", BY_NAME, "gsm8k")
    with pytest.raises(DataError, match="is empty"):
        read_problems(write(tmp_path / "empty.jsonl", "", " "), BY_NAME, "gsm8k")
    with pytest.raises(DataError, match=r"ends in '.csv'; expected one of: .jsonl"):
        read_problems(write(tmp_path / "sums.csv", "a"), BY_NAME, "gsm8k")
    with pytest.raises(DataError, match="is not a parquet file"):
        read_problems(write(tmp_path / "sums.parquet", "not parquet"), BY_NAME, "gsm8k")


def test_quarantine_is_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "quarantine.jsonl"
    write_quarantine([BadRow(3, "not JSON", "{é\u2028\ud800")], path)
    (line,) = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert json.loads(line)["line"] == 3
