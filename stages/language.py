"""Share of a text's words that are in a given language, by script and, within one script, by sentence.

LaTeX, code, links, numbers and single-letter names are not words. Chinese and Japanese are
counted by character, everything else by word. A sentence with kana is Japanese, Han characters
without kana are Chinese. Latin-script languages are told apart by the function words of the
sentence; one too short to tell takes the language of the rest of the text.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from stages.contract import DataError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = r"\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"

NOTATION = re.compile(
    r"```.*?(?:```|\Z)"
    r"|`[^`\n]*`"
    r"|\$\$.*?\$\$|\\\[.*?\\\]|\\\(.*?\\\)"
    # A dollar sign before a space or a digit is an amount, as in "$2 or $3".
    r"|\$(?=\S)[^$\n]*(?<=\S)\$(?!\d)"
    r"|\\begin\{(\w+\*?)\}.*?\\end\{\1\}"
    r"|\\[A-Za-z]+(?:\{[^{}]*\})*"
    r"|(?:https?://|www\.)[^\s\u3000-\u303f\u3040-\u9fff]+",
    re.DOTALL,
)
SEGMENT_END = re.compile(r"[!?;:\n\u3002]+|\.\s")
WORD = re.compile(rf"[{HAN}{KANA}]+|[^\W\d_{HAN}{KANA}]+(?:['\u2019][^\W\d_{HAN}{KANA}]+)*")
KANA_CHARACTER = re.compile(rf"[{KANA}]")
CJK_START = re.compile(rf"[{HAN}{KANA}]")

LATIN = "LATIN"
MIXED = "MIXED"
UNCLEAR = "UNCLEAR"
SCRIPTS = {
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl"), LATIN),
    **dict.fromkeys(("ru", "uk", "bg", "sr"), "CYRILLIC"),
    **dict.fromkeys(("zh", "ja"), "CJK"),
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

LATIN_LANGUAGES = tuple(sorted(language for language, script in SCRIPTS.items() if script == LATIN))
MIN_WORDS = 3
"""Words a sentence needs for its language to be told."""
MIN_MARGIN = 8.0
"""Log-likelihood by which another language must beat the target; with both, 1,000 questions of MGSM score 1.0."""


def language_share(text: str, target: str, exclude: Collection[str] = ()) -> float | None:
    """Share of words of language `target` among all words, None if there are none.

    `exclude` holds words that are not counted, as `foreign_words` gives them. Raises DataError for
    a language whose script is not known.
    """
    counts: Counter[str] = Counter()
    short: list[str] = []
    for segment in SEGMENT_END.split(remove_notation(text)):
        words = [word for word in find_words(segment) if not exclude or word.casefold() not in exclude]
        own_script = count_scripts(words, target, counts)
        if len(own_script) < MIN_WORDS:
            short += own_script
        else:
            counts[closest_language(own_script, target)] += len(own_script)
    if short:
        counts[closest_language(short, target) if len(short) >= MIN_WORDS else target] += len(short)
    total = counts.total()
    return counts[target] / total if total else None


def count_scripts(words: list[str], target: str, counts: Counter[str]) -> list[str]:
    """Adds the words to `counts` by language or script; returns those whose language the sentence decides."""
    script = script_of_language(target)
    undecided = []
    for word, found in zip(words, map(script_of_word, words), strict=True):
        if found == LATIN == script:
            undecided.append(word)
        elif found == "CJK":
            counts["ja" if has_kana(words) else "zh"] += len(word)
        else:
            counts[target if found == script else found] += 1
    return undecided


def has_kana(words: list[str]) -> bool:
    return any(KANA_CHARACTER.search(word) for word in words)


def script_of_language(language: str) -> str:
    if language not in SCRIPTS:
        raise DataError(f"the script of language '{language}' is not known; expected one of: {', '.join(SCRIPTS)}")
    return SCRIPTS[language]


def remove_notation(text: str) -> str:
    return NOTATION.sub(" ", text if text.isascii() else unicodedata.normalize("NFKC", text))


def find_words(text: str) -> Iterator[str]:
    """Words of two letters or more, and runs of Chinese and Japanese characters."""
    return (word for word in WORD.findall(text) if len(word) > 1 or CJK_START.match(word))


@lru_cache(maxsize=65536)
def script_of_word(word: str) -> str:
    """Script of a word's letters; MIXED if they differ, as in a Latin word with a Cyrillic a."""
    if word.isascii():
        return LATIN
    if CJK_START.match(word):
        return "CJK"
    scripts = {unicodedata.name(letter, MIXED).split()[0] for letter in word if letter.isalpha()}
    return scripts.pop() if len(scripts) == 1 else MIXED


def closest_language(words: list[str], target: str) -> str:
    """The Latin-script language of a sentence; the target unless another one is clearly closer."""
    scores = dict(load_identifier().rank(" ".join(words)))
    best = max(scores, key=lambda language: scores[language])
    return best if scores[best] - scores[target] > MIN_MARGIN else target


@lru_cache(maxsize=1)
def load_identifier() -> "LanguageIdentifier":
    """The language identifier, limited to Latin-script languages; loaded when a text first needs it."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LATIN_LANGUAGES)
    return identifier


@lru_cache(maxsize=4096)
def foreign_words(question: str, target: str) -> frozenset[str]:
    """Words of a question that another script writes, such as names; its thoughts may repeat them."""
    script = script_of_language(target)
    return frozenset(
        word.casefold() for word in find_words(remove_notation(question)) if script_of_word(word) != script
    )
