"""Share of a text's words that are in a given language, by script and, within one script, by segment.

What counts. LaTeX, code, links, numbers and single letters (variables) are no words, nor is what
Unicode calls Common or Inherited. Chinese, Japanese and Thai put no spaces between words: there each
character counts, as a segmenter would add its own errors and most Chinese words are one or two
characters. A word with letters of several scripts (a Latin word with a Cyrillic a) is of no language.

Which language. The script tells, except in two cases, which are decided by segment, that is by
sentence or line. One with kana is Japanese, Han characters without kana are Chinese. Latin-script
languages are told by a vote of function words and, where the vote is close, by a classifier of
character n-grams; segments too short for that are told together. A longer segment without any function
word is in none of the known languages. Languages that share another script, such as Russian and
Ukrainian, are not told apart.

Repetition. A segment said again is not counted again, and each distinct word of the target counts at
most max(2, a fifth of the number of distinct words of the target) times; of characters, which vary less,
half of that number. Natural text of ten thousand words hardly reaches the limit, while "the the the"
beside foreign words weighs as two words. A limit relative to the number of all other words would not
do: ten words repeated a hundred times are nine hundred others to each.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, repeat
from typing import TYPE_CHECKING

from stages.contract import DataError
from stages.function_words import languages_of_words
from stages.notation import clean_text

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = r"\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
ALPHABETS = "".join(map(chr, (*range(0x2E80), *range(0xA000, 0xD7B0))))
# As ranges, letters are found twice as fast as by `[^\W\d_]`.
LETTERS = "".join(f"{run[0]}-{run[-1]}" for run in re.findall(r"[^\W\d_]+", ALPHABETS))
SEGMENT_END = re.compile(r"[!?;:\n.](?:(?<!\.)|(?=\s|\Z))\s*")
# Tells in a fraction of the time that there are none of the characters below it.
EASTERN = re.compile("[\u3005-\U0003ffff]")
CHARACTERS = re.compile(f"[{HAN}{KANA}]+")
# Longer runs of letters are no words of any language; cut, they cannot fill a cache.
LONGEST_WORD = 64
WORD = re.compile(f"[{LETTERS}]{{1,{LONGEST_WORD}}}")
ASCII_WORD = re.compile(rf"[a-z]{{2,{LONGEST_WORD}}}")
KANA_CHARACTER = re.compile(f"[{KANA}]")

LATIN = "LATIN"
CJK = "CJK"
MIXED = "MIXED"
VARIABLE = "VARIABLE"
SCRIPTS = {
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl"), LATIN),
    **dict.fromkeys(("ru", "uk", "bg", "sr"), "CYRILLIC"),
    **dict.fromkeys(("zh", "ja"), CJK),
    **dict.fromkeys(("ar", "fa", "ur"), "ARABIC"),
    **dict.fromkeys(("hi", "mr", "ne"), "DEVANAGARI"),
    "ko": "HANGUL",
    "el": "GREEK",
    "he": "HEBREW",
    "th": "THAI",
    "bn": "BENGALI",
    "te": "TELUGU",
    "ta": "TAMIL",
}
"""Script of each language that can be a target, as Unicode character names begin."""
WITH_VARIABLES = (LATIN, "CYRILLIC", "GREEK")
"""Scripts whose single letters are names of variables and points."""
LATIN_LANGUAGES = tuple(sorted(language for language, script in SCRIPTS.items() if script == LATIN))
VOTES = {
    word: sum(256 ** LATIN_LANGUAGES[::-1].index(language) for language in languages)
    for word, languages in languages_of_words().items()
}
"""A vote of a function word for each of its languages, a byte each; distinct words are too few to overflow it."""

SHORT, UNKNOWN = "short", "unknown"
"""In place of a language: of segments too short to tell, and of those in none of the known ones."""
MIN_WORDS = 3
"""Words a segment needs to be told alone, and distinct ones that the classifier needs."""
MAX_WITHOUT_VOTES = 7
"""Distinct words; a longer segment without a function word is in none of the known languages."""
MIN_LEAD = 2
"""Votes by which another language must be ahead of all others; closer ones are left to the classifier."""
MIN_MARGIN = 4.0
"""Log-likelihood by which the classifier must place another language above the target: a wrong no costs a good
completion its reward, a wrong yes a small part of a point."""
LEAST_LIMIT, WORDS_PER_LIMIT, CHARACTERS_PER_LIMIT = 2, 5, 2
"""A target word counts up to the first, or the number of distinct ones over the second, whichever is more."""


@dataclass(frozen=True)
class WordCount:
    """Words of a text: in the target language, with repetition limited, and in others."""

    target: int
    distinct: int
    """Distinct words of the target language."""
    other: int
    undecided: int
    """Words among these that no rule could place."""

    @property
    def total(self) -> int:
        return self.target + self.other

    @property
    def share(self) -> float | None:
        return self.target / self.total if self.total else None


def language_share(text: str, target: str, exclude: Collection[str] = ()) -> float | None:
    """Share of words of language `target` among all words, None if there are none. See `count_words`."""
    return count_words(text, target, exclude).share


def count_words(text: str, target: str, exclude: Collection[str] = ()) -> WordCount:
    """Words in language `target` and others, in as much of a text as `clean_text` reads.

    `exclude` holds words that are not counted, as `foreign_words` gives them. Raises DataError for
    a language whose script is not known.
    """
    return count_cleaned(clean_text(text), target, exclude)


def count_cleaned(cleaned: str, target: str, exclude: Collection[str]) -> WordCount:
    script = script_of_language(target)
    # A segment that is said again adds nothing.
    segments = dict.fromkeys(SEGMENT_END.split(cleaned))
    if script == LATIN:
        return count_by_vote(segments, target, exclude)
    if script == CJK:
        return count_characters(segments, target, exclude)
    words, other = divide_by_script("\n".join(segments), script, exclude)
    return make_count(list(Counter(words).values()), other)


def count_by_vote(segments: Iterable[str], target: str, exclude: Collection[str]) -> WordCount:
    """For a language of the Latin script."""
    said: dict[str, list[str]] = defaultdict(list)
    other = 0
    for segment in segments:
        words, foreign = divide_by_script(segment, LATIN, exclude)
        said[SHORT if len(words) < MIN_WORDS else closest_language(words, target)] += words
        other += foreign
    short = said.pop(SHORT, [])
    said[closest_language(short, target)] += short
    undecided = len(said[UNKNOWN]) + (len(short) if len(short) < MIN_WORDS else 0)
    own = Counter(said.pop(target, ()))
    return make_count(list(own.values()), other + sum(map(len, said.values())), undecided)


def count_characters(segments: Iterable[str], target: str, exclude: Collection[str]) -> WordCount:
    """For Chinese and Japanese."""
    told: dict[str, list[str]] = {"ja": [], "zh": []}
    for segment in segments:
        told["ja" if KANA_CHARACTER.search(segment) else "zh"].append(segment)
    found = {language: find_words("\n".join(parts), exclude) for language, parts in told.items()}
    own, _ = found[target]
    scripts = [script_of_word(word) for _, words in found.values() for word in words]
    other = sum(len(characters) for characters, _ in found.values()) - len(own)
    other += len(scripts) - scripts.count(VARIABLE)
    return make_count(count_each(own), other, distinct_per_limit=CHARACTERS_PER_LIMIT)


def make_count(
    times: Sequence[int], other: int, undecided: int = 0, distinct_per_limit: int = WORDS_PER_LIMIT
) -> WordCount:
    """Counts how often each distinct word of the target is said, up to the limit that their variety sets."""
    limit = max(LEAST_LIMIT, len(times) // distinct_per_limit)
    return WordCount(sum(times) - sum([n - limit for n in times if n > limit]), len(times), other, undecided)


def divide_by_script(text: str, script: str, exclude: Collection[str]) -> tuple[list[str], int]:
    """(words of the script, number of words of other scripts)."""
    characters, words = find_words(text, exclude)
    if script == LATIN and text.isascii():
        return words, 0
    scripts = list(map(script_of_word, words))
    own = list(compress(words, map(script.__eq__, scripts)))
    return own, len(characters) + len(words) - len(own) - scripts.count(VARIABLE)


def find_words(text: str, exclude: Collection[str] = ()) -> tuple[str, list[str]]:
    """(characters of Chinese and Japanese, words of other scripts)."""
    characters = "".join(CHARACTERS.findall(text)) if EASTERN.search(text) else ""
    words = (ASCII_WORD if text.isascii() else WORD).findall(text)
    if exclude:
        characters = "".join(character for character in characters if character not in exclude)
        words = [word for word in words if word not in exclude]
    return characters, words


def count_each(characters: str) -> list[int]:
    """How often each distinct character occurs; several times faster than a Counter of the characters."""
    import numpy as np  # here, so that planning does not wait for it

    # A NUL, which sorts first, makes every character the follower of one.
    codes = np.sort(np.frombuffer(f"\0{characters}".encode("utf-32-le"), np.uint32))
    times: list[int] = np.bincount(np.cumsum(codes[1:] != codes[:-1]))[1:].tolist()
    return times


def script_of_language(language: str) -> str:
    if language not in SCRIPTS:
        raise DataError(f"the script of language '{language}' is not known; expected one of: {', '.join(SCRIPTS)}")
    return SCRIPTS[language]


@lru_cache(maxsize=65536)
def script_of_word(word: str) -> str:
    """Script of a word's letters; MIXED if they differ, VARIABLE for a single letter."""
    scripts = {unicodedata.name(letter, MIXED).split()[0] for letter in word}
    script = scripts.pop() if len(scripts) == 1 else MIXED
    return VARIABLE if len(word) == 1 and script in WITH_VARIABLES else script


def closest_language(words: Iterable[str], target: str) -> str:
    """Latin-script language of the words, or UNKNOWN; the target unless another one is clearly closer."""
    distinct = dict.fromkeys(words)
    votes = count_votes(distinct)
    second, first = sorted(votes)[-2:]
    leader = LATIN_LANGUAGES[votes.index(first)]
    if first - second >= (1 if leader == target else MIN_LEAD):
        return leader
    if first == 0 and len(distinct) > MAX_WITHOUT_VOTES:
        return UNKNOWN
    if len(distinct) < MIN_WORDS:
        return target
    scores: dict[str, float] = dict(load_identifier().rank(" ".join(distinct)))
    best = max(scores, key=lambda language: scores[language])
    return best if scores[best] - scores[target] > MIN_MARGIN else target


def count_votes(distinct: Iterable[str]) -> bytes:
    """Votes of distinct words for each of the Latin-script languages."""
    votes: int = sum(map(VOTES.get, distinct, repeat(0)))
    return votes.to_bytes(len(LATIN_LANGUAGES))


@lru_cache(maxsize=1)
def load_identifier() -> "LanguageIdentifier":
    """The classifier, limited to Latin-script languages; loaded when a text first needs it."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LATIN_LANGUAGES)
    return identifier


@lru_cache(maxsize=4096)
def foreign_words(question: str, target: str) -> frozenset[str]:
    """Words of a question that another script writes, such as names; its thoughts may repeat them."""
    script = script_of_language(target)
    characters, words = find_words(clean_text(question))
    names = [word for word in words if script_of_word(word) not in (script, VARIABLE)]
    return frozenset(names).union(characters if script != CJK else "")
