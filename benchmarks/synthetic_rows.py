"""Accepted answers as a full-size run has them: 4 kB of text, of which a known part is to be dropped."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stages.filters import Candidate
from stages.rows import Prompt, join_completion

NEAR, EXACT, CONTAMINATED, MIXED = 0.20, 0.05, 0.01, 0.05
"""Shares of the rows."""
FUNCTION_WORDS = "the of and to that we then this with from which have when what there they would their".split()
SYLLABLES = "ba ce di fo gu la me ni po ru sa te vi ko zu ha".split()
FOREIGN = "Dann ist es nicht so, und wir sehen das auch mit der Zahl.\n"
SENTENCES, HELD_OUT = 20_000, 2_000
DOMAINS = {"math": 0.5, "code": 0.25, "logic": 0.05, "writing": 0.2}
REMEMBERED = 1000
"""A copy is of one of so many rows before it."""


def make_sentences(rng: random.Random, count: int) -> list[str]:
    """English in its function words, with a vocabulary that has as many rare words as real text."""
    made = ["".join(rng.choices(SYLLABLES, k=rng.choice((2, 3, 3, 4)))) for _ in range(30_000)]
    sentences = []
    for _ in range(count):
        words = [rng.choice(FUNCTION_WORDS if rng.random() < 0.6 else made) for _ in range(12)]
        words[rng.randrange(12)] = str(rng.randrange(10_000))
        sentences.append(" ".join(words).capitalize() + rng.choice((". ", ". ", ".\n")))
    return sentences


def make_held_out(seed: int = 0) -> list[tuple[str, str]]:
    """(evaluation set, question) of four sets."""
    sentences = make_sentences(random.Random(f"{seed}/held out"), 3 * HELD_OUT)
    return [(f"set {n % 4}", "".join(sentences[3 * n : 3 * n + 3])) for n in range(HELD_OUT)]


def make_candidates(
    count: int, characters: int, held_out: Sequence[tuple[str, str]], seed: int = 0
) -> Iterator[Candidate]:
    """`count` answers that their rules have judged to be right, up to four in a row to a prompt.

    Copies are of originals, with their question and an id of their own, so that overlaps stand clear of a threshold.
    """
    rng = random.Random(f"{seed}/rows")
    sentences = make_sentences(rng, SENTENCES)
    originals: list[tuple[Prompt, list[str]]] = []
    prompt, sample = make_prompt(rng, sentences, 0), -1
    for number in range(count):
        draw = rng.random()
        if originals and draw < NEAR + EXACT:
            source, parts = rng.choice(originals)
            asked, parts, place = replace(source, id=f"{source.domain}-copy-{number:07d}"), list(parts), 0
            if draw < NEAR:
                parts[rng.randrange(len(parts))] = f"So {number} it is. "
        else:
            sample = (sample + 1) % 4
            prompt = make_prompt(rng, sentences, number) if sample == 0 else prompt
            asked, parts, place = prompt, rng.choices(sentences, k=max(4, characters // 68)), sample
            forgotten = len(originals) if len(originals) < REMEMBERED else rng.randrange(REMEMBERED)
            originals[forgotten : forgotten + 1] = [(asked, parts)]
        if rng.random() < CONTAMINATED:
            parts = [*parts[:-1], rng.choice(held_out)[1]]
        if rng.random() < MIXED:
            parts = [FOREIGN, *parts[1:]]
        yield Candidate(asked, join_completion("".join(parts), "It is \\boxed{1}."), place, tokens=len(parts) * 15)


def make_prompt(rng: random.Random, sentences: Sequence[str], number: int) -> Prompt:
    domain = rng.choices(list(DOMAINS), list(DOMAINS.values()))[0]
    return Prompt(f"{domain}-train-{number:07d}", domain, "en", "".join(rng.choices(sentences, k=3)), "1")
