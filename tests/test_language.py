import random

import pytest

from stages.contract import DataError
from stages.language import count_words, foreign_words, language_share
from stages.notation import MAX_CHARACTERS
from stages.one_language import uses_only


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


GERMAN = "Zuerst addieren wir die beiden Zahlen, dann teilen wir das Ergebnis durch die Anzahl der Kinder. "
CHINESE = "首先我们把两个数加起来，然后用结果除以孩子的人数。"


@pytest.mark.parametrize("foreign", [GERMAN, CHINESE])
@pytest.mark.parametrize(
    ("filler", "distinct"),
    [
        ("the ", 1),
        ("the of ", 2),
        ("the\n", 1),
        ("we add the two numbers and get the sum\n", 8),
        ("We add the two numbers. Then we divide the sum by three. ", 9),
    ],
)
def test_repetition_does_not_raise_the_share(foreign: str, filler: str, distinct: int) -> None:
    once = language_share(f"{foreign}\n{filler}", "en")
    often = language_share(f"{foreign}\n{filler * 1000}", "en")
    words = count_words(foreign, "de" if foreign == GERMAN else "zh").total
    assert once is not None and often is not None
    assert often <= 2 * distinct / (2 * distinct + words)
    assert often == pytest.approx(once) or len(filler.split()) <= 2


@pytest.mark.parametrize("filler", ["好", "好的", "我们加三\n", "我们把两个数加起来。"])
def test_repeated_characters_count_by_their_variety(filler: str) -> None:
    distinct = len(set(filler) - set("\n。"))
    share = language_share(GERMAN + "\n" + filler * 1000, "zh")
    words = count_words(GERMAN, "de").total
    assert share is not None
    assert share <= 2 * distinct / (2 * distinct + words)


def test_foreign_words_count_as_often_as_they_are_said() -> None:
    assert language_share("We add the two numbers. " + "好" * 95, "en") == pytest.approx(5 / 100)


def test_a_sentence_of_no_known_language_is_not_in_the_target() -> None:
    polish = "Następnie dodajemy wszystkie jabłka zebrane wczoraj przez naszych sąsiadów."
    count = count_words(f"We add all the apples. {polish}", "en")
    assert (count.target, count.other, count.undecided) == (5, 9, 9)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        (
            "it",
            "Prima sommiamo i due numeri. Poi dividiamo il risultato per tre. Quindi ogni bambino riceve nove mele.",
        ),
        ("pt", "Primeiro somamos os dois números. Depois dividimos o resultado por três. Então cada um recebe nove."),
        ("nl", "Eerst tellen we de twee getallen op. Daarna delen we de uitkomst door drie. Elk kind krijgt er negen."),
    ],
)
def test_languages_without_real_problems(language: str, text: str) -> None:
    shares = {target: language_share(text, target) for target in ("en", "de", "fr", "es", "it", "pt", "nl")}
    assert shares == {target: float(target == language) for target in shares}


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("हिन्दी में गणित की किताब", "hi", 5),
        ("ไทย", "th", 3),
        ("مُحَمَّد كتاب", "ar", 2),
        ("사과 다섯 개", "ko", 3),
        ("app\u200ble \u202epears", "en", 2),
        ("ｶﾞﾗｽ", "ja", 3),
    ],
)
def test_words_of_other_scripts_are_whole(text: str, target: str, words: int) -> None:
    count = count_words(text, target)
    assert (count.total, count.share) == (words, 1.0)


def test_prose_between_dollar_signs_is_prose() -> None:
    assert language_share("二 $wir addieren dann drei$", "zh") == pytest.approx(1 / 5)
    assert language_share("two $然后加三$", "en") == pytest.approx(1 / 5)
    assert language_share("五 $5 for milk. 五 3$", "zh") == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    "unit",
    [
        "\0",
        "\ud800",
        "a",
        "の",
        "a'",
        "\u0301\u0327",
        "\ufdfa",
        "$",
        "$a ",
        "```",
        "`",
        "\\[",
        "\\(x\\[$",
        "\\begin{a}",
        "\\a{",
        "{",
        "www.",
        "...",
        "<think>",
    ],
)
@pytest.mark.parametrize("target", ["en", "zh"])
def test_ten_megabytes_of_anything_are_read(unit: str, target: str) -> None:
    count = count_words(unit * (10_000_000 // len(unit)), target)
    assert count.undecided <= count.total
    assert count.target <= MAX_CHARACTERS


def test_what_follows_the_characters_that_are_read_does_not_count() -> None:
    assert language_share("五个苹果。" + " " * MAX_CHARACTERS + "apples", "zh") == 1.0


def test_repeating_one_word_earns_no_more_than_the_full_share() -> None:
    assert language_share("apple " * 1000, "en") == 1.0


def test_an_unknown_language_names_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'xx' is not known.*en"):
        language_share("hello", "xx")


def test_the_short_cut_says_what_the_share_says() -> None:
    rng = random.Random(0)
    parts = (
        *(
            "Tom has five apples.",
            "He buys three more of them!",
            "So the sum is 8;",
            "x2y and 3.5 a.b",
            "Yes.",
            "We add 5 to it",
        ),
        *(
            "Der Junge kauft drei Birnen.",
            "Das ist nicht gut.",
            "Le garçon achète trois pommes.",
            "Alors voilà.",
            "Il a dit",
        ),
        *(
            "好的。",
            "He has 苹果",
            "W" * 70 + "der die das und",
            "zzz qqq www",
            "the the the",
            "\\boxed{5}",
            "`so`",
            "i a x",
            "don’t",
            "so 5 × 3 ≈ π — then we see that 😀",
            "naïve\u3099",
        ),
    )
    verdicts = set()
    for _ in range(3000):
        chosen = rng.choices(parts, k=rng.randrange(1, 6))
        text = "".join(part + rng.choice((" ", "\n", "\t", "", ". ", "...", ".\n")) for part in chosen)
        target, exclude = rng.choice(("en", "de", "fr", "zh", "ru")), rng.choice(((), ("苹果",), ("apples", "junge")))
        expected = language_share(text, target, exclude) in (None, 1.0)
        assert uses_only(text, target, exclude) == expected, (text, target, exclude)
        verdicts.add((target, expected))
    assert len(verdicts) >= 9
