"""Whether a text has no word in another language, told in a fraction of the time that counting its words takes.

Function words are looked up for the whole text at once, and make sure of most segments. The others get the full vote,
and the first one in another language decides.
"""

import re
from collections.abc import Collection
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stages.function_words import languages_of_words
from stages.language import (
    LATIN,
    LONGEST_WORD,
    MIN_WORDS,
    closest_language,
    count_cleaned,
    script_of_language,
)
from stages.notation import clean_text
from stages.vocabulary import Places, Words, load_vocabulary

SIGNS = re.compile(r"[^\x00-\x7f\w\s\u3000-\uffff\U00020000-\U0010ffff]")
"""Neither letters nor characters that count as words; a text with nothing else of Unicode is as good as ASCII."""
END, STOP, SPACE, OTHER = "\n", "\x01", " ", "\x02"
KINDS = {
    **dict.fromkeys("!?;:\n", END),
    **dict.fromkeys(" \t\r\f\v\x1c\x1d\x1e\x1f", SPACE),
    **{letter: letter for letter in "abcdefghijklmnopqrstuvwxyz"},
    ".": STOP,
}
MARKS = "".join(KINDS.get(chr(n), OTHER) for n in range(256)).encode()
"""For each byte of a text: its letters, what ends segments, white space, full stops, and all else."""


def uses_only(text: str, target: str, exclude: Collection[str] = ()) -> bool:
    """Whether the `language_share` of a text is None or 1; raises DataError as `count_words` does."""
    cleaned = clean_text(text)
    plain = cleaned if cleaned.isascii() else SIGNS.sub("#", cleaned)
    if script_of_language(target) == LATIN and plain.isascii() and not any(map(str.isascii, exclude)):
        marked = plain.encode("ascii").translate(MARKS)
        words = load_vocabulary().find(marked)
        if words.lengths.max(initial=0) <= LONGEST_WORD:
            return speaks_only(marked, words, target)
    return not count_cleaned(cleaned, target, exclude).other


def speaks_only(marked: bytes, words: Words, target: str) -> bool:
    """Whether `closest_language` of each segment is the target; those too short to tell are told together."""
    segments = number_segments(marked, words)
    leads = weigh_function_words(target).take(words.numbers, mode="clip")
    is_counted = words.lengths > 1
    is_short = np.bincount(segments, is_counted) < MIN_WORDS
    is_sure = np.bincount(segments, leads) > 0
    for segment in (~is_short & ~is_sure).nonzero()[0].tolist():
        if closest_language(spell(marked, words, is_counted & (segments == segment)), target) != target:
            return False
    short = spell(marked, words, is_counted & is_short[segments])
    return not short or closest_language(short, target) == target


def number_segments(marked: bytes, words: Words) -> Places:
    """The segment of each word."""
    kinds = np.frombuffer(marked, np.uint8)
    is_end = kinds == ord(END)
    # A full stop ends a segment before white space or the end alone.
    is_end[:-1] |= (kinds[:-1] == ord(STOP)) & (kinds[1:] == ord(SPACE))
    return np.searchsorted(is_end.nonzero()[0], words.starts)


@lru_cache
def weigh_function_words(target: str) -> NDArray[np.float64]:
    """Of each of the vocabulary's first words, what it says of a segment, and at the end 0 for all other words.

    A segment is surely in the target where the sum is positive: it has a word of the target alone, and none that the
    target lacks, so that no other language gets as many votes.
    """
    languages = languages_of_words()
    found = [set(languages[word.decode()]) for word in load_vocabulary().first]
    return np.array([1.0 if has == {target} else 0.0 if target in has else -np.inf for has in found] + [0.0])


def spell(marked: bytes, words: Words, chosen: NDArray[np.bool_]) -> list[str]:
    starts, lengths = words.starts[chosen].tolist(), words.lengths[chosen].tolist()
    return [marked[start : start + length].decode("ascii") for start, length in zip(starts, lengths, strict=True)]
