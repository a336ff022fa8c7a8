"""What a sampled completion must be to enter a training set, each reason counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from stages.language import foreign_words
from stages.rewards import accuracy, think_format
from stages.rows import Prompt, Row, assistant_turn, split_completion, user_turn

if TYPE_CHECKING:
    from stages.vocabulary import Hashes

REPEATED_WORDS = 10
BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no text."""


class TextRules(BaseModel):
    """What the text of a sampled answer may be. The paper names the rules, not their limits."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    longest_paragraph: int = Field(default=4000, ge=1)
    """Characters of a line of the thoughts at most (R1 v2 §3.3.1 drops long paragraphs)."""
    code_domains: tuple[str, ...] = ("code",)
    """Domains whose answers may hold code blocks (R1 v2 §3.3.1 drops them elsewhere)."""
    most_repeated: float = Field(default=0.3, ge=0, le=1)
    """Share of an answer's 10-grams of words, at most, that it has said before."""
    min_tokens: int = Field(default=0, ge=0)
    """Tokens of an answer at least."""
    max_tokens: int | None = None
    """Tokens of an answer at most; null = as many as were sampled."""


@dataclass(frozen=True)
class Candidate:
    """One sampled completion of one prompt."""

    prompt: Prompt
    text: str
    sample: int
    finish_reason: str = "stop"
    tokens: int = 0

    @property
    def key(self) -> str:
        return f"{self.prompt.id}/{self.sample}"

    @cached_property
    def words(self) -> "Hashes":
        from stages.ngrams import hash_words  # here, so that planning does not wait for numpy

        return hash_words(self.text)

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

    count: int
    start: str = "sampled"
    """What the first bar is called."""
    steps: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps.append({"filter": self.start, "dropped": 0, "left": self.count})

    def drop(self, name: str, count: int) -> None:
        self.steps.append({"filter": name, "dropped": count, "left": self.steps[-1]["left"] - count})

    def keep(
        self, name: str, candidates: Sequence[Candidate], condition: Callable[[Candidate], bool]
    ) -> list[Candidate]:
        return self.apply(name, candidates, lambda cs: [c for c in cs if condition(c)])

    def apply(
        self, name: str, candidates: Sequence[Candidate], reduce: Callable[[Sequence[Candidate]], list[Candidate]]
    ) -> list[Candidate]:
        left = reduce(candidates)
        self.drop(name, len(candidates) - len(left))
        return left


def is_finished(candidate: Candidate) -> bool:
    return candidate.finish_reason == "stop"


def is_readable(candidate: Candidate) -> bool:
    """`<think>..</think>` as the row expects, then a summary."""
    return think_format.reward([candidate.text], reasoning=[candidate.prompt.reasoning])[0] == 1.0


def score_answers(candidates: Sequence[Candidate]) -> list[float | None]:
    """Verdicts of the domains' rules, in one batch so that programs run side by side; None = no rule can judge."""
    rows = [candidate.prompt.to_row() for candidate in candidates]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    prompts = columns.pop("prompt", [])
    return accuracy.reward([c.text for c in candidates], prompts=prompts, **columns) if rows else []


def keep_correct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those their domain's rule accepts."""
    verdicts = score_answers(candidates)
    return [candidate for candidate, verdict in zip(candidates, verdicts, strict=True) if verdict == 1.0]


def speaks_one_language(candidate: Candidate) -> bool:
    """No word of the thoughts is in another language; thoughts without words are not objected to."""
    from stages.one_language import uses_only

    thoughts, _ = split_completion(candidate.text)
    prompt = candidate.prompt
    return uses_only(thoughts, prompt.language, foreign_words(prompt.question, prompt.language))


def find_fault_before_judging(candidate: Candidate) -> str:
    """Why an answer need not be judged; empty if it must be."""
    if not is_finished(candidate):
        return "unfinished"
    if BROKEN in candidate.text:
        return "broken text"
    return "" if is_readable(candidate) else "format"


def find_fault_of_style(candidate: Candidate, rules: TextRules) -> str:
    """Why a correct answer is no example to learn from; empty if it is one. Cheap tests come first within each."""
    from stages.ngrams import repeated_share

    thoughts, _ = split_completion(candidate.text)
    if not speaks_one_language(candidate):
        return "mixed language"
    if len(thoughts) > rules.longest_paragraph and max(map(len, thoughts.split("\n"))) > rules.longest_paragraph:
        return "long paragraph"
    if candidate.prompt.domain not in rules.code_domains and "```" in candidate.text:
        return "code block"
    if repeated_share(candidate.words, REPEATED_WORDS) > rules.most_repeated:
        return "repetition"
    fits = rules.min_tokens <= candidate.tokens <= (rules.max_tokens or candidate.tokens)
    return "" if fits else "length"


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
