"""Sampling: how many, in which order, with which seed, and what does not fit."""

from pathlib import Path

import pytest

from stages.contract import ConfigError, Runtime
from stages.engines import Completion, Engine, Sampling, load_engine
from stages.engines.ask import ask
from stages.rows import split_completion

QUESTIONS = ["What is 2+3?", "Tom has 5 apples. How many apples are there now?", "你好，我是小明。", "Hello, I am Tom."]
GREEDY = Sampling(n=1, temperature=0.0, max_completion_length=12)
DRAWN = Sampling(n=3, max_completion_length=12)


@pytest.fixture(scope="module")
def engine(micro_base: Path) -> Engine:
    return load_engine("transformers", micro_base, Runtime(device="cpu"))


def test_greedy_is_deterministic(engine: Engine) -> None:
    assert engine.sample(QUESTIONS, GREEDY, seed=0) == engine.sample(QUESTIONS, GREEDY, seed=1)


def test_sampling_is_a_function_of_the_seed(engine: Engine) -> None:
    first = engine.sample(QUESTIONS, DRAWN, seed=0)
    assert first == engine.sample(QUESTIONS, DRAWN, seed=0)
    assert first != engine.sample(QUESTIONS, DRAWN, seed=1)


def test_n_completions_for_each_question(engine: Engine) -> None:
    groups = engine.sample(QUESTIONS, DRAWN, seed=0)
    assert [len(group) for group in groups] == [3] * 4
    assert len({completion.text for group in groups for completion in group}) > 3
    for completion in (completion for group in groups for completion in group):
        assert 0 < completion.tokens <= 12
        assert completion.finish_reason == "stop" or completion.tokens == 12
        assert "<|" not in completion.text


def test_batches_draw_from_different_random_numbers(engine: Engine) -> None:
    alone = DRAWN.model_copy(update={"batch_size": 1, "n": 1})
    texts = [group[0].text for group in engine.sample(QUESTIONS[:1] * 4, alone, seed=0)]
    assert len(set(texts)) > 1


def test_results_come_back_in_the_order_of_the_questions(engine: Engine) -> None:
    """Batches are by length; the room that is left tells which text a completion belongs to."""
    sampling = Sampling(n=2, batch_size=2, max_completion_length=400)
    texts = ["1" * length for length in (312, 300, 316, 308)]
    reports: list[tuple[int, int]] = []
    groups = engine.extend(texts, sampling, 0, lambda done, total, **metrics: reports.append((done, total)))
    rooms = [max(completion.tokens for completion in group) for group in groups]
    assert rooms == [8, 20, 4, 12]
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_prompt_that_fills_the_context_is_told_and_moves_nothing_else(engine: Engine) -> None:
    too_long = "1" * 400
    groups = engine.sample([too_long, *QUESTIONS], DRAWN, seed=0)
    assert groups[0] == [Completion("", 0, "prompt_too_long")] * 3
    assert groups[1:] == engine.sample(QUESTIONS, DRAWN, seed=0)
    assert engine.sample([too_long], GREEDY, seed=0) == [[Completion("", 0, "prompt_too_long")]]


def test_no_questions_no_answers(engine: Engine) -> None:
    assert engine.sample([], GREEDY, seed=0) == []


def test_one_question_is_answered_greedily(micro_base: Path) -> None:
    runtime = Runtime(device="cpu")
    greedy = Sampling(n=1, temperature=0.0, max_completion_length=2048)
    expected = load_engine("transformers", micro_base, runtime).sample([QUESTIONS[1]], greedy, seed=3)[0][0].text
    assert ask(micro_base, QUESTIONS[1], runtime) == split_completion(expected)


def test_an_unknown_engine_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'vlm' does not exist; expected one of: transformers"):
        load_engine("vlm", tmp_path, Runtime())
