import random

import pytest

from stages import vocabulary
from stages.ngrams import hash_text, hash_words, split_words

ALIKE = "abcdefg abcdefgh abcdefghi abcdefghijklmnop abcdefghijklmnopq abcdefghijklmnopqr ijklmnop é éa 好 好好"


def test_every_word_has_its_own_hash_whatever_was_met_before() -> None:
    rng = random.Random(0)
    for _ in range(200):
        text = " ".join(rng.choices(ALIKE.split(), k=20))
        assert hash_words(text).tolist() == [hash_text(word) for word in split_words(text)]


def test_words_that_are_forgotten_or_share_a_slot_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "KEPT_WORDS", 60)
    known = vocabulary.Vocabulary(["the", "of"])
    # All words that start alike are in one slot.
    monkeypatch.setattr(vocabulary, "MULTIPLIER", vocabulary.np.uint64(0))
    for start in range(0, 300, 30):
        words = [*map(str, range(start, start + 30)), "of", "the", "nothing"] * 2
        found = known.find(" ".join(words).encode())
        assert known.hashes[found.numbers].tolist() == [hash_text(word) for word in words]
        assert found.numbers[30:32].tolist() == [1, 0], "the first words keep their numbers"
    assert len(known.numbers) < 300
