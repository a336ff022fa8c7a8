"""What is watched while a policy learns: rewards that pay nobody, accuracy by domain, words of reflection."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from stages.rows import completion_text

RewardFunction = Callable[..., list[float | None]]
ZERO_BATCHES = 10
PENALTIES = ("length", "overlong", "repetition")
"""Rewards of which 0 is the best."""
REFLECTION = {
    "en": re.compile(r"\b(?:wait|mistake|however|but|retry|error|verify|wrong|evaluate|check)\b", re.IGNORECASE),
    "zh": re.compile("等等|等一下|错误|错了|不对|然而|但是|重试|验证|检查|再看"),
}
"""Words of reflection: for English those the paper counts (R1 v2, appendix C.2), for Chinese ours."""
logger = logging.getLogger(__name__)


def monitor_rewards(rewards: Mapping[str, RewardFunction]) -> list[RewardFunction]:
    """The rewards in order, each watched as its name asks."""
    watched = []
    for number, (name, reward) in enumerate(rewards.items()):
        reward = reward if name in PENALTIES else watch_zeros(reward, name)
        reward = report_domains(reward) if name == "accuracy" else reward
        watched.append(report_reflection(reward) if number == 0 else reward)
    return watched


def watch_zeros(reward: RewardFunction, name: str) -> RewardFunction:
    """The reward; the log says why, most likely, when it pays nobody for many batches in a row (open-r1 #420)."""
    batches = 0

    @wraps(reward)
    def watched(*args: Any, **columns: Any) -> list[float | None]:
        nonlocal batches
        values = reward(*args, **columns)
        judged = [value for value in values if value is not None]
        batches = batches + 1 if judged and not any(judged) else 0 if judged else batches
        if batches == ZERO_BATCHES:
            last = completion_text(columns["completions"][-1])
            logger.warning(
                "reward '%s' was 0 for all completions of %d batches in a row; the last one is %.200r. Most often a "
                "chat template writes <think> itself or removes the thoughts, or completions are cut short",
                name,
                batches,
                last,
            )
        return values

    return watched


def report_domains(reward: RewardFunction) -> RewardFunction:
    """The reward; its mean in each domain goes to the log as `accuracy/<domain>`."""

    @wraps(reward)
    def reported(*args: Any, **columns: Any) -> list[float | None]:
        values = reward(*args, **columns)
        domains: dict[str, list[float]] = {}
        for domain, value in zip(columns["domain"], values, strict=True):
            if value is not None:
                domains.setdefault(domain, []).append(value)
        for domain, judged in domains.items():
            columns["log_metric"](f"accuracy/{domain}", sum(judged) / len(judged))
        return values

    return reported


def report_reflection(reward: RewardFunction) -> RewardFunction:
    """The reward; the log gets the words of reflection of a completion, by the language of its prompt."""

    @wraps(reward)
    def reported(*args: Any, **columns: Any) -> list[float | None]:
        for language, counts in count_reflection(columns["completions"], columns["language"]).items():
            columns["log_metric"](f"reflection/{language}", sum(counts) / len(counts))
        return reward(*args, **columns)

    return reported


def count_reflection(completions: Sequence[Any], languages: Sequence[str]) -> dict[str, list[int]]:
    """Words of reflection in each completion, by language, for the languages whose words are known."""
    counts: dict[str, list[int]] = {}
    for completion, language in zip(completions, languages, strict=True):
        if pattern := REFLECTION.get(language):
            counts.setdefault(language, []).append(len(pattern.findall(completion_text(completion))))
    return counts
