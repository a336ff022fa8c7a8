from types import SimpleNamespace
from typing import Any

import pytest

from stages import domains
from stages.contract import ConfigError, StepError
from stages.rewards import accuracy, load_reward, reward_names
from stages.rewards.think_format import has_format
from stages.rows import Prompt, Row, assistant_turn, find_prefill


def make_columns(*prompts: Prompt) -> dict[str, list[Any]]:
    rows: list[Row] = [prompt.to_row() for prompt in prompts]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["prompts"] = columns.pop("prompt")
    return {**columns, "completion_ids": [[1]] * len(rows)}


def make_prompt(id: str = "toy-1", **fields: Any) -> Prompt:
    return Prompt(**{"id": id, "domain": "toy", "language": "en", "question": "2 + 2?", "answer": "4", **fields})


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Replaces every domain by one that compares text, and records what it was asked."""
    asked: list[tuple[str, str]] = []

    def verify(prompt: Prompt, summary: str) -> float | None:
        asked.append((prompt.question, summary))
        return None if summary == "broken" else float(summary == prompt.answer)

    monkeypatch.setattr(domains, "load_domain", lambda name: SimpleNamespace(verify=verify))
    return asked


def test_accuracy_judges_the_summary_of_rule_rows(judged: list[tuple[str, str]]) -> None:
    rule, general = make_prompt(), make_prompt("toy-2", reward="helpful")
    columns = make_columns(rule, rule, rule, rule, general)
    completions = ["<think>5</think>4", "<think>4</think>5", "<think>4", "<think>a</think>broken", "<think></think>4"]
    assert accuracy.reward(completions, **columns) == [1.0, 0.0, 0.0, None, None]
    assert ("2 + 2?", "4") in judged


def test_accuracy_judges_equal_summaries_of_a_prompt_once(judged: list[tuple[str, str]]) -> None:
    first, second = make_prompt(), make_prompt("toy-2", answer="5")
    columns = make_columns(first, first, second)
    completions = [assistant_turn(f"<think>{n}</think> 4 ") for n in range(3)]
    assert accuracy.reward(completions, **columns) == [1.0, 1.0, 0.0]
    assert len(judged) == 2


def test_accuracy_reports_what_nobody_could_judge(judged: list[tuple[str, str]]) -> None:
    metrics: dict[str, float] = {}
    columns = make_columns(*[make_prompt()] * 4, make_prompt(reward="helpful"))
    completions = ["<think>a</think>4", "<think>b</think>4", "<think>a</think>broken", "<think>a</think>5\u200b", "5"]
    accuracy.reward(completions, log_metric=metrics.__setitem__, **columns)
    shares = {"cannot_judge": 0.25, "judged_before": 0.25, "hidden_characters": 0.25}
    assert metrics == {f"accuracy/{name}": share for name, share in shares.items()}


def test_accuracy_stops_when_too_many_cannot_be_judged(judged: list[tuple[str, str]]) -> None:
    completions = [f"<think>a</think>{'broken' if n < 8 else '4'}" for n in range(32)]
    with pytest.raises(StepError, match="25% of 32 answers could not be judged, expected at most 20%"):
        accuracy.reward(completions, **make_columns(*[make_prompt()] * 32))
    assert accuracy.reward(completions[:20], **make_columns(*[make_prompt()] * 20)).count(None) == 8


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (120, -1.0)])
def test_overlong(tokens: int, expected: float) -> None:
    columns = {"completion_ids": [[7] * tokens], "max_completion_length": [100]}
    assert load_reward("overlong")(["text"], **columns) == [pytest.approx(expected)]


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0.0), (25, -0.25), (100, -1.0)])
def test_length(tokens: int, expected: float) -> None:
    columns = {"completion_ids": [[7] * tokens], "max_completion_length": [100]}
    assert load_reward("length")(["text"], **columns) == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([], 0.0), ([1, 2, 3], 0.0), ([1, 2, 3, 4, 5], 0.0), ([1] * 8, -0.8), ([1, 2, 3, 4] * 2, -0.2)],
)
def test_repetition(ids: list[int], expected: float) -> None:
    assert load_reward("repetition")(["text"], completion_ids=[ids]) == [pytest.approx(expected)]


def test_a_tag_that_the_template_wrote_counts(judged: list[tuple[str, str]]) -> None:
    columns = make_columns(make_prompt(), make_prompt(), make_prompt())
    completions = ["\n2 + 2\n</think>4", "<think>2 + 2</think>4", "2 + 2"]
    reward = load_reward("think_format")
    assert reward(completions, prefill=["<think>\n"] * 3, **columns) == [1.0, 0.0, 0.0]
    assert reward(completions, **columns) == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("rendered", "prefill"),
    [("<user>hi<assistant><think>\n", "<think>\n"), ("<assistant><think>", "<think>"), ("<assistant>", ""), ("", "")],
)
def test_what_a_template_writes_of_a_completion(rendered: str, prefill: str) -> None:
    assert find_prefill(rendered) == prefill


@pytest.mark.parametrize(
    ("text", "reasoning", "expected"),
    [
        ("<think>2 + 2</think>4", "required", True),
        ("<think>\n2 + 2\n</think>\n\n4", "required", True),
        ("<think></think>4", "required", False),
        ("<think> \u200b </think>4", "required", False),
        ("<think>2 + 2</think> \n", "required", False),
        ("<think>2 + 2</think>\u200b", "required", False),
        ("2 + 2</think>4", "required", False),
        ("<think>2 + 2", "required", False),
        ("4", "required", False),
        ("well <think>2 + 2</think>4", "required", False),
        ("<think><think>2 + 2</think>4", "required", False),
        ("<think>2 + 2</think></think>4", "required", False),
        ("<think>2 + 2</think>4<think>", "required", False),
        ("<think>2 + 2</think>4</Think >", "required", False),
        ("<think>2 + 2</think>4 <think never closed", "required", False),
        ("<think></think>Hello!", "none", True),
        ("<think>\n\n</think>\n\nHello!", "none", True),
        ("<think>hm</think>Hello!", "none", False),
        ("<think></think>", "none", False),
        ("Hello!", "none", False),
    ],
)
def test_format(text: str, reasoning: Any, expected: bool) -> None:
    assert has_format(text, reasoning) is expected


def test_format_reward_reads_what_each_row_expects() -> None:
    columns = make_columns(make_prompt(), make_prompt("toy-2", reasoning="none"))
    assert load_reward("think_format")(["<think>a</think>b"] * 2, **columns) == [1.0, 0.0]


def test_language_is_scored_over_the_thoughts_alone() -> None:
    reward = load_reward("language_consistency")
    prompts = [make_prompt(), make_prompt(), make_prompt(), make_prompt(), make_prompt(reasoning="none")]
    completions = [
        "<think>Two plus two equals four.</think>答案是四",
        "<think>二加二等于四。</think>The answer is four",
        "<think></think>The answer is four",
        "<think>2 + 2 = 4</think>The answer is four",
        "<think></think>你好",
    ]
    assert reward(completions, **make_columns(*prompts)) == [1.0, 0.0, 0.0, 0.0, None]


def test_names_of_the_question_may_stay_in_their_script() -> None:
    reward = load_reward("language_consistency")
    prompt = make_prompt(language="zh", question="Tom 有两个苹果")
    completions = ["<think>Tom 有两个苹果</think>2", "<think>Ann 有两个苹果</think>2"]
    assert reward(completions, **make_columns(prompt, prompt)) == [1.0, pytest.approx(5 / 6)]


@pytest.mark.parametrize(
    ("thoughts", "language", "expected"),
    [
        ("先加3：x+3。", "zh", 1.0),
        ("加 3", "zh", 0.0),
        ("the the the the", "en", 0.0),
        ("the and", "fr", 0.0),
        ("17 + 4 = 21", "en", 0.0),
    ],
)
def test_thoughts_need_two_words_of_the_language(thoughts: str, language: str, expected: float) -> None:
    columns = make_columns(make_prompt(language=language))
    assert load_reward("language_consistency")([f"<think>{thoughts}</think>4"], **columns) == [expected]


def test_the_language_reward_logs_what_it_could_not_judge() -> None:
    logged: dict[str, float] = {}
    columns = make_columns(make_prompt(), make_prompt(), make_prompt(reasoning="none"))
    completions = ["<think>We add the two. Zebra quux.</think>4", "<think>2 + 2</think>4", "<think></think>Hi"]
    rewards = load_reward("language_consistency")(completions, **columns, log_metric=logged.__setitem__)
    assert rewards == [1.0, 0.0, None]
    assert logged == {"language/undecided": pytest.approx(2 / 6), "language/empty": 0.5}


def test_rewards_are_named_as_they_are_logged() -> None:
    for name in ("accuracy", "think_format", "language_consistency"):
        assert name in reward_names()
        assert getattr(load_reward(name), "__name__", None) == name


def test_a_reward_outside_the_project(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def brevity(completions, **columns):\n    return [-float(len(c)) for c in completions]\nlimit = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_reward("my_rewards:brevity")(["abc"], domain=["toy"]) == [-3.0]
    with pytest.raises(ConfigError, match="is a int; expected a function"):
        load_reward("my_rewards:limit")
    with pytest.raises(ConfigError, match="cannot be imported"):
        load_reward("my_rewards:missing")
    with pytest.raises(ConfigError, match="cannot be imported"):
        load_reward("no_such_module:brevity")


def test_an_unknown_reward_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'brevity' does not exist.*accuracy"):
        load_reward("brevity")
