"""The readers and the rule, on problems and model answers that real people and models wrote."""

import json
import os
import random
import re
from itertools import permutations
from pathlib import Path

import pytest

from stages.language import language_share
from stages.math_answers import compare_text, extract_boxed, parse_answer
from stages.problem_files import read_problems
from stages.rows import Prompt

DATA = Path(os.environ.get("R1_DATA", Path(__file__).parents[2] / "shared" / "data"))
LANGUAGES = ("de", "en", "es", "fr", "ja", "ru", "zh")
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
MIXED_WORDS, MIXTURES = 300, 4

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


def read_sentences(language: str) -> list[tuple[str, int]]:
    """Sentences of the questions with their numbers of words, or of Chinese and Japanese characters."""
    sentences = [sentence for prompt in read_mgsm(language) for sentence in SENTENCE_END.split(prompt.question)]
    word = r"[^\W\d_a-zA-Z]" if language in ("ja", "zh") else r"[^\W\d_]{2,}"
    return [(sentence, len(re.findall(word, sentence))) for sentence in sentences]


def draw_sentences(rng: random.Random, sentences: list[tuple[str, int]], words: float) -> tuple[list[str], int]:
    """Different sentences of at least so many words together, and how many those are."""
    drawn, total = list[str](), 0
    for sentence, count in rng.sample(sentences, len(sentences)):
        if total >= words:
            break
        drawn.append(sentence)
        total += count
    return drawn, total


@pytest.mark.parametrize(("target", "other"), list(permutations(LANGUAGES, 2)))
def test_shares_of_mixed_sentences_are_recovered(target: str, other: str) -> None:
    pools = read_sentences(target), read_sentences(other)
    rng = random.Random(f"{target} in {other}")
    for percent in range(10, 100, 10):
        errors = []
        for _ in range(MIXTURES):
            own, own_words = draw_sentences(rng, pools[0], percent / 100 * MIXED_WORDS)
            foreign, foreign_words = draw_sentences(rng, pools[1], MIXED_WORDS - own_words)
            mixed = rng.sample([*own, *foreign], len(own) + len(foreign))
            found = language_share(" ".join(mixed), target)
            assert found is not None
            errors.append(abs(found - own_words / (own_words + foreign_words)))
        assert sum(errors) / MIXTURES <= 0.05, percent
