"""A teacher answers general questions that come without an answer: how it is asked, what is taken, what is resumed."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stages import rejection_sampling
from stages.contract import Metrics, StepContext, StepError
from stages.engines import Sampling
from stages.engines.openai_engine import OpenAIEngine
from stages.judging import JudgeConfig
from stages.rejection_sampling import SFTDataConfig, TeacherConfig, make_sft_data
from stages.rows import Row, read_rows, write_rows
from stages.supervised_files import SupervisedFile
from tests.loopback_server import Body, serve
from tests.micro_model import make_prompts
from tests.sampled_set import CONFIG, RoundsEngine, run_set, write_prompts
from tests.test_supervised import write_jsonl

TEACHER = TeacherConfig(path="models/teacher", engine="vllm", sampling=Sampling(n=1))
QUESTIONS: dict[str, str | int] = {"question": "question"}
ASKED_TO_THINK = "Write your thoughts between <think> and </think>"


class TeachingEngine(RoundsEngine):
    """The policy for questions it knows; the others are the teacher's, which `teach` answers."""

    teach: Callable[[str], str] = staticmethod(lambda question: "<think>")

    def _answer(self, question: str, number: int) -> str:
        return super()._answer(question, number) if question in self.prompts else self.teach(question)


def make_config(folder: Path, **changes: object) -> SFTDataConfig:
    """Twelve requests that want thoughts, and two greetings that want none."""
    writing = write_jsonl(folder / "requests.jsonl", [{"question": f"Write about {{{n}}}."} for n in range(12)])
    greetings = write_jsonl(folder / "hello.jsonl", [{"question": "Hi"}, {"question": "Hello"}])
    files = (
        SupervisedFile(path=str(writing), domain="writing", columns=QUESTIONS, licence="MIT"),
        SupervisedFile(path=str(greetings), domain="greetings", columns=QUESTIONS, reasoning="none"),
    )
    shares = {"self_cognition": 1.0, "writing": 1.0, "greetings": 1.0}
    update = {"general_shares": shares, "supervised": files, "teacher": TEACHER, "budget": 2, **changes}
    return CONFIG.model_copy(update={"targets": {"math": 30, "general": 60}, **update})


def write_well(question: str) -> str:
    return f"\n<think>We write it.</think> A text on {question[-4:]}" if ASKED_TO_THINK in question else "Hi you."


def read_taught(folder: Path) -> dict[str, Row]:
    return {row["id"]: row for row in read_rows(folder, "train") if row["source"] == "teacher"}


def test_it_is_asked_to_think_where_a_row_requires_it(tmp_path: Path) -> None:
    engine = TeachingEngine(write_prompts(tmp_path / "prompts"))
    engine.teach = write_well
    _, metrics = run_set(tmp_path, engine, make_config(tmp_path))
    asked = [question for question in engine.asked if question not in engine.prompts]
    assert [ASKED_TO_THINK in question for question in asked] == [True] * 12 + [False] * 2
    assert sorted(asked[12:]) == ["Hello", "Hi"]
    rows = read_taught(tmp_path / "out")
    assert len(rows) == metrics["sources"]["teacher"] == 14 and metrics["licences"]["requests.jsonl"] == "MIT"
    row, greeting = rows["writing-train-requests-1/0"], rows["greetings-train-hello-1/0"]
    assert row["prompt"][0]["content"] == "Write about {0}."
    assert row["completion"][0]["content"] == "<think>We write it.</think> A text on {0}."
    assert greeting["completion"][0]["content"] == "<think></think> Hi you."


def test_its_rows_say_where_they_come_from(tmp_path: Path) -> None:
    engine = TeachingEngine(write_prompts(tmp_path / "prompts"))
    engine.teach = write_well
    run_set(tmp_path, engine, make_config(tmp_path))
    row = read_taught(tmp_path / "out")["writing-train-requests-3/0"]
    assert (row["prompt_source"], row["policy"], row["engine"]) == ("requests.jsonl", "teacher", "vllm")
    assert (row["sampler"], row["seed"]) == (TEACHER.sampling.model_dump_json(), 0)
    # Nobody has judged it.
    assert (row["judge"], row["solve_rate"], row["rewards"]["accuracy"]) == ("", None, None)
    rates = pq.read_table(tmp_path / "out" / "solve_rates.parquet")
    assert rates["domain"].unique().to_pylist() == ["math"]


def test_answers_that_are_no_good_are_rejected_with_reasons(tmp_path: Path) -> None:
    said = {
        "0": "A text without thoughts.",
        "1": "<think>We write it.</think>",
        "2": "<think>We write it. 我们写吧。</think> A text.",
        "3": f"<think>We write it.</think> {'On and on and on and on it goes. ' * 20}",
        "4": "<think>We write it.</think> ```A text```",
    }

    def teach(question: str) -> str:
        if ASKED_TO_THINK not in question:
            return "<think>A greeting.</think> Hi you." if question == "Hi" else " "
        return next((text for key, text in said.items() if f"{{{key}}}" in question), write_well(question))

    engine = TeachingEngine(write_prompts(tmp_path / "prompts"))
    engine.teach = teach
    _, metrics = run_set(tmp_path, engine, make_config(tmp_path))
    dropped = {step["filter"]: step["dropped"] for step in metrics["teacher_funnel"] if step["dropped"]}
    assert dropped == {"format": 3, "mixed language": 1, "code block": 1, "repetition": 1}
    assert metrics["teacher_funnel"][0]["left"] == 14 and metrics["teacher_funnel"][-1]["left"] == 8
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    found = Counter(row["reason"] for row in rejected if row["source"] == "teacher")
    assert found == dropped
    # What it thinks before a greeting nobody has asked for.
    greeting = read_taught(tmp_path / "out")["greetings-train-hello-1/0"]
    assert greeting["completion"][0]["content"] == "<think></think> Hi you."


def test_prompts_without_a_demonstration_are_its_own_where_it_is_told_so(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    bare = [{**prompt.to_row(), "demonstration": ""} for prompt in make_prompts("self_cognition", 5)]
    bare += [{**row, "domain": "greetings", "id": f"{row['id']}-greeting"} for row in bare]
    write_rows([*(prompt.to_row() for prompt in prompts.values()), *rename(bare)], tmp_path / "prompts", "train")
    engine = TeachingEngine({question: p for question, p in prompts.items() if p.domain != "self_cognition"})
    engine.teach = write_well
    config = make_config(tmp_path, supervised=(), teacher=TEACHER.model_copy(update={"domains": ("greetings",)}))
    run_set(tmp_path, engine, config)
    taught = read_taught(tmp_path / "out").values()
    assert {row["domain"] for row in taught} == {"greetings"} and len(taught) == 5


def rename(rows: list[Row]) -> list[Row]:
    return [{**row, "id": f"bare-{row['id']}"} for row in rows]


def test_a_run_that_failed_asks_only_for_what_is_left(tmp_path: Path) -> None:
    answered: list[str] = []

    def fail_at_the_eighth(question: str) -> str:
        answered.append(question)
        if len(answered) == 8:
            raise StepError("no server has answered")
        return write_well(question)

    config, prompts = make_config(tmp_path), write_prompts(tmp_path / "prompts")
    failing = TeachingEngine(prompts)
    failing.teach = fail_at_the_eighth
    with pytest.raises(StepError, match="no server"):
        run_set(tmp_path, failing, config, "failed")
    engine = TeachingEngine(prompts)
    engine.teach = write_well
    result = run_set(tmp_path, engine, config)
    asked = [question for question in engine.asked if question not in prompts]
    assert len(asked) == 14 - 5
    whole = tmp_path / "whole"
    engine = TeachingEngine(write_prompts(whole / "prompts"))
    engine.teach = write_well
    assert run_set(whole, engine, config) == result
    # Other questions under the same name are asked anew.
    (tmp_path / "hello.jsonl").write_text('{"question": "Good day"}\n')
    engine.asked.clear()
    run_set(whole, engine, config, "again")
    assert engine.asked == ["Good day"]


def test_it_may_stand_behind_servers(tmp_path: Path, micro_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = OpenAIEngine(micro_base, ["http://127.0.0.1:9/v1"]).tokenizer

    def script(number: int, body: Body) -> tuple[int, bytes, dict[str, str]]:
        choice = {"text": write_well(tokenizer.decode(body["prompt"])), "finish_reason": "stop"}
        return 200, json.dumps({"choices": [choice], "usage": {"completion_tokens": 3}}).encode(), {}

    with serve(script) as (server,):
        monkeypatch.setattr(
            rejection_sampling, "load_engine", lambda name, path, runtime: OpenAIEngine(path, [server.url])
        )
        teacher = TEACHER.model_copy(update={"path": str(micro_base), "engine": "openai"})
        metrics = make_general_set(make_config(tmp_path, targets={"general": 60}, teacher=teacher), tmp_path)
    assert metrics["sources"]["teacher"] == 14 and len(server.asked) == 14


def make_general_set(config: SFTDataConfig, folder: Path) -> Metrics:
    """Without a reasoning domain nobody asks the policy."""
    write_prompts(folder / "prompts")
    inputs = {"policy": folder / "policy", "prompts": folder / "prompts"}
    (folder / "out").mkdir()
    return make_sft_data(config, StepContext(inputs, folder / "out", folder))


def test_what_no_teacher_would_answer_is_refused() -> None:
    file = SupervisedFile(path="rows.jsonl", domain="writing", columns=QUESTIONS)
    with pytest.raises(ValidationError, match=r"questions without completions for writing; expected .* or a teacher"):
        SFTDataConfig(supervised=(file,))
    with pytest.raises(ValidationError, match=r"teacher\.domains has math, which general_shares lacks"):
        SFTDataConfig(teacher=TEACHER.model_copy(update={"domains": ("math",)}))
    with pytest.raises(ValidationError, match="engine openai is named for two models, but has the same servers"):
        SFTDataConfig(engine="openai", judge=JudgeConfig(path="models/judge", engine="openai"))
