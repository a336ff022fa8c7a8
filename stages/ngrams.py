"""Words and their n-grams as 64-bit hashes: what duplicates, repetition and contamination are found by.

A text is split and hashed once, and all three read the same numbers. The hashes are the same on every machine and in
every process; two different n-grams share one with a probability of 2^-64.
"""

import re

import numpy as np

from stages.vocabulary import MULTIPLIER, Hashes, hash_bytes, load_vocabulary

EASTERN = re.compile("[一-鿿぀-ヿ]")
WORD = re.compile(r"[一-鿿぀-ヿ]|[^\W一-鿿぀-ヿ]+")
SIGNS = re.compile(r"[^\x00-\x7f\w]+")
WORD_BYTES = bytes(ord(chr(n).lower()) if re.match(r"\w", chr(n)) else 32 for n in range(128)) + bytes(range(128, 256))
"""For each byte of UTF-8 without other signs than those of ASCII: lower case, or a space between words."""


def separate_words(text: str) -> bytes:
    """Lower-case words with spaces between, as UTF-8; each Chinese or Japanese character counts as one."""
    if not text.isascii():
        text = text.lower()
        text = " ".join(WORD.findall(text)) if EASTERN.search(text) else SIGNS.sub(" ", text)
    return text.encode().translate(WORD_BYTES)


def split_words(text: str) -> list[str]:
    return separate_words(text).decode().split()


def hash_text(text: str) -> int:
    return hash_bytes(text.encode("utf-8", "replace"))


def hash_words(text: str) -> Hashes:
    """A hash for each word, in order."""
    vocabulary = load_vocabulary()
    return vocabulary.hashes.take(vocabulary.find(separate_words(text)).numbers)


def hash_ngrams(words: Hashes, n: int) -> Hashes:
    """A hash for each `n` consecutive words; none for a shorter text."""
    count = max(0, len(words) - n + 1)
    ngrams = words[:count].copy()
    for offset in range(1, n):
        ngrams *= MULTIPLIER
        ngrams += words[offset : offset + count]
    return ngrams


def hash_spans(words: Hashes, n: int) -> Hashes:
    """The n-grams of a text; a shorter text is one span as a whole."""
    return hash_ngrams(words, n) if len(words) >= n else np.array([hash_bytes(words.tobytes())], np.uint64)


def repeated_share(words: Hashes, n: int) -> float:
    """Share of n-grams that the text has said before; 0 for a text without any."""
    ngrams = np.sort(hash_ngrams(words, n))
    return float(np.count_nonzero(ngrams[1:] == ngrams[:-1]) / max(1, len(ngrams)))
