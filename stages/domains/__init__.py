"""One file per prompt domain: its rows, its pretraining documents, its rule.

A domain is a module `<id>_domain.py`. It has

- `GROUP`: "reasoning", "general" or "safety", the group it is reported in;
- `LANGUAGES`: the languages it can make rows in;
- `generate(split, count, rng) -> list[Prompt]`: rows of the tiny world;
- `document(prompt, rng) -> str`: the prompt, or one like it, as a pretraining document, with the habits
  (good and bad) that the base model is meant to pick up;
- `verify(prompt, summary) -> float | None`: 1.0 right, 0.0 wrong, None cannot judge, from the
  text after the thoughts;
- `final_answer(prompt, summary) -> str | None`: the answer in a form two samples can agree on;
- `helpfulness(prompt, summary) -> float`: the rule's score from 0 to 10;
- where a question and a short answer are all its rule needs, `READS_FILES = True`: its rows may come from files;
- and, where many are judged more cheaply than one by one, `verify_all(prompts, summaries)`.

Adding a domain is adding a file (and its data card).
"""

import importlib
import pkgutil
import random
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, Protocol, cast

from stages.contract import ConfigError
from stages.rows import Prompt, Split

Group = Literal["reasoning", "general", "safety"]


class Domain(Protocol):
    """What a module in this folder offers."""

    GROUP: Group
    LANGUAGES: tuple[str, ...]

    def generate(self, split: Split, count: int, rng: random.Random) -> list[Prompt]: ...
    def document(self, prompt: Prompt, rng: random.Random) -> str: ...
    def verify(self, prompt: Prompt, summary: str) -> float | None: ...
    def final_answer(self, prompt: Prompt, summary: str) -> str | None: ...
    def helpfulness(self, prompt: Prompt, summary: str) -> float: ...


def domain_names() -> list[str]:
    """Ids of all domains: the files of this folder that end in `_domain.py`."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.removesuffix("_domain") for name in modules if name.endswith("_domain"))


@cache
def load_domain(name: str) -> Domain:
    """The domain with this id. Raises ConfigError naming those that exist."""
    if name not in domain_names():
        raise ConfigError(f"domain '{name}' does not exist; expected one of: {', '.join(domain_names())}")
    return cast(Domain, importlib.import_module(f"{__name__}.{name}_domain"))


def verify_all(name: str, prompts: Sequence[Prompt], summaries: Sequence[str]) -> list[float | None]:
    """Verdicts of one domain's rule on many answers."""
    domain = load_domain(name)
    judge: Any = getattr(domain, "verify_all", None)
    if judge is None:
        return [domain.verify(prompt, summary) for prompt, summary in zip(prompts, summaries, strict=True)]
    return list(judge(prompts, summaries))


def group_of(domain: str) -> Group:
    return load_domain(domain).GROUP


def domain_rng(seed: int, name: str, split: str) -> random.Random:
    """One stream of random numbers per domain and split, so that one domain's size never moves another's rows."""
    return random.Random(f"{seed}/{name}/{split}")
