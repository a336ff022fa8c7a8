"""n-gram overlap between texts, after the paper's 10-gram rule (R1 v2, appendix D.1)."""

import re
from collections.abc import Iterable, Sequence

WORD = re.compile(r"[一-鿿぀-ヿ]|\w+?(?=[一-鿿぀-ヿ]|\b)")


def split_words(text: str) -> list[str]:
    """Lower-case words; each Chinese or Japanese character counts as one."""
    return WORD.findall(text.lower())


def make_ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = split_words(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def find_contaminated(texts: Sequence[str], held_out: Iterable[str], n: int) -> set[int]:
    """Indices of `texts` that equal a held-out text or share `n` consecutive words with one."""
    exact, ngrams = set[tuple[str, ...]](), set[tuple[str, ...]]()
    for text in held_out:
        exact.add(tuple(split_words(text)))
        ngrams |= make_ngrams(text, n)
    return {
        number
        for number, text in enumerate(texts)
        if tuple(split_words(text)) in exact or not ngrams.isdisjoint(make_ngrams(text, n))
    }
