"""The full set put together row by row with sets of words: slow, and simple enough to be believed.

What `stages/assembly.py` is held to. Overlaps are exact here, not estimated.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stages.ngrams import split_words

Ngrams = set[tuple[str, ...]]


@dataclass(frozen=True)
class PlainRow:
    """An accepted answer."""

    id: str
    prompt_id: str
    domain: str
    question: str
    text: str


def make_ngrams(text: str, n: int) -> Ngrams:
    words = split_words(text)
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}


def make_shingles(text: str) -> Ngrams:
    return make_ngrams(text, 5) or {tuple(split_words(text))}


@dataclass
class Seen:
    """What the kept rows of one group hold."""

    sizes: list[int] = field(default_factory=list)
    holders: dict[tuple[str, ...], list[int]] = field(default_factory=lambda: defaultdict(list))

    def is_near(self, shingles: Ngrams, threshold: float) -> bool:
        """Whether an earlier row overlaps by `threshold`; one that does not is remembered."""
        shared = Counter(holder for shingle in shingles for holder in self.holders.get(shingle, ()))
        for holder, count in shared.items():
            if count / (len(shingles) + self.sizes[holder] - count) >= threshold:
                return True
        for shingle in shingles:
            self.holders[shingle].append(len(self.sizes))
        self.sizes.append(len(shingles))
        return False


def assemble_slowly(
    rows: Sequence[PlainRow],
    held_out: Sequence[str],
    scope: str,
    threshold: float,
    per_prompt: int,
    quotas: Mapping[str, int],
    draw: Mapping[str, int],
) -> list[str]:
    """Ids of the rows of the set, in order; `draw` is the place of each id in a draw."""
    banned = set().union(*(make_ngrams(text, 10) for text in held_out))
    whole = {tuple(split_words(text)) for text in held_out}
    seen: dict[str, Seen] = defaultdict(Seen)
    pairs: set[tuple[str, str]] = set()
    left: list[tuple[int, int, PlainRow]] = []
    kept_of: Counter[str] = Counter()
    for row in rows:
        group = seen[row.prompt_id if scope == "prompt" else ""]
        if (row.question, row.text) in pairs:
            continue
        pairs.add((row.question, row.text))
        text = row.text if scope == "prompt" else f"{row.question} {row.text}"
        if group.is_near(make_shingles(text), threshold):
            continue
        if any(
            banned & make_ngrams(part, 10) or tuple(split_words(part)) in whole for part in (row.question, row.text)
        ):
            continue
        kept_of[row.prompt_id] += 1
        if kept_of[row.prompt_id] <= per_prompt:
            left.append((kept_of[row.prompt_id], draw[row.id], row))
    chosen = set()
    for domain, quota in quotas.items():
        own = sorted((rank, place, row.id) for rank, place, row in left if row.domain == domain)
        chosen |= {id for _, _, id in own[:quota]}
    return [row.id for _, _, row in left if row.id in chosen]
