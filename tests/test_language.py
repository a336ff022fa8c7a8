import pytest

from stages.contract import DataError
from stages.language import foreign_words, language_share


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("Tom has five apples. He buys three more.", "en", 1.0),
        ("小明有五个苹果。", "zh", 1.0),
        ("小明有五个苹果。", "en", 0.0),
        ("Tom has five apples.", "zh", 0.0),
        ("He has 苹果", "en", 0.5),
        ("りんごが五個あります。", "ja", 1.0),
        ("りんごが五個あります。", "zh", 0.0),
        ("她有五个苹果。りんごです。", "ja", 5 / 11),
        ("У Тома пять яблок.", "ru", 1.0),
        ("У Тома пять яблок.", "en", 0.0),
        ("사과 다섯", "ko", 1.0),
        ("Der Junge kauft drei Äpfel. The boy then buys three pears.", "de", 5 / 11),
        ("Le garçon achète trois pommes au marché.", "es", 0.0),
        ("Ｔｏｍ ｈａｓ five apples", "en", 1.0),
    ],
)
def test_share(text: str, target: str, expected: float) -> None:
    assert language_share(text, target) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "12 + 7 = 19", "x + y", "$$a = b$$", "`return x`", "https://example.org/abc", "。！"]
)
@pytest.mark.parametrize("target", ["en", "zh"])
def test_without_words_there_is_no_share(text: str, target: str) -> None:
    assert language_share(text, target) is None


@pytest.mark.parametrize(
    "notation",
    [
        r"\(\text{apples} + x\)",
        r"\[\text{apples}\]",
        r"$\frac{apples}{pears}$",
        r"\boxed{apples}",
        r"\begin{align}apples\end{align}",
        "```python\nprint(apples)\n```",
        "```python\nprint(apples)",
        "`apples`",
        "https://example.org/apples",
    ],
)
def test_notation_is_not_language(notation: str) -> None:
    assert language_share(f"五个苹果 {notation}", "zh") == 1.0


def test_amounts_in_dollars_are_not_latex() -> None:
    assert language_share("五 costs $2 and then 五 costs $3", "zh") == pytest.approx(2 / 6)


def test_a_mixed_script_word_is_of_no_language() -> None:
    disguised = "\u0430pples"  # begins with a Cyrillic a
    assert language_share(f"five {disguised}", "en") == 0.5
    assert language_share(f"five {disguised}", "ru") == 0.0


def test_short_sentences_are_told_together() -> None:
    assert language_share("Oui. Merci. Alors voilà. C'est ça. Bonjour, mes amis.", "en") == 0.0
    assert language_share("Yes. Right.", "fr") == 1.0, "two words are too little to tell"


def test_words_that_the_question_writes_in_another_script_are_left_out() -> None:
    names = foreign_words("Tom 有 5 个苹果，Ann 有 3 个。", "zh")
    assert names == {"tom", "ann"}
    assert language_share("Tom 有苹果。TOM", "zh", exclude=names) == 1.0
    assert foreign_words("Tom has 5 apples.", "en") == frozenset()


def test_repeating_one_word_earns_no_more_than_the_full_share() -> None:
    assert language_share("apple " * 1000, "en") == 1.0


def test_an_unknown_language_names_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'xx' is not known.*en"):
        language_share("hello", "xx")
