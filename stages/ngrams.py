"""Words and their n-grams as 64-bit hashes: what duplicates, repetition and contamination are found by.

A text is split and hashed once, and all three read the same numbers. The hashes are the same on every machine and in
every process; two different n-grams share one with a probability of 2^-64.
"""

import re
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

CACHED_WORDS = 2**17
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying loses nothing."""
WORD = re.compile(r"[一-鿿぀-ヿ]|[^\W一-鿿぀-ヿ]+")
# Where all is ASCII, a table and a split find the words several times as fast.
ASCII_WORDS = bytes(ord(chr(n).lower()) if chr(n).isalnum() or chr(n) == "_" else 32 for n in range(128)) + bytes(128)


def split_words(text: str) -> list[str]:
    """Lower-case words; each Chinese or Japanese character counts as one."""
    if text.isascii():
        return text.encode("ascii").translate(ASCII_WORDS).decode("ascii").split()
    return WORD.findall(text.lower())


def hash_text(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


class WordHashes(dict[str, int]):
    """Hashes of words that were met; a dictionary is twice as fast as `lru_cache` for a word it has."""

    def __missing__(self, word: str) -> int:
        if len(self) >= CACHED_WORDS:
            self.clear()
        return self.setdefault(word, hash_text(word))


HASHES = WordHashes()


def hash_words(text: str) -> Hashes:
    """A hash for each word, in order."""
    return np.fromiter(map(HASHES.__getitem__, split_words(text)), np.uint64)


def hash_ngrams(words: Hashes, n: int) -> Hashes:
    """A hash for each `n` consecutive words; none for a shorter text."""
    count = max(0, len(words) - n + 1)
    ngrams = words[:count].copy()
    for offset in range(1, n):
        ngrams *= MULTIPLIER
        ngrams += words[offset : offset + count]
    return ngrams


def hash_whole(words: Hashes) -> int:
    """One hash of all words in their order."""
    return int.from_bytes(blake2b(words.tobytes(), digest_size=8).digest(), "little")


def repeated_share(words: Hashes, n: int) -> float:
    """Share of n-grams that the text has said before; 0 for a text without any."""
    ngrams = np.sort(hash_ngrams(words, n))
    return float(np.count_nonzero(ngrams[1:] == ngrams[:-1]) / max(1, len(ngrams)))
