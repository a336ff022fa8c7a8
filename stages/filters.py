"""What a sampled completion must be to enter a training set, each reason counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.language import foreign_words, language_share
from stages.rewards import accuracy, think_format
from stages.rows import Prompt, Row, assistant_turn, split_completion, user_turn


@dataclass(frozen=True)
class Candidate:
    """One sampled completion of one prompt."""

    prompt: Prompt
    text: str
    sample: int
    finish_reason: str = "stop"

    @property
    def key(self) -> str:
        return f"{self.prompt.id}/{self.sample}"

    def to_row(self, source: str) -> Row:
        return {
            "prompt": user_turn(self.prompt.question),
            "completion": assistant_turn(self.text),
            "id": self.key,
            "domain": self.prompt.domain,
            "language": self.prompt.language,
            "source": source,
        }


@dataclass
class Funnel:
    """Counts what each filter drops, in order."""

    sampled: int
    steps: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps.append({"filter": "sampled", "dropped": 0, "left": self.sampled})

    def keep(
        self, name: str, candidates: Sequence[Candidate], condition: Callable[[Candidate], bool]
    ) -> list[Candidate]:
        return self.apply(name, candidates, lambda cs: [c for c in cs if condition(c)])

    def apply(
        self, name: str, candidates: Sequence[Candidate], reduce: Callable[[Sequence[Candidate]], list[Candidate]]
    ) -> list[Candidate]:
        left = reduce(candidates)
        self.steps.append({"filter": name, "dropped": len(candidates) - len(left), "left": len(left)})
        return left


def is_finished(candidate: Candidate) -> bool:
    return candidate.finish_reason == "stop"


def is_readable(candidate: Candidate) -> bool:
    """`<think>..</think>` as the row expects, then a summary."""
    return think_format.reward([candidate.text], reasoning=[candidate.prompt.reasoning])[0] == 1.0


def keep_correct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those their domain's rule accepts, judged in one batch so that programs run side by side."""
    rows = [candidate.prompt.to_row() for candidate in candidates]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    prompts = columns.pop("prompt", [])
    verdicts = accuracy.reward([c.text for c in candidates], prompts=prompts, **columns) if rows else []
    return [candidate for candidate, verdict in zip(candidates, verdicts, strict=True) if verdict == 1.0]


def speaks_one_language(candidate: Candidate) -> bool:
    """No word of the thoughts is in another language; thoughts without words are not objected to."""
    thoughts, _ = split_completion(candidate.text)
    prompt = candidate.prompt
    return language_share(thoughts, prompt.language, foreign_words(prompt.question, prompt.language)) in (None, 1.0)


def limit_per_prompt(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """The first `most` completions of each prompt."""
    kept: Counter[str] = Counter()
    chosen = []
    for candidate in candidates:
        kept[candidate.prompt.id] += 1
        if kept[candidate.prompt.id] <= most:
            chosen.append(candidate)
    return chosen


def drop_duplicates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first of equal completions of one prompt."""
    seen: dict[tuple[str, str], Candidate] = {}
    for candidate in candidates:
        seen.setdefault((candidate.prompt.id, candidate.text), candidate)
    return list(seen.values())
