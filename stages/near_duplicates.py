"""Near duplicates: texts whose sets of word 5-grams overlap by a given share (Jaccard), told by MinHash.

Of texts alike the first is kept: one is dropped if an earlier text that is kept itself is as close as the threshold.
Candidates share a band of their signatures and are then compared slot by slot, so a common phrase drops nothing.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stages.ngrams import hash_spans
from stages.vocabulary import MULTIPLIER, Hashes

SHINGLE = 5
SLOTS = 128
"""The share of equal slots is the estimate; at 0.8 its standard error is 0.035."""
BAND = 8
"""Slots of a band. With 16 bands a pair of 0.8 is found with 95 %, of 0.85 with 99.3 %, of 0.5 looked at with 6 %."""
SEED = 0
BITS = 32

Signatures = NDArray[np.uint8]


def sign_texts(texts: Sequence[Hashes]) -> Signatures:
    """(texts, SLOTS) of their words.

    The low 8 bits of a slot say enough (b-bit minwise hashing): two others agree once in 256.
    """
    from rensa import RMinHash

    shingles = [hash_spans(words, SHINGLE) for words in texts]
    ends = np.cumsum([0, *map(len, shingles)], dtype=np.uint64)
    flat = np.concatenate([*shingles, np.empty(0, np.uint64)])
    rows = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends, SLOTS, SEED).to_rows()
    return np.array(rows, np.uint32).reshape(-1, SLOTS).astype(np.uint8)


def find_near_duplicates(
    signatures: Signatures, groups: Hashes, among: NDArray[np.intp], threshold: float
) -> NDArray[np.intp]:
    """Those of the rows `among` that are close to an earlier one of them, of the same group, that is kept."""
    rows, buckets = find_collisions(signatures, groups, among)
    dropped: list[int] = []
    leader = np.full(int(buckets.max(initial=-1)) + 1, -1, np.int32)
    others: dict[int, list[int]] = {}
    for row, own in split_by_row(rows, buckets):
        taken = leader[own]
        candidates = {*taken[taken >= 0].tolist(), *(other for b in own.tolist() for other in others.get(b, ()))}
        if candidates and measure_closest(signatures, row, sorted(candidates)) >= threshold:
            dropped.append(row)
            continue
        leader[own[taken < 0]] = row
        for bucket in own[taken >= 0].tolist():
            others.setdefault(bucket, []).append(row)
    return np.array(dropped, np.intp)


def measure_closest(signatures: Signatures, row: int, candidates: Sequence[int]) -> float:
    """Estimated overlap of `row` with the closest of the candidates."""
    return float((signatures[candidates] == signatures[row]).mean(axis=1).max())


def find_collisions(
    signatures: Signatures, groups: Hashes, among: NDArray[np.intp]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(rows, buckets): each row beside each bucket that it shares with another row, by row."""
    pairs, count = [np.empty(0, np.int64)], 0
    for start in range(0, SLOTS, BAND):
        keys = groups[among]
        for column in range(start, start + BAND):
            keys *= MULTIPLIER
            keys += signatures[among, column]
        order = np.argsort(keys)
        equal = np.diff(keys[order]) == 0
        with_next, with_last = np.append(equal, False), np.insert(equal, 0, False)
        shared = (with_next | with_last)[: len(keys)].nonzero()[0]
        buckets = np.cumsum(with_next & ~with_last)[shared] + (count - 1)
        # A row and a bucket in one number each, so that they can be sorted in place.
        pairs.append((among[order[shared]] << BITS) | buckets)
        count = int(buckets.max(initial=count - 1)) + 1
    every = np.concatenate(pairs)
    every.sort()
    return (every >> BITS).astype(np.int32), (every & (2**BITS - 1)).astype(np.int32)


def split_by_row(rows: NDArray[np.int32], buckets: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    ends = np.append(starts[1:], len(rows))[: len(starts)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield int(rows[start]), buckets[start:end]
