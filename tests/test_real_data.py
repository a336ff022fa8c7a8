"""The readers and the rule, on problems and model answers that real people and models wrote."""

import json
import os
from pathlib import Path

import pytest

from stages.language import language_share
from stages.math_answers import compare_text, extract_boxed, parse_answer
from stages.problem_files import read_problems
from stages.rows import Prompt

DATA = Path(os.environ.get("R1_DATA", Path(__file__).parents[2] / "shared" / "data"))
LANGUAGES = ("de", "en", "es", "fr", "ja", "ru", "zh")
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} does not exist; set R1_DATA to the real problems")


def read_mgsm(language: str) -> list[Prompt]:
    columns = {"question": 0, "answer": 1}
    prompts, bad = read_problems(DATA / "mgsm" / f"mgsm_{language}.tsv", columns, "numeric", language=language)
    assert not bad
    return prompts


def grades_itself(prompt: Prompt) -> bool:
    answer = extract_boxed(f"So the answer is $\\boxed{{{int(prompt.answer):,}}}$.")
    return answer is not None and compare_text(prompt.answer, answer)


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_every_gold_answer_of_gsm8k_grades_itself(split: str, count: int) -> None:
    prompts, bad = read_problems(
        DATA / "gsm8k" / f"{split}.jsonl", {"question": "question", "answer": "answer"}, "gsm8k"
    )
    assert (len(prompts), bad) == (count, [])
    assert [prompt.id for prompt in prompts if not grades_itself(prompt)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_gold_answer_of_mgsm_grades_itself(language: str) -> None:
    prompts = read_mgsm(language)
    assert len(prompts) == 250
    assert [prompt.id for prompt in prompts if not grades_itself(prompt)] == []


@pytest.mark.parametrize("model", MODELS)
def test_verdicts_on_real_model_solutions_agree_with_their_labels(model: str) -> None:
    """All 4 x 1,319 agree; there are no exceptions to list."""
    lines = (DATA / "gsm8k" / "example_model_solutions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    disagreements = []
    for number, row in enumerate(rows):
        gold = parse_answer(row["ground_truth"], "numeric")
        answer = parse_answer(row[model]["solution"], "numeric")
        verdict = gold is not None and answer is not None and compare_text(gold, answer)
        if verdict != row[model]["is_correct"]:
            disagreements.append((number, gold, answer))
    assert len(rows) == 1319
    assert 0 < sum(row[model]["is_correct"] for row in rows) < 1319
    assert disagreements == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_questions_of_mgsm_are_in_their_language_and_in_no_other(language: str) -> None:
    questions = [prompt.question for prompt in read_mgsm(language)]
    for target in LANGUAGES:
        mean = sum(language_share(question, target) or 0.0 for question in questions) / len(questions)
        assert mean >= 0.97 if target == language else mean <= 0.15, target
