"""What is dropped on the way into a training set, and that all of it is counted."""

import pytest

from stages.filters import (
    Candidate,
    Funnel,
    drop_duplicates,
    is_finished,
    is_readable,
    keep_correct,
    limit_per_prompt,
    speaks_one_language,
)
from stages.rows import Prompt, join_completion
from tests.micro_model import make_prompts

ADDITION = Prompt("math-train-1", "math", "en", "What is 2+3?", "5")


def answer(thoughts: str, number: str = "5", sample: int = 0, prompt: Prompt = ADDITION) -> Candidate:
    return Candidate(prompt, join_completion(thoughts, f"The answer is \\boxed{{{number}}}."), sample)


def test_finished_means_that_the_policy_stopped() -> None:
    assert is_finished(answer("We add."))
    assert not is_finished(Candidate(ADDITION, "text", 0, "length"))
    assert not is_finished(Candidate(ADDITION, "", 0, "prompt_too_long"))


def test_readable_means_thoughts_as_expected_and_a_summary() -> None:
    greeting = make_prompts("greetings", 1)[0]
    assert is_readable(answer("We add."))
    assert not is_readable(answer(""))
    assert not is_readable(Candidate(ADDITION, "The answer is \\boxed{5}.", 0))
    assert not is_readable(Candidate(ADDITION, "<think>We add.</think>", 0))
    assert is_readable(Candidate(greeting, join_completion("", "Hello."), 0))
    assert not is_readable(Candidate(greeting, join_completion("We greet.", "Hello."), 0))


def test_correct_is_what_the_rule_of_the_domain_says() -> None:
    gold = [Candidate(prompt, prompt.demonstration, 0) for prompt in make_prompts("logic", 2)]
    right, wrong = answer("We add."), answer("We add.", "6", 1)
    assert keep_correct([wrong, right, *gold]) == [right, *gold]
    assert keep_correct([]) == []


@pytest.mark.parametrize(
    ("thoughts", "language", "expected"),
    [
        ("We add two and three.", "en", True),
        ("We add 两个数。", "en", False),
        ("开始有两个。", "zh", True),
        ("开始有两个。 We add.", "zh", False),
        ("2+3=5", "en", True),
    ],
)
def test_one_language(thoughts: str, language: str, expected: bool) -> None:
    prompt = Prompt("math-train-1", "math", language, "2+3", "5")
    assert speaks_one_language(answer(thoughts, prompt=prompt)) == expected


def test_duplicates_are_equal_texts_of_one_prompt() -> None:
    other = Prompt("math-train-2", "math", "en", "What is 3+2?", "5")
    first, again, elsewhere = answer("We add."), answer("We add.", sample=1), answer("We add.", prompt=other)
    assert drop_duplicates([first, again, elsewhere]) == [first, elsewhere]


def test_the_first_ones_of_each_prompt_are_kept() -> None:
    other = Prompt("math-train-2", "math", "en", "What is 3+2?", "5")
    samples = [answer(f"We add {n}.", sample=n, prompt=p) for n in range(3) for p in (ADDITION, other)]
    assert limit_per_prompt(samples, 2) == samples[:4]


def test_the_funnel_adds_up() -> None:
    samples = [answer("We add.", str(number), number) for number in range(10)]
    funnel = Funnel(len(samples))
    left = funnel.keep("even", samples, lambda candidate: candidate.sample % 2 == 0)
    left = funnel.apply("two", left, lambda candidates: list(candidates[:2]))
    assert funnel.steps == [
        {"filter": "sampled", "dropped": 0, "left": 10},
        {"filter": "even", "dropped": 5, "left": 5},
        {"filter": "two", "dropped": 3, "left": 2},
    ]


def test_a_row_says_where_it_comes_from() -> None:
    row = answer("We add.", sample=3).to_row("reasoning_rl")
    assert (row["id"], row["domain"], row["language"], row["source"]) == (
        "math-train-1/3",
        "math",
        "en",
        "reasoning_rl",
    )
    assert row["prompt"][0]["content"] == "What is 2+3?" and row["completion"][0]["content"].startswith("<think>")
