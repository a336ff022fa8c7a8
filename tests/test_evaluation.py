import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from stages import evaluation
from stages.contract import DataError, Runtime, StepContext
from stages.domains import load_domain
from stages.engines import Completion, Sampling
from stages.evaluation import Decoding, EvaluationConfig, evaluate
from stages.rows import Prompt, join_completion, read_rows, split_completion, write_rows

CONFIG = EvaluationConfig(samples=4, bootstrap_samples=100)
DOMAINS = ("math", "stem", "greetings", "safety")


class Parrot:
    """Answers with the gold completion, or with the text given for a prompt."""

    def __init__(self, prompts: Sequence[Prompt], texts: dict[str, list[Completion]]) -> None:
        self.gold = {p.question: Completion(p.demonstration, len(p.demonstration), "stop") for p in prompts}
        self.texts = texts
        self.asked: list[Sampling] = []

    def sample(
        self, questions: Sequence[str], sampling: Sampling, seed: int, progress: object
    ) -> list[list[Completion]]:
        self.asked.append(sampling)
        return [self.texts.get(question, [self.gold[question]] * sampling.n) for question in questions]


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    made = [p for name in DOMAINS for p in load_domain(name).generate("test", 6, random.Random(0))]
    write_rows([prompt.to_row() for prompt in made], tmp_path / "prompts", "test")
    return made


def run(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Parrot,
    name: str = "out",
    baseline: Path | None = None,
    config: EvaluationConfig = CONFIG,
) -> dict[str, object]:
    monkeypatch.setattr(evaluation, "load_engine", lambda name, model_dir, runtime: engine)
    inputs = {"policy": folder / "policy", "prompts": folder / "prompts"}
    output = folder / name
    output.mkdir()
    return evaluate(
        config, StepContext({**inputs, **({"baseline": baseline} if baseline else {})}, output, folder, Runtime())
    )


def of_domain(prompts: Sequence[Prompt], domain: str) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.domain == domain]


def answer(text: str, thoughts: str = "We start.") -> Completion:
    return Completion(join_completion(thoughts, text), 5, "stop")


def test_gold_answers_are_right_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]
) -> None:
    engine = Parrot(prompts, {})
    metrics = run(tmp_path, monkeypatch, engine)
    assert list(metrics["settings"]) == ["T=0.6", "T=1.0"]
    assert [(s.n, s.temperature, s.top_p) for s in engine.asked] == [(4, 0.6, 0.95), (4, 1.0, 1.0)]
    for setting in metrics["settings"].values():
        for group in setting["groups"].values():
            assert group["pass@1"]["mean"] == group["format"]["mean"] == 1.0
        assert setting["groups"]["reasoning"]["cons@k"]["mean"] == 1.0
        assert setting["groups"]["general"]["language_consistency"] is None
        assert setting["safety"]["refusal_harmful"]["mean"] == setting["safety"]["answered_harmless"]["mean"] == 1.0
        assert set(setting["languages"]) == {"en", "zh"}
        assert set(setting["domains"]) == set(DOMAINS)
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_mean_and_vote_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]) -> None:
    texts = {}
    for prompt in of_domain(prompts, "math"):
        gold = split_completion(prompt.demonstration)[1]
        texts[prompt.question] = [answer(gold), answer(gold), answer("\\boxed{-1}"), answer("no idea")]
    metrics = run(tmp_path, monkeypatch, Parrot(prompts, texts))
    math = metrics["settings"]["T=1.0"]["domains"]["math"]
    assert (math["pass@1"]["mean"], math["cons@k"]["mean"]) == (0.5, 1.0)


def test_one_row_per_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]) -> None:
    run(tmp_path, monkeypatch, Parrot(prompts, {}))
    rows = read_rows(tmp_path / "out", "samples")
    assert len(rows) == 2 * 4 * len(prompts)
    assert [row["sample"] for row in rows[:4]] == [0, 1, 2, 3] and len({row["id"] for row in rows[:4]}) == 1
    harmful = {row["id"]: row["harmful"] for row in rows}
    assert {harmful[p.id] for p in of_domain(prompts, "safety")} == {True, False}
    assert {harmful[p.id] for p in of_domain(prompts, "math")} == {None}
    assert {row["helpfulness"] is None for row in rows if row["group"] == "reasoning"} == {True}
    assert {row["answer"] is None for row in rows if row["group"] != "reasoning"} == {True}


def test_prompt_too_long_is_wrong_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]
) -> None:
    long = {prompts[0].question: [Completion("", 0, "prompt_too_long")] * 4}
    long[of_domain(prompts, "greetings")[0].question] = [Completion("", 0, "prompt_too_long")] * 4
    metrics = run(tmp_path, monkeypatch, Parrot(prompts, long))
    assert metrics["prompt_too_long"] == 2
    domains = metrics["settings"]["T=0.6"]["domains"]
    assert domains["math"]["pass@1"]["mean"] == pytest.approx(5 / 6)
    assert domains["greetings"]["pass@1"]["excluded"] == 0 and domains["greetings"]["pass@1"]["mean"] < 1


def test_cut_answers_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]) -> None:
    cut = {prompts[0].question: [Completion("<think>We", 9, "length"), *[answer("x")] * 3]}
    metrics = run(tmp_path, monkeypatch, Parrot(prompts, cut))
    assert metrics["settings"]["T=0.6"]["domains"]["math"]["truncated"]["mean"] == pytest.approx(0.25 / 6)


def test_refusing_everything_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]) -> None:
    refusals = {p.question: [answer("Sorry, I cannot help with that.")] * 4 for p in of_domain(prompts, "safety")}
    safety = run(tmp_path, monkeypatch, Parrot(prompts, refusals))["settings"]["T=1.0"]["safety"]
    assert {name: found["mean"] for name, found in safety.items()} == {
        "refusal_harmful": 1.0,
        "refusal_harmless": 1.0,
        "answered_harmless": 0.0,
    }


def test_helpfulness_is_judged_against_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]
) -> None:
    greetings = of_domain(prompts, "greetings")
    wrong = {p.question: [answer("Go away.", "")] * 4 for p in greetings}
    first = run(tmp_path, monkeypatch, Parrot(prompts, wrong), "cold")
    assert first["settings"]["T=1.0"]["helpfulness"]["win_rate"] is None
    better = run(tmp_path, monkeypatch, Parrot(prompts, {}), "better", tmp_path / "cold")
    equal = run(tmp_path, monkeypatch, Parrot(prompts, wrong), "equal", tmp_path / "cold")
    worse = run(tmp_path, monkeypatch, Parrot(prompts, wrong), "worse", tmp_path / "better")
    rates = [m["settings"]["T=1.0"]["helpfulness"]["win_rate"]["mean"] for m in (better, equal, worse)]
    assert rates == [1.0, 0.5, 0.0]
    assert better["settings"]["T=1.0"]["helpfulness"]["score"]["mean"] > 5


def test_prompts_per_domain_takes_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]
) -> None:
    config = CONFIG.model_copy(update={"prompts_per_domain": 2})
    run(tmp_path, monkeypatch, Parrot(prompts, {}), config=config)
    seen = {row["id"] for row in read_rows(tmp_path / "out", "samples")}
    assert seen == {p.id for name in DOMAINS for p in of_domain(prompts, name)[:2]}


def test_missing_split_is_named(tmp_path: Path, prompts: list[Prompt]) -> None:
    with pytest.raises(DataError, match="'dev'"):
        evaluation.choose_prompts(tmp_path / "prompts", EvaluationConfig(split="dev"))


@pytest.mark.parametrize("settings", [(), (Decoding(temperature=1.0), Decoding(temperature=1.0, top_p=0.9))])
def test_settings_must_differ_in_temperature(settings: tuple[Decoding, ...]) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        EvaluationConfig(settings=settings)


def test_progress_runs_over_all_settings() -> None:
    seen: list[tuple[int, int]] = []
    for number in range(2):
        follow = evaluation.follow_setting(lambda done, total, **metrics: seen.append((done, total)), number, 2)
        follow(5, 10)
    assert seen == [(5, 20), (15, 20)]


def test_every_checkpoint_is_compared_with_the_cold_start() -> None:
    baselines = {step.name: step.inputs.get("baseline") for step in evaluation.STEPS}
    assert baselines.pop("evaluate_cold_start_sft") is None
    assert set(baselines.values()) == {"evaluate_cold_start_sft"}
