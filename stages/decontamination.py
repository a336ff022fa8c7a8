"""n-gram overlap with evaluation sets, after the paper's 10-gram rule (R1 v2, appendix D.1).

However many evaluation sets there are, a text is looked up once: the table says which set an n-gram is from.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from stages.ngrams import hash_spans, hash_words
from stages.vocabulary import Hashes

SLOTS_PER_NGRAM = 16
"""Slots of the table that says of most n-grams at once that nobody holds them out; a byte each."""


class HeldOut:
    """Texts that training must not have seen, as hashes of their n-grams and of each text as a whole."""

    def __init__(self, texts: Iterable[tuple[str, str]], n: int) -> None:
        """`texts` are (name of the evaluation set, text), set by set; an n-gram of several counts for the first."""
        names: dict[str, int] = {}
        keys, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int16)]
        for name, text in texts:
            words = hash_words(text)
            # A text without words is equal to none.
            keys.append(hash_spans(words, n)[: len(words)])
            owners.append(np.full(len(keys[-1]), names.setdefault(name, len(names)), np.int16))
        self.n, self.names = n, list(names)
        self.keys, first = np.unique(np.concatenate(keys), return_index=True)
        self.owners = np.concatenate(owners)[first]
        self.mask = np.uint64(2 ** (len(self.keys) * SLOTS_PER_NGRAM).bit_length() - 1)
        self.taken = np.zeros(int(self.mask) + 1, np.bool_)
        self.taken[self.keys & self.mask] = True

    def find(self, words: Hashes) -> str:
        """Name of the evaluation set that a text shares an n-gram with, or equals a text of; empty if there is none."""
        keys = hash_spans(words, self.n)
        keys = keys[self.taken.take((keys & self.mask).view(np.intp))]
        if not len(keys) or not len(self.keys):
            return ""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = places[self.keys[places] == keys]
        return self.names[self.owners[found].min()] if len(found) else ""


def find_contaminated(texts: Sequence[str], held_out: Iterable[str], n: int) -> set[int]:
    """Indices of `texts` that equal a held-out text or share `n` consecutive words with one."""
    index = HeldOut((("held out", text) for text in held_out), n)
    return {number for number, text in enumerate(texts) if index.find(hash_words(text))}
