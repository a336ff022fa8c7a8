import random

import pytest

from stages.decontamination import HeldOut, find_contaminated
from stages.ngrams import hash_ngrams, hash_text, hash_words, repeated_share, split_words

TEN = "one two three four five six seven eight nine ten"


def test_chinese_is_counted_by_character() -> None:
    assert split_words("Tom有3个苹果。Buy 10!") == ["tom", "有", "3", "个", "苹", "果", "buy", "10"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Before {TEN.upper()}, after", True),
        (TEN.replace("five", "5"), False),
        (TEN.removesuffix(" ten"), False),
        ("小明有三个苹果然后又买了五个", True),
        ("小红有三个苹果和几支铅笔", False),
    ],
)
def test_ten_words_in_a_row_are_contamination(text: str, found: bool) -> None:
    held_out = [f"Start {TEN} end", "小明有三个苹果然后又买了两个"]
    assert find_contaminated(["unrelated", text], held_out, 10) == ({1} if found else set())


def test_a_short_text_is_found_if_it_is_equal() -> None:
    assert find_contaminated(["What is 2+2?", "what is 2 + 2", "What is 2+3?"], ["What is 2 + 2?"], 10) == {0, 1}


def test_a_text_shorter_than_n_has_no_ngrams() -> None:
    assert len(hash_ngrams(hash_words("one two"), 3)) == 0
    assert len(hash_ngrams(hash_words("one two three"), 3)) == 1


def test_hashes_tell_words_and_their_order_apart_and_nothing_else() -> None:
    text = "Tom, has 3 apples; 小明有三个. has 3 apples"
    ngrams = hash_ngrams(hash_words(text), 3)
    words = split_words(text)
    spelled = [" ".join(words[n : n + 3]) for n in range(len(words) - 2)]
    equal = [[a == b for b in ngrams] for a in ngrams]
    assert equal == [[a == b for b in spelled] for a in spelled]
    assert hash_text("abc") == 0x5995D533D814BBD8, "set artifacts depend on the hash"


@pytest.mark.parametrize("text", ["A b_c, 12 x\x1fy\n\tz!", "it's", "a\x00b", "", "  ", "x²", "naïve ab"])
def test_the_short_cut_for_ascii_finds_the_same_words(text: str) -> None:
    assert split_words(text) == split_words(text + " 好")[:-1]


def test_one_look_up_says_which_evaluation_set_a_text_is_in() -> None:
    sets = [("first", f"{TEN} and more"), ("second", f"so {TEN}"), ("second", "What is 2+2?"), ("third", "a b")]
    held_out = HeldOut(sets, 10)
    assert held_out.find(hash_words(f"x {TEN} y")) == "first"
    assert held_out.find(hash_words("what is 2 2")) == "second"
    assert held_out.find(hash_words("a b")) == "third"
    assert held_out.find(hash_words("a b c")) == held_out.find(hash_words("")) == ""
    assert HeldOut([], 10).find(hash_words(TEN)) == ""


def test_hashed_ngrams_find_what_sets_of_words_find() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abc", k=rng.randrange(14))) for _ in range(400)]
    held_out, asked = texts[:100], texts[100:]

    def spell(text: str) -> set[tuple[str, ...]]:
        words = split_words(text)
        return {tuple(words[n : n + 4]) for n in range(len(words) - 3)} | ({tuple(words)} if words else set())

    known = set().union(*map(spell, held_out))
    expected = {number for number, text in enumerate(asked) if known & spell(text)}
    assert find_contaminated(asked, held_out, 4) == expected and 0 < len(expected) < len(asked)


def test_repetition_is_the_share_of_ngrams_said_before() -> None:
    assert repeated_share(hash_words("a b c d"), 2) == 0
    assert repeated_share(hash_words("a b a b a b"), 2) == pytest.approx(3 / 5)
    assert repeated_share(hash_words("a"), 2) == repeated_share(hash_words(""), 2) == 0
