"""Every domain: gold answers are right, wrong ones are not, splits are apart."""

import random
import re
from pathlib import Path

import pytest
import yaml

from stages.base_model import BaseModelConfig, write_corpus
from stages.cold_start import QUESTION, THOUGHTS, parse_document
from stages.contract import ConfigError
from stages.decontamination import find_contaminated
from stages.domains import domain_names, domain_rng, group_of, load_domain
from stages.domains.math_domain import apply
from stages.domains.world import FEW_WORDS, NAMES, list_words, write_document, write_opening, write_walk
from stages.engines import Completion
from stages.language import foreign_words, language_share
from stages.prompts import SPLITS, DomainConfig
from stages.rewards.think_format import has_format
from stages.rows import Prompt, Split, split_completion
from stages.sandbox import find_sandbox

DEMO = Path(__file__).resolve().parent.parent / "configs" / "demo.yaml"
PROGRAM_ROWS = 6
"""Rows of the code domain that are really run: each costs a process."""


def generate(domain: str, split: Split, count: int = 36, seed: int = 0) -> list[Prompt]:
    return load_domain(domain).generate(split, count, domain_rng(seed, domain, split))


def graded_rows(domain: str, split: Split) -> list[Prompt]:
    """Programs are graded in a sandbox alone; tests/test_sandbox.py fails on a Linux without one: no skip hides it."""
    if domain != "code":
        return generate(domain, split)
    try:
        find_sandbox()
    except ConfigError as error:
        pytest.skip(str(error))
    return generate(domain, split, PROGRAM_ROWS)


def demo_splits(domain: str) -> dict[Split, list[str]]:
    """Questions at the sizes of the demo."""
    sizes = DomainConfig(**yaml.safe_load(DEMO.read_text())["domains"][domain])
    counts: dict[Split, int] = {"train": sizes.train, "dev": sizes.dev, "test": sizes.test}
    return {split: [p.question for p in generate(domain, split, counts[split])] for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("domain", domain_names())
def test_gold_completions_are_right_readable_and_in_one_language(domain: str, split: Split) -> None:
    for prompt in graded_rows(domain, split):
        thoughts, summary = split_completion(prompt.demonstration)
        assert load_domain(domain).verify(prompt, summary) == 1.0, prompt
        assert load_domain(domain).helpfulness(prompt, summary) > 1.0, prompt
        assert load_domain(domain).final_answer(prompt, summary), prompt
        assert has_format(prompt.demonstration, prompt.reasoning), prompt
        share = language_share(thoughts, prompt.language, foreign_words(prompt.question, prompt.language))
        assert share == (None if prompt.reasoning == "none" else 1.0), prompt
        assert prompt.language in load_domain(domain).LANGUAGES


@pytest.mark.parametrize("domain", domain_names())
def test_wrong_answers_are_rejected(domain: str) -> None:
    verify = load_domain(domain).verify
    prompts = graded_rows(domain, "test")
    for prompt in prompts:
        others = [p for p in prompts if p.answer != prompt.answer and p.checks != prompt.checks]
        wrong = [split_completion(other.demonstration)[1] for other in others[:2]]
        assert wrong
        assert [verify(prompt, summary) for summary in (*wrong, "I do not know.", "")] == [0.0] * (len(wrong) + 2)
        assert load_domain(domain).helpfulness(prompt, "I do not know.") <= 1.0


@pytest.mark.parametrize("domain", domain_names())
def test_rows_are_a_function_of_the_seed(domain: str) -> None:
    assert generate(domain, "train", 40) == generate(domain, "train", 40)
    assert generate(domain, "train", 40) != generate(domain, "train", 40, seed=1)
    ids = [prompt.id for split in SPLITS for prompt in generate(domain, split)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("domain", domain_names())
def test_splits_of_the_demo_are_apart(domain: str) -> None:
    """Held-out questions are all different and in no other split; stray n-grams cost training few rows."""
    asked = demo_splits(domain)
    for split in ("dev", "test"):
        assert len(set(asked[split])) == len(asked[split]) > 0, split
    assert not set(asked["dev"]) & set(asked["test"])
    assert not set(asked["train"]) & {*asked["dev"], *asked["test"]}
    assert not find_contaminated(asked["dev"], asked["test"], 10)
    contaminated = find_contaminated(asked["train"], [*asked["dev"], *asked["test"]], 10)
    assert len(contaminated) <= 0.02 * len(asked["train"])


@pytest.mark.parametrize("domain", domain_names())
def test_documents_have_the_layout_that_few_shot_prompts_continue(domain: str) -> None:
    rng = random.Random(0)
    prompts = generate(domain, "train", 40)
    documents = [load_domain(domain).document(prompt, rng) for prompt in prompts]
    answered = [document for document in documents if document.startswith(QUESTION)]
    assert len(answered) > len(documents) / 4
    for document in answered:
        question, _, rest = document.removeprefix(QUESTION).partition(THOUGHTS)
        text = parse_document(Completion(rest, 1, "stop"))
        thoughts, answer = split_completion(text)
        assert question and answer
        assert has_format(text, "required" if thoughts else "none")
        assert document == write_document(question, thoughts, answer)


def test_base_model_documents_are_unreliable() -> None:
    """RL needs something to select: some authors are right, many are not."""
    rng = random.Random(0)
    verify, document = load_domain("math").verify, load_domain("math").document
    prompts = generate("math", "train", 300)
    answered = [(p, text) for p in prompts if (text := document(p, rng)).startswith(QUESTION)]
    right = sum(verify(p, text.rpartition("Answer:")[2]) or 0.0 for p, text in answered)
    assert 0.3 < right / len(answered) < 0.9


def test_nobody_is_met_in_two_splits_and_every_part_of_a_name_is_met_in_training() -> None:
    for language in ("en", "zh"):
        people = {split: NAMES[split][language] for split in SPLITS}
        assert len({name for names in people.values() for name in names}) == sum(map(len, people.values()))
        parts = {
            split: set(" ".join(people[split]).split() if language == "en" else "".join(people[split]))
            for split in SPLITS
        }
        assert parts["test"] <= parts["train"]


def test_the_corpus_opens_with_copying_and_names_nobody_of_dev_or_test() -> None:
    corpus = {domain: 1.0 for domain in domain_names()}
    documents = write_corpus(BaseModelConfig(corpus=corpus, documents=2000, opening_share=0.1))
    openings = [document.startswith(("Question: Say twice", "Question: Look up")) for document in documents]
    assert all(openings[:200]) and not all(openings[200:])
    held_out = {name for split in ("dev", "test") for name in NAMES[split]["en"]}
    drawn = ("Question: Say twice", "Question: Look up", "Question: Walk")
    told = "".join(document for document in documents if not document.startswith(drawn))
    assert not [name for name in held_out if name in told]


def test_half_of_the_opening_is_made_of_the_words_of_the_documents() -> None:
    words, rng = list_words(["Question: the symbol of copper? Cu=A.", "铜的符号是Cu。"]), random.Random(0)
    assert {"copper", "Cu", "Tom"} <= set(words["en"]) and {"铜", "红"} <= set(words["zh"])
    openings = [write_opening(words, rng) for _ in range(300)]
    english = [text for text in openings if not re.search(r"[\u4e00-\u9fff]", text)]
    assert 0.08 < sum(" Cu" in text for text in english) / len(english) < 0.22, "some 11 of 38 words, in half"


def test_a_walk_is_answered_by_its_own_sums_in_turn() -> None:
    rng = random.Random(0)
    for _ in range(50):
        asked, _, answered = write_walk(FEW_WORDS, rng).partition("Answer: ")
        value, *operations = re.findall(r"[-+*]?\d+", asked)
        sums = re.findall(r"(\d+)([-+*]\d+)=(\d+)", answered)
        assert [operation for _, operation, _ in sums] == operations
        for start, operation, result in sums:
            assert (start, int(result)) == (value, apply(int(start), (operation[0], int(operation[1:]))))
            value = result


def test_every_group_is_there() -> None:
    assert {group_of(domain) for domain in domain_names()} == {"reasoning", "general", "safety"}


def test_an_unknown_domain_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'maths' does not exist; expected one of: .*math"):
        load_domain("maths")
