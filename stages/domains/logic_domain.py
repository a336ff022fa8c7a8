"""Orderings: people stand in a row, told pair by pair in random order; who is at a given place?"""

import json
import random
from collections.abc import Sequence
from itertools import pairwise

from stages import math_answers
from stages.domains import Group
from stages.domains.world import (
    NAMES,
    Habit,
    Line,
    boxed,
    choose,
    choose_habit,
    join_lines,
    join_sentences,
    make_prompt,
    mix_lines,
    open_question,
    write_document,
)
from stages.rows import Prompt, Split

GROUP: Group = "reasoning"
LANGUAGES = ("en", "zh")

PLACES = {2: Line("second", "第二"), 3: Line("third", "第三"), 4: Line("fourth", "第四")}
STATEMENTS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": ("Behind {a} is {b}.", "Right behind {a} comes {b}.", "After {a} comes {b}.", "Right after {a} is {b}."),
        "zh": ("{a}后面是{b}。", "{a}之后是{b}。", "在{a}后面的是{b}。", "{a}的后面有{b}。"),
    },
    "dev": {"en": ("Behind {a} comes {b}.",), "zh": ("{a}之后有{b}。",)},
    "test": {"en": ("Right behind {a} is {b}.",), "zh": ("在{a}之后的是{b}。",)},
}
QUESTIONS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": ("{f} is first. Who is {p}?", "The first is {f}. Who is the {p}?", "{f} is the first. Name the {p}."),
        "zh": ("{f}是第一。谁是{p}？", "第一是{f}。{p}是谁？", "排第一的是{f}。请说出{p}。"),
    },
    "dev": {"en": ("The first is {f}. Name the {p}.",), "zh": ("第一是{f}。谁是{p}？",)},
    "test": {"en": ("{f} is the first. Who is the {p}?",), "zh": ("排第一的是{f}。谁是{p}？",)},
}


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    """`count` different puzzles, half in each language."""
    prompts: dict[str, Prompt] = {}
    while len(prompts) < count:
        prompt = _make_puzzle(split, len(prompts), LANGUAGES[len(prompts) % 2], rng)
        prompts.setdefault(prompt.question, prompt)
    return list(prompts.values())


def document(prompt: Prompt, rng: random.Random) -> str:
    checks = json.loads(prompt.checks)
    lines, answer = _reason(checks["order"], checks["place"], choose_habit(rng), rng)
    return write_document(prompt.question, mix_lines(lines, prompt.language, rng), boxed(answer, prompt.language))


def verify(prompt: Prompt, summary: str) -> float | None:
    return float(final_answer(prompt, summary) == prompt.answer)


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return math_answers.extract_boxed(summary)


def helpfulness(prompt: Prompt, summary: str) -> float:
    return 10 * (verify(prompt, summary) or 0.0)


def _make_puzzle(split: Split, number: int, language: str, rng: random.Random) -> Prompt:
    order = rng.sample(NAMES[split][language], rng.choice((3, 4)))
    place = rng.randint(2, len(order))
    statements = [choose(rng, STATEMENTS[split][language]).format(a=a, b=b) for a, b in pairwise(order)]
    rng.shuffle(statements)
    question = choose(rng, QUESTIONS[split][language]).format(f=order[0], p=PLACES[place].speak(language))
    lines, answer = _reason(order, place, "clean", rng)
    return make_prompt(
        "logic",
        split,
        number,
        open_question(join_sentences([*statements, question]), split, language, rng),
        answer,
        thoughts=join_lines(lines, language),
        summary=boxed(answer, language),
        checks={"order": order, "place": place},
        language=language,
    )


def _reason(order: Sequence[str], place: int, habit: Habit, rng: random.Random) -> tuple[list[Line], str]:
    """(sentences, answer); a sloppy author loses the thread half of the time."""
    if habit == "guess":
        answer = choose(rng, order)
        return [Line(f"I guess it is {answer}.", f"我猜是{answer}。")], answer
    row = list(order[:place])
    if habit == "sloppy" and rng.random() < 0.6:
        row[1:] = rng.sample(order, place - 1)
    maybe = ("maybe ", "可能") if habit == "sloppy" else ("", "")
    lines = [Line(f"The first is {row[0]}.", f"第一是{row[0]}。")]
    for number, (a, b) in enumerate(pairwise(row), 2):
        lines.append(Line(f"Behind {a} is {maybe[0]}{b}.", f"{a}后面{maybe[1]}是{b}。"))
        if habit == "check":
            lines.append(Line(f"Check: the {PLACES[number].en} is {b}.", f"检查：{PLACES[number].zh}是{b}。"))
    return lines, row[-1]
