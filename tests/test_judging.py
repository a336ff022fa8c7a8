"""A model judges what no rule can, and is believed only when it says the same twice."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.contract import StepError
from stages.engines import Completion, Sampling
from stages.filters import Candidate, TextRules
from stages.judging import ModelJudge, Verdict, judge_candidates, parse_verdict
from stages.rows import Prompt, join_completion
from tests.sampled_set import CONFIG, RoundsEngine, run_set, write_prompts
from tests.scripted_engine import ScriptedEngine

OPEN_QUESTION = Prompt(
    "stem-train-1", "stem", "en", "Why is the sky blue?", "It scatters blue light.", reward="helpful"
)
BY_RULE = Prompt("math-train-1", "math", "en", "What is 2+3?", "5")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"analysis": "same", "verdict": "correct"}', 1.0),
        ('<think> Hm {"verdict": "correct"} </think> {"analysis": "no", "verdict": "incorrect"}', 0.0),
        ('First I thought {"verdict": "correct"}, but {"verdict": "incorrect"}', 0.0),
        ('```json\n{"verdict": "correct"}\n```', 1.0),
        ('{"verdict": "maybe"}', None),
        ('{"verdict": ["correct"]}', None),
        ('{"verdict": {"verdict": "correct", }}', None),
        ("{'verdict': 'correct'}", None),
        ("correct", None),
        ("{}", None),
        ("", None),
    ],
)
def test_only_a_verdict_in_json_is_one(text: str, expected: float | None) -> None:
    assert parse_verdict(text) == expected


def make_judge(answer: Callable[[str], str]) -> tuple[ModelJudge, ScriptedEngine]:
    engine = ScriptedEngine(lambda question, number: answer(question))
    return ModelJudge("judge", engine, Sampling(n=3, temperature=0.0), 0), engine


def sample(prompt: Prompt, summary: str, number: int = 0) -> Candidate:
    return Candidate(prompt, join_completion("We think about it.", summary), number)


def test_the_judge_sees_reference_and_answer_in_both_orders() -> None:
    judge, engine = make_judge(lambda question: '{"verdict": "correct"}')
    assert judge.score([sample(OPEN_QUESTION, "Because it scatters.")]) == [1.0]
    first, second = engine.asked
    reference, given = "It scatters blue light.", "Because it scatters."
    assert first.index(reference) < first.index(given) and second.index(given) < second.index(reference)
    assert "We think about it" not in first


def test_a_judge_that_prefers_a_place_is_not_believed() -> None:
    def prefer_the_reference_first(question: str) -> str:
        return json.dumps({"verdict": "correct" if "First answer:\nIt scatters blue" in question else "incorrect"})

    place, _ = make_judge(prefer_the_reference_first)
    assert place.score([sample(OPEN_QUESTION, "Because.")]) == [None]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('{"verdict": "correct"}', ""),
        ('{"verdict": "incorrect"}', "wrong answer"),
        ("I would rather not say", "cannot judge"),
        ("", "cannot judge"),
    ],
)
def test_rows_without_a_rule_are_the_judges_and_those_with_one_are_not(said: str, reason: str) -> None:
    judge, engine = make_judge(lambda question: said)
    candidates = [sample(OPEN_QUESTION, "Because."), sample(BY_RULE, "\\boxed{5}"), sample(BY_RULE, "\\boxed{6}", 1)]
    verdicts = judge_candidates(candidates, TextRules(), judge)
    assert verdicts[0].reason == reason and verdicts[0].judge == "judge"
    assert verdicts[1:] == [Verdict("", 1.0, "rule"), Verdict("wrong answer", 0.0, "rule")]
    assert len(engine.asked) == 2
    assert judge_candidates(candidates, TextRules())[0] == Verdict("cannot judge", None, "")


def test_a_judge_whose_engine_loses_answers_stops_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, engine = make_judge(lambda question: "")
    monkeypatch.setattr(engine, "sample", lambda *arguments: [[Completion("", 0, "stop")]])
    with pytest.raises(StepError, match="judge 'judge' gave 1 answers, expected 2"):
        judge.score([sample(OPEN_QUESTION, "Because.")])
    monkeypatch.setattr(engine, "sample", lambda *arguments: [[], []])
    assert judge.score([sample(OPEN_QUESTION, "Because.")]) == [None]


def test_a_set_counts_what_its_judge_could_not_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    judge, _ = make_judge(lambda question: "garbage")
    monkeypatch.setattr("stages.judging.score_answers", lambda candidates: [None] * len(candidates))
    monkeypatch.setattr("stages.rejection_sampling.load_judge", lambda config, seed, runtime: judge)
    _, metrics = run_set(tmp_path, RoundsEngine(prompts), CONFIG.model_copy(update={"budget": 2}))
    dropped = {step["filter"]: step["dropped"] for step in metrics["funnel"] if step["dropped"]}
    assert dropped == {"cannot judge": 80} and set(metrics["composition"]) == {"self_cognition"}
    assert "no answer was usable" in metrics["remedies"]["math"]
