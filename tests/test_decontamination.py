import pytest

from stages.decontamination import find_contaminated, make_ngrams, split_words

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
    assert make_ngrams("one two", 3) == set()
    assert make_ngrams("one two three", 3) == {("one", "two", "three")}
