"""Which prompts RL visits, in order: each set and each reasoning domain in its proportion, small ones recurring."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, cycle, islice, pairwise
from itertools import count as count_from
from typing import TypeVar

from stages.contract import ConfigError, DataError
from stages.domains import domain_rng
from stages.rows import Prompt, RewardSource
from stages.training.settings import ReinforcementConfig

Name = TypeVar("Name", bound=str)


def count_visits(config: ReinforcementConfig) -> int:
    """Prompts of all steps; the last rollout is whole, since TRL drops a part of one."""
    rollouts = -(-config.steps // config.minibatches)
    return rollouts * config.minibatches * config.prompts_per_step


def draw_reasoning(prompts: Sequence[Prompt], count: int, config: ReinforcementConfig) -> list[Prompt]:
    """`count` rule-rewarded prompts, their domains in proportion everywhere; more of them begin with the same ones.

    Raises ConfigError for a domain that has no share, DataError if there are no prompts.
    """
    rng = domain_rng(config.seed, "reasoning_rl", "order")
    if not config.domain_shares:
        return draw_prompts(prompts, "rule", count, rng)
    domains = sorted({prompt.domain for prompt in prompts if prompt.reward == "rule"})
    for domain in domains:
        if domain not in config.domain_shares:
            raise ConfigError(f"domain_shares has no '{domain}', which has prompts; add it, with 0 to leave it out")
    shares = {domain: config.domain_shares[domain] for domain in domains}
    if not sum(shares.values()):
        raise DataError("the train split has no prompts rewarded by 'rule' in a domain with a share; expected some")
    order = list(islice(interleave(shares), count))
    visits = {
        domain: iter(draw_prompts([p for p in prompts if p.domain == domain], "rule", order.count(domain), rng))
        for domain in domains
    }
    return [next(visits[domain]) for domain in order]


def interleave(shares: Mapping[Name, float]) -> Iterator[Name]:
    """Names without end, at each place the one that is most behind its share: a longer run begins as a shorter one."""
    total, taken = sum(shares.values()), dict.fromkeys(shares, 0)
    for place in count_from(1):
        name = max(shares, key=lambda name: shares[name] / total * place - taken[name])
        taken[name] += 1
        yield name


def draw_prompts(prompts: Sequence[Prompt], source: RewardSource, count: int, rng: random.Random) -> list[Prompt]:
    """`count` prompts of one set, shuffled; a small set recurs."""
    available = [prompt for prompt in prompts if prompt.reward == source]
    if count and not available:
        raise DataError(f"RL needs prompts rewarded by '{source}'; the train split has none")
    rng.shuffle(available)
    return list(islice(cycle(available), count))


def share_out(count: int, shares: Mapping[Name, float]) -> dict[Name, int]:
    """`count` in proportion to the shares; the parts add up to it unless all shares are 0."""
    total = sum(shares.values())
    if not total:
        return {}
    bounds = [round(count * part / total) for part in accumulate(shares.values(), initial=0.0)]
    return {name: end - start for name, (start, end) in zip(shares, pairwise(bounds), strict=True)}
