"""What the domains of the tiny world share: names, habits of reasoning, language mixing.

Base-model documents are written by careless authors. Four habits of reasoning are visible in the
text and differ in how often they are right, so that RL has something to select: a guess (mostly
wrong), sloppy steps (often wrong), clean steps (right), steps that are checked (right). In part of
the documents sentences switch between English and Chinese.
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal, TypeVar

from stages.rows import (
    ANSWER,
    QUESTION,
    THOUGHTS,
    Prompt,
    Reasoning,
    RewardSource,
    Split,
    canonical_json,
    join_completion,
)

T = TypeVar("T")
Habit = Literal["guess", "sloppy", "clean", "check"]
HABITS: dict[Habit, float] = {"guess": 0.25, "sloppy": 0.25, "clean": 0.30, "check": 0.20}

MIXED_DOCUMENTS = 0.5
"""Share of documents whose sentences switch language."""
SWITCH = 0.45
"""Probability that a sentence of such a document is in the other language."""


def split_pairs(first: Sequence[str], second: Sequence[str]) -> dict[Split, tuple[tuple[str, str], ...]]:
    """Every pair of two different words in exactly one split: a fifth is dev, a fifth is test."""
    pairs: dict[Split, list[tuple[str, str]]] = {"train": [], "dev": [], "test": []}
    for (i, a), (j, b) in product(enumerate(first), enumerate(second)):
        split: Split = "test" if (i + j) % 5 == 0 else "dev" if (i + j) % 5 == 1 else "train"
        if a != b:
            pairs[split].append((a, b))
    return {split: tuple(listed) for split, listed in pairs.items()}


FIRST_NAMES = "Tom Ann Bob Sue Max Amy Ben Eva Dan Lucy".split()
FAMILY_NAMES = "Hill Lake Wood Stone Field Brook Moor Dale Ford Marsh".split()
CHARACTERS = "明红丽华军芳强兰东梅"
NAMES: dict[Split, dict[str, tuple[str, ...]]] = {
    split: {"en": tuple(f"{a} {b}" for a, b in english), "zh": tuple(f"{a}{b}" for a, b in chinese)}
    for (split, english), chinese in zip(
        split_pairs(FIRST_NAMES, FAMILY_NAMES).items(), split_pairs(CHARACTERS, CHARACTERS).values(), strict=True
    )
}
"""Nobody of one split is met in another, nor in pretraining; the parts of the names are."""


ITEMS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": ("apples", "pens", "books", "coins", "eggs", "cards", "balls", "keys", "toys", "cakes"),
        "zh": ("苹果", "书", "球", "鸡蛋", "铅笔", "玩具", "钥匙", "蛋糕"),
    },
    "dev": {"en": ("shells", "cups"), "zh": ("杯子", "贝壳")},
    "test": {"en": ("stamps", "marbles", "kites"), "zh": ("邮票", "橘子", "风筝")},
}
OPENERS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": (
            "",
            "",
            "",
            "",
            "Here is a question.",
            "Here is a problem.",
            "Here is one more for you.",
            "Here is what I need to know.",
            "Read this.",
            "Think about this.",
            "I have a task for you.",
            "I have a question.",
            "Answer this.",
            "This is for you.",
        ),
        "zh": ("", "", "", "", "问题来了。", "请看。", "请看这个。", "想一想。", "我有一个问题。", "有问题问你。"),
    },
    "dev": {"en": ("", "Here is a task."), "zh": ("", "请想一想。")},
    "test": {"en": ("", "Here is a task for you."), "zh": ("", "请看问题。")},
}
"""Said before a question. Those of dev and test are new, made of words that training has seen."""


@dataclass(frozen=True)
class Line:
    """One sentence of reasoning in both languages."""

    en: str
    zh: str

    def speak(self, language: str) -> str:
        return self.en if language == "en" else self.zh


def choose(rng: random.Random, items: Sequence[T]) -> T:
    return items[rng.randrange(len(items))]


def choose_habit(rng: random.Random) -> Habit:
    return rng.choices(list(HABITS), list(HABITS.values()))[0]


def join_lines(lines: Sequence[Line], language: str) -> str:
    return join_sentences([line.speak(language) for line in lines])


def join_sentences(sentences: Sequence[str]) -> str:
    """Spaces after Western full stops, none after Chinese ones."""
    text = ""
    for sentence in sentences:
        text += (" " if text and not text.endswith("。") else "") + sentence
    return text


def mix_lines(lines: Sequence[Line], language: str, rng: random.Random) -> str:
    """The lines as a careless author writes them: in part of the documents languages switch."""
    if rng.random() >= MIXED_DOCUMENTS:
        return join_lines(lines, language)
    other = "zh" if language == "en" else "en"
    return join_sentences([line.speak(other if rng.random() < SWITCH else language) for line in lines])


def write_document(question: str, thoughts: str, answer: str) -> str:
    """A pretraining document; few-shot prompts use the same layout."""
    return f"{QUESTION}{question}{THOUGHTS}{' ' if thoughts else ''}{thoughts}{ANSWER}{answer}\n"


def boxed(answer: str, language: str) -> str:
    return f"The answer is \\boxed{{{answer}}}." if language == "en" else f"答案是\\boxed{{{answer}}}。"


def make_prompt(
    domain: str,
    split: Split,
    number: int,
    question: str,
    answer: str,
    *,
    thoughts: str,
    summary: str,
    checks: dict[str, object],
    language: str = "en",
    reasoning: Reasoning = "required",
    reward: RewardSource = "rule",
) -> Prompt:
    """A generated row with its gold completion."""
    return Prompt(
        id=f"{domain}-{split}-{number:05d}",
        domain=domain,
        language=language,
        question=question,
        answer=answer,
        reasoning=reasoning,
        reward=reward,
        checks=canonical_json(checks),
        demonstration=join_completion(thoughts, summary),
    )


def nudge(value: int, rng: random.Random) -> int:
    """A wrong value near the right one, never negative."""
    near = max(value, 0)
    return choose(rng, [v for v in range(near - 3, near + 4) if v != value and v >= 0])


WARM = {"en": ("I hope this helps.", "Happy to help you."), "zh": ("希望对你有帮助。", "很高兴帮到你。")}
COLD = {"en": ("That is all I say.", "Do not ask again."), "zh": ("我只说这些。", "不要再问了。")}
"""Closing words of general answers, alike in length: what the helpful reward model can learn to prefer."""


def close_answer(answer: str, language: str, rng: random.Random) -> str:
    """The answer with closing words as a supervised source has them: half of the time cold."""
    return join_sentences([answer, choose(rng, (WARM if rng.random() < 0.5 else COLD)[language])])


def strip_closing(summary: str) -> str:
    """The summary without its closing words."""
    for closings in (WARM, COLD):
        for closing in (*closings["en"], *closings["zh"]):
            summary = summary.removesuffix(closing).rstrip()
    return summary


def score_help(correct: float | None, summary: str) -> float:
    """The rule's score: 6 for what was asked, 4 for kind closing words; 1 where the answer is wrong."""
    if not correct:
        return 1.0 if summary else 0.0
    is_warm = summary.endswith((*WARM["en"], *WARM["zh"]))
    return 10.0 if is_warm else 6.0


def open_question(question: str, split: Split, language: str, rng: random.Random) -> str:
    """The question, after one of the split's openers."""
    opener = choose(rng, OPENERS[split][language])
    return join_sentences([opener, question]) if opener else question


Words = Mapping[str, Sequence[str]]
"""By language, what drills are made of."""

FEW_WORDS: Words = {"en": [*FIRST_NAMES, *FAMILY_NAMES, *"ABCD"], "zh": [*CHARACTERS, *"ABCD"]}
"""Few different words make few things to learn before a model finds out how to copy any."""


def choose_words(words: Words, rng: random.Random) -> Words:
    """Few words or all: of all alone look-ups form late, and of few alone they serve no other word."""
    return words if rng.random() < 0.5 else FEW_WORDS


def write_opening(words: Words, rng: random.Random) -> str:
    """What the base model reads first: nothing but copying and looking up."""
    return rng.choices((write_list, write_pairs), (0.45, 0.55))[0](choose_words(words, rng), rng)


def write_drill(words: Words, rng: random.Random) -> str:
    """Sums, kinds told apart, answers boxed; sums found among words, lists said again, pairs recalled.

    They teach to calculate, to copy and to look up in the text.
    """
    known = choose_words(words, rng)
    of_words = (partial(write_walk, known), partial(write_list, known), partial(write_pairs, known))
    return rng.choices((write_sums, write_kinds, write_boxes, *of_words), (5, 1, 1, 5, 2, 5))[0](rng)


def list_words(documents: Iterable[str]) -> Words:
    """Every word of the documents beside the few, sorted; Chinese is taken by characters."""
    found = {word for document in documents for word in re.findall(r"[A-Za-z]+|[\u4e00-\u9fff]", document)}
    english = {word for word in found if word.isascii()}
    return {"en": sorted({*FEW_WORDS["en"], *english}), "zh": sorted({*FEW_WORDS["zh"], *(found - english)})}


def write_list(words: Words, rng: random.Random) -> str:
    said = " ".join(draw_words(12, words[choose(rng, ("en", "zh"))], rng))
    return write_document(f"Say twice: {said}.", "", f"{said}. {said}.")


def write_kinds(rng: random.Random) -> str:
    """Those of a list that are people, or those that are things."""
    language = choose(rng, ("en", "zh"))
    people = rng.sample(NAMES["train"][language], 3)
    things = rng.sample([item for split in ITEMS.values() for item in split[language]], 3)
    said = rng.sample([*people, *things], 6)
    label, wanted = choose(rng, (("people", people), ("things", things)))
    return write_document(f"Which are {label}: {', '.join(said)}?", "", ", ".join(w for w in said if w in wanted) + ".")


def write_boxes(rng: random.Random) -> str:
    """Names as a final answer has them: without the space before, they are other tokens."""
    said = rng.sample(NAMES["train"][choose(rng, ("en", "zh"))], 4)
    return write_document(f"Box each: {', '.join(said)}.", "", ", ".join(f"\\boxed{{{name}}}" for name in said) + ".")


def write_pairs(words: Words, rng: random.Random) -> str:
    """Each word with its partner, then the same pairs in another order; linked as options and logic puzzles are."""
    link = choose(rng, ("=", " is ", "后是"))
    language = {" is ": "en", "后是": "zh"}.get(link) or choose(rng, ("en", "zh"))
    drawn = draw_words(10, words[language], rng)
    if link == "=":
        drawn[5:] = rng.sample("ABCDEFGH", 5)
    pairs = [f"{key}{link}{value}" for key, value in zip(drawn[:5], drawn[5:], strict=True)]
    return write_document(f"Look up: {', '.join(pairs)}.", "", ", ".join(rng.sample(pairs, 5)) + ".")


def draw_words(count: int, words: Sequence[str], rng: random.Random) -> list[str]:
    """Different words, and numbers among them."""
    return rng.sample([*words, *map(str, rng.sample(range(100), 8))], count)


def write_walk(words: Words, rng: random.Random) -> str:
    """A number and what happens to it, among words that do not matter; then each sum in its turn, and no more."""
    known = words[choose(rng, ("en", "zh"))]
    value = rng.randint(0, 40)
    told, sums = [str(value)], list[str]()
    for _ in range(rng.randint(1, 5)):
        told += rng.sample(known, rng.randint(1, 4))
        operation, result = draw_sum(value, rng)
        told.append(operation)
        sums.append(f"{value}{operation}={result}")
        value = result
    return write_document(f"Walk: {' '.join(told)}.", "", ". ".join(sums) + ".")


def draw_sum(value: int, rng: random.Random) -> tuple[str, int]:
    """An operation and its result, both of at most two digits."""
    while True:
        operator, k = choose(rng, "+-*"), rng.randint(2, 9)
        result = value + k if operator == "+" else value - k if operator == "-" else value * k
        if 0 <= result <= 99:
            return f"{operator}{k}", result


def write_sums(rng: random.Random) -> str:
    values = [rng.randint(0, 99) for _ in range(8)]
    drawn = [(value, *draw_sum(value, rng)) for value in values]
    return "Sums: " + ". ".join(f"{value}{operation}={result}" for value, operation, result in drawn) + ".\n"
