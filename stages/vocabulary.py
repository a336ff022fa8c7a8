"""Words of a text, looked up all at once: several times as fast as a dictionary asked for each.

A word of up to 16 bytes is two integers, which numpy cuts out of the text for all words in a few calls, and a table
says which known word has them. Words that it does not know, or has lost to another one in the same slot, are looked up
in a dictionary.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stages.function_words import languages_of_words

Hashes = NDArray[np.uint64]
Places = NDArray[np.intp]

KEPT_WORDS = 2**17
"""When so many were met, all but the first are forgotten."""
SLOT_BITS = 20
PART = 8
"""Bytes of a word in one integer."""
MULTIPLIER, MULTIPLIER_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
"""Odd, so that multiplying loses nothing."""
SHIFT = np.uint64(64 - SLOT_BITS)
MASKS = np.array([2 ** (8 * length) - 1 for length in range(PART + 1)], np.uint64)
"""The first bytes of an integer."""


@dataclass(frozen=True)
class Words:
    """Words of a text, in order."""

    starts: Places
    lengths: Places
    numbers: NDArray[np.int32]
    """In the vocabulary; equal words have equal ones."""


class Vocabulary:
    """Numbers words as they are met. The first are those that it is made with, which keep their numbers."""

    def __init__(self, words: Iterable[str]) -> None:
        self.first = [word.encode("ascii") for word in words]
        self._forget(0)

    def find(self, text: bytes) -> Words:
        """Words are what stands between bytes up to 32."""
        if len(self.numbers) + len(text) // 2 >= len(self.hashes):
            self._forget(len(text))
        padded = b" %b%b" % (text, bytes(2 * PART))
        is_word = np.frombuffer(padded, np.uint8) > ord(" ")
        (edges,) = (is_word[1:] != is_word[:-1]).nonzero()
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        first, second = cut_parts(padded, starts, lengths)
        slots = (first * MULTIPLIER + second * MULTIPLIER_2) >> SHIFT
        numbers = self.slots.take(slots.view(np.intp))
        known = (self.parts[0].take(numbers) == first) & (self.parts[1].take(numbers) == second)
        known &= lengths <= 2 * PART
        for place in (~known).nonzero()[0].tolist():
            word = text[starts[place] : starts[place] + lengths[place]]
            numbers[place] = self.slots[slots[place]] = self._number(word, (first[place], second[place]))
        return Words(starts, lengths, numbers)

    def _number(self, word: bytes, parts: tuple[np.uint64, np.uint64]) -> int:
        if word not in self.numbers:
            number = self.numbers[word] = len(self.numbers)
            self.hashes[number] = hash_bytes(word)
            # Of a longer one the integers would be those of its first 16 bytes.
            if len(word) <= 2 * PART:
                self.parts[:, number] = parts
        return self.numbers[word]

    def _forget(self, room: int) -> None:
        """All but the first words, and makes room for others."""
        self.slots = np.zeros(2**SLOT_BITS, np.int32)
        self.numbers: dict[bytes, int] = {}
        self.hashes = np.zeros(KEPT_WORDS + room, np.uint64)
        self.parts = np.zeros((2, KEPT_WORDS + room), np.uint64)
        self.find(b" ".join(self.first))


def cut_parts(padded: bytes, starts: Places, lengths: Places) -> list[Hashes]:
    """The first and the second 8 bytes of each word, with zeros after a shorter one."""
    every = np.ndarray(len(padded) - PART, np.dtype("<u8"), padded, offset=1, strides=(1,)).copy()
    return [every.take(starts + skipped) & MASKS.take(lengths - skipped, mode="clip") for skipped in (0, PART)]


def hash_bytes(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


@lru_cache(maxsize=1)
def load_vocabulary() -> Vocabulary:
    """That of this process, which begins with the function words."""
    return Vocabulary(word for word in languages_of_words() if word.isascii())
