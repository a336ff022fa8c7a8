"""Which prompts RL visits: in what proportion, in what order, and how many."""

import random
from collections import Counter

import pytest

from stages.contract import DataError
from stages.mixture import count_visits, draw_prompts, draw_reasoning, share_out
from stages.training.settings import ReinforcementConfig
from tests.micro_model import make_prompts

CONFIG = ReinforcementConfig(steps=10, prompts_per_step=4, minibatches=2)
PROMPTS = [prompt for domain in ("math", "greetings", "stem") for prompt in make_prompts(domain, 30)]


def test_domains_come_in_proportion_from_the_first_steps_on() -> None:
    drawn = draw_reasoning(PROMPTS, 48, CONFIG)
    assert Counter(prompt.domain for prompt in drawn) == {"math": 26, "stem": 22}
    assert {prompt.domain for prompt in drawn[:12]} == {"math", "stem"}
    assert len({prompt.id for prompt in drawn}) == 48


def test_the_order_is_a_matter_of_the_seed() -> None:
    drawn = draw_reasoning(PROMPTS, 40, CONFIG)
    assert drawn == draw_reasoning(PROMPTS, 40, CONFIG)
    assert drawn != draw_reasoning(PROMPTS, 40, CONFIG.model_copy(update={"seed": 1}))


@pytest.mark.parametrize("shares", [{}, {"math": 5.0, "stem": 3.0}])
def test_a_longer_run_begins_as_a_shorter_one(shares: dict[str, float]) -> None:
    config = CONFIG.model_copy(update={"domain_shares": shares})
    assert draw_reasoning(PROMPTS, 100, config)[:37] == draw_reasoning(PROMPTS, 37, config)


def test_domains_without_a_share_leave_nothing_to_draw() -> None:
    with pytest.raises(DataError, match="in a domain with a share"):
        draw_reasoning(PROMPTS, 10, CONFIG.model_copy(update={"domain_shares": {"math": 0.0, "stem": 0.0}}))


def test_a_domain_can_be_left_out() -> None:
    config = CONFIG.model_copy(update={"domain_shares": {"math": 1.0, "stem": 0.0}})
    assert {prompt.domain for prompt in draw_reasoning(PROMPTS, 20, config)} == {"math"}


def test_without_shares_each_prompt_is_drawn_as_often_as_any_other() -> None:
    config = CONFIG.model_copy(update={"domain_shares": {}})
    drawn = draw_reasoning([*make_prompts("math", 30), *make_prompts("stem", 10), *PROMPTS[30:60]], 40, config)
    assert Counter(prompt.domain for prompt in drawn) == {"math": 30, "stem": 10}
    assert {prompt.domain for prompt in drawn[:12]} == {"math", "stem"}


def test_a_small_set_recurs_each_prompt_as_often_as_the_others() -> None:
    visits = Counter(prompt.id for prompt in draw_prompts(make_prompts("math", 3), "rule", 8, random.Random(0)))
    assert sorted(visits.values()) == [2, 3, 3]


@pytest.mark.parametrize(("steps", "visits"), [(10, 40), (9, 40), (1, 8)])
def test_the_last_rollout_is_whole(steps: int, visits: int) -> None:
    """TRL drops what does not fill a rollout, and would start over with the first prompts."""
    assert count_visits(CONFIG.model_copy(update={"steps": steps})) == visits


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_parts_add_up(count: int) -> None:
    parts = share_out(count, {"a": 1.0, "b": 0.0, "c": 2.5, "d": 0.1})
    assert sum(parts.values()) == count and parts["b"] == 0
    assert all(abs(parts[name] - count * share / 3.6) < 1 for name, share in (("a", 1.0), ("c", 2.5), ("d", 0.1)))
