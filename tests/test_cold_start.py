"""Stage 1: where the rows come from, what is dropped, and the human check."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages import cold_start
from stages.cold_start import (
    ANSWER,
    END,
    QUESTION,
    THOUGHTS,
    ColdStartDataConfig,
    Teacher,
    make_cold_start_data,
    parse_document,
    select_prompts,
)
from stages.contract import DataError, Metrics, StepContext, StepError
from stages.domains.world import write_document
from stages.engines import Completion, Sampling
from stages.rows import Prompt, Row, join_completion, read_rows, split_completion, write_rows
from tests.micro_model import make_prompts
from tests.scripted_engine import Answer, ScriptedEngine

PROMPTS = [*make_prompts("math", 20), *make_prompts("logic", 20), *make_prompts("greetings", 5)]
SAMPLING = Sampling(n=3)


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    write_rows([prompt.to_row() for prompt in PROMPTS], tmp_path / "prompts", "train")
    output = tmp_path / "out"
    output.mkdir()
    return StepContext({"base": tmp_path / "base", "prompts": tmp_path / "prompts"}, output, tmp_path)


def find_prompt(text: str) -> Prompt:
    """The prompt that a text asks last."""
    return max(PROMPTS, key=lambda prompt: text.rfind(prompt.question))


def continue_document(text: str, number: int) -> str:
    """Right, then the same again, then wrong."""
    thoughts, summary = split_completion(find_prompt(text).demonstration)
    answer = summary if number < 2 else "It is \\boxed{-1}."
    return f" {thoughts}{ANSWER}{answer}\n"


def script(monkeypatch: pytest.MonkeyPatch, answer: Answer = continue_document) -> ScriptedEngine:
    engine = ScriptedEngine(answer)
    monkeypatch.setattr(cold_start, "load_engine", lambda name, model_dir, runtime: engine)
    return engine


def make(context: StepContext, **settings: Any) -> tuple[Metrics, list[Row]]:
    config = ColdStartDataConfig(**{"prompts": 10, "sampling": SAMPLING, **settings})
    metrics = make_cold_start_data(config, context)
    return metrics, read_rows(context.output_dir, "train")


def test_few_shot_shows_worked_examples_as_the_base_model_has_read_them(
    context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = script(monkeypatch)
    metrics, rows = make(context, method="few_shot", examples=2, prompts=40)
    for text in engine.asked:
        *examples, asked = text.split(END)
        prompt = find_prompt(asked)
        assert asked == f"{QUESTION}{prompt.question}{THOUGHTS}"
        assert len(set(examples)) == 2 and not any(prompt.question in example for example in examples)
        for example in examples:
            shown = find_prompt(example)
            assert example == write_document(shown.question, *split_completion(shown.demonstration))
            assert (shown.domain, shown.language) == (prompt.domain, prompt.language)
    assert [step["dropped"] for step in metrics["funnel"]] == [0, 0, 40, 40, 0]
    assert metrics["rows"] == len(rows) == 40
    assert all(
        row["completion"][0]["content"] == find_prompt(row["prompt"][0]["content"]).demonstration for row in rows
    )


@pytest.mark.parametrize(("instruction", "end"), [("Reflect.", " Reflect."), ("", "")])
def test_direct_asks_for_a_detailed_answer(
    context: StepContext, monkeypatch: pytest.MonkeyPatch, instruction: str, end: str
) -> None:
    engine = script(monkeypatch)
    _, rows = make(context, method="direct", instruction=instruction)
    for text in engine.asked:
        assert text == f"{QUESTION}{find_prompt(text).question}{end}{THOUGHTS}"
    assert not any("Reflect" in row["prompt"][0]["content"] for row in rows)


def test_outputs_of_r1_zero_are_kept_if_right_readable_and_in_one_language(
    context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(question: str, number: int) -> str:
        thoughts, summary = split_completion(find_prompt(question).demonstration)
        mixed = {0: thoughts, 1: f"{thoughts} Und jetzt zählen wir das alles zusammen, weil es so besser ist."}
        return join_completion(mixed.get(number, thoughts), summary if number < 2 else "It is \\boxed{-1}.")

    engine = script(monkeypatch, answer)
    folders: list[Path] = []
    monkeypatch.setattr(cold_start, "load_engine", lambda name, folder, runtime: folders.append(folder) or engine)
    zero = replace(context, inputs={**context.inputs, "r1_zero": Path("zero")})
    metrics, rows = make(zero, method="r1_zero", per_prompt=3)
    assert folders == [Path("zero")]
    assert sorted(engine.asked) == sorted(prompt.question for prompt in select_prompts(PROMPTS, 10))
    assert {row["source"] for row in rows} == {"r1_zero"} and len(rows) == 10
    dropped = {step["filter"]: step["dropped"] for step in metrics["funnel"]}
    assert (dropped["correct"], dropped["mixed language"]) == (10, 10)


def test_prompts_are_reasoning_ones_from_each_domain_in_turn() -> None:
    assert [prompt.domain for prompt in select_prompts(PROMPTS, 5)] == ["math", "logic", "math", "logic", "math"]
    assert len(select_prompts(PROMPTS, 100)) == 40
    with pytest.raises(DataError, match="no reasoning prompts"):
        select_prompts(make_prompts("greetings", 3), 5)


def test_a_document_without_an_end_or_an_answer_stays_unreadable() -> None:
    text = " We add.\nAnswer: 5.\n"
    assert parse_document(Completion(text, 9, "stop")) == join_completion("We add.", "5.")
    assert parse_document(Completion(text, 9, "length")) == text
    assert parse_document(Completion(" We add.", 9, "stop")) == " We add."


def test_rows_and_samples_per_prompt_are_limited(context: StepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def vary(text: str, number: int) -> str:
        return continue_document(text, 0).replace(ANSWER, f"{' Good.' * number}{ANSWER}")

    script(monkeypatch, vary)
    metrics, rows = make(context, per_prompt=2, rows=7)
    assert metrics["funnel"][-1] == {"filter": "per prompt", "dropped": 10, "left": 20}
    assert len(rows) == 7


def test_rewrites_of_a_teacher_must_stay_right(context: StepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def rewrite(text: str, number: int) -> str:
        if not text.startswith("Polish: "):
            return continue_document(text, number)
        polished = text.removeprefix("Polish: ").replace("<think>", "<think>Well. ")
        return polished if "Well" in polished and len(text) % 2 else "<think>?</think>\\boxed{-1}"

    engine = script(monkeypatch, rewrite)
    metrics, rows = make(context, teacher=Teacher(path="teacher", instruction="Polish: {completion}"))
    asked = [text for text in engine.asked if text.startswith("Polish: ")]
    kept = [text for text in asked if len(text) % 2]
    assert 0 < len(kept) < len(asked) == 10
    assert metrics["funnel"][-1] == {"filter": "teacher rewrite", "dropped": 10 - len(kept), "left": len(kept)}
    assert all(row["completion"][0]["content"].startswith("<think>Well. ") for row in rows)


def test_human_check_goes_out_and_comes_back(context: StepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch)
    path = context.scratch_dir / "checks" / "review.jsonl"
    with pytest.raises(StepError, match=r"10 candidates wait for a human check in .*review\.jsonl"):
        make(context, review=str(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 10 and all(line["keep"] for line in lines)
    lines[0]["keep"] = False
    lines[1]["text"] = join_completion("Edited\u2028by hand.", "5")
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines[:9]), encoding="utf-8")
    metrics, rows = make(context, review=str(path))
    assert metrics["funnel"][-1] == {"filter": "human check", "dropped": 2, "left": 8}
    assert rows[0]["completion"][0]["content"] == lines[1]["text"]
    assert [row["id"] for row in rows] == [line["id"] for line in lines[1:9]]


@pytest.mark.parametrize("line", ["{", '{"id": "a"}', "[1]"])
def test_a_broken_human_check_is_named(context: StepContext, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    script(monkeypatch)
    path = context.scratch_dir / "review.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"review\.jsonl, line 1: .*; expected an object with id, text and keep"):
        make(context, review=str(path))


def write_answers(path: Path, count: int, *bad: str) -> Path:
    good = [json.dumps({"question": f"Q{n}", "completion": join_completion("a", "b")}) for n in range(count)]
    path.write_text("\n".join([*good, *bad]) + "\n")
    return path


def test_rows_of_a_file(context: StepContext) -> None:
    path = write_answers(context.scratch_dir / "answers.jsonl", 200, '{"question": "Q"}', "{")
    metrics, rows = make(context, method="file", file=str(path))
    assert metrics == {"method": "file", "rows": 200, "set_aside": 2, "source": "answers.jsonl"} and len(rows) == 200
    assert rows[0] == {
        "prompt": [{"role": "user", "content": "Q0"}],
        "completion": [{"role": "assistant", "content": join_completion("a", "b")}],
    }
    set_aside = (context.output_dir / "quarantine" / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in set_aside] == [201, 202]


def test_unusable_files(context: StepContext) -> None:
    with pytest.raises(ValidationError, match="method is file, but no file with completions is named"):
        ColdStartDataConfig(method="file")
    with pytest.raises(DataError, match=r"nowhere\.jsonl does not exist"):
        make(context, method="file", file="nowhere.jsonl")
    bad = write_answers(context.scratch_dir / "bad.jsonl", 3, "{")
    with pytest.raises(DataError, match=r"1 of 4 rows cannot be used.* line 4"):
        make(context, method="file", file=str(bad))
    with pytest.raises(DataError, match=r"empty\.jsonl is empty"):
        make(context, method="file", file=str(write_answers(context.scratch_dir / "empty.jsonl", 0)))


def test_nothing_accepted_is_an_error_that_says_what_to_raise(
    context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, lambda text, number: " I do not know.")
    with pytest.raises(DataError, match=r"raise cold_start_data\.sampling\.n or \.prompts"):
        make(context)
