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
READS_FILES = True

PLACES = {2: Line("second", "第二"), 3: Line("third", "第三"), 4: Line("fourth", "第四")}
# The words between two names, "behind {a} is {b}", are the same in every wording: a model of a million
# parameters looks up what followed the same words before.
STATEMENTS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": ("Behind {a} is {b}.", "Right behind {a} is {b}.", "Here behind {a} is {b}.", "Just behind {a} is {b}."),
        "zh": ("{a}后是{b}。", "在{a}后是{b}。", "这里{a}后是{b}。"),
    },
    "dev": {"en": ("Here right behind {a} is {b}.",), "zh": ("这时{a}后是{b}。",)},
    "test": {"en": ("Here just behind {a} is {b}.",), "zh": ("这里在{a}后是{b}。",)},
}
QUESTIONS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": (
            "The first is {f}. Who is the {p}?",
            "The first is {f}. Name the {p}.",
            "The first is {f}. Say who is {p}.",
        ),
        "zh": ("第一是{f}。谁是{p}？", "第一是{f}。{p}是谁？", "第一是{f}。请说出{p}。"),
    },
    "dev": {"en": ("The first is {f}. Say the {p}.",), "zh": ("第一是{f}。说出{p}。",)},
    "test": {"en": ("The first is {f}. Name who is the {p}.",), "zh": ("第一是{f}。请说谁是{p}。",)},
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
    order = _draw_people(NAMES[split][language], rng.choice((3, 4)), rng)
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


def _draw_people(names: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """People who share no part of their names, so that each part tells who is meant."""
    while True:
        people = rng.sample(names, count)
        parts = [part for name in people for part in (name.split() if " " in name else name)]
        if len(parts) == len(set(parts)):
            return people


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
        here = PLACES[number]
        lines.append(Line(f"Behind {a} is {maybe[0]}{b}, the {here.en}.", f"{a}后{maybe[1]}是{b}，{here.zh}。"))
        if habit == "check":
            lines.append(Line(f"Check: the {here.en} is {b}.", f"检查：{here.zh}是{b}。"))
    return lines, row[-1]
