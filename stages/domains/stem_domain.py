"""Multiple choice on facts of physics, biology and chemistry; the answer is a letter."""

import json
import random
from collections.abc import Mapping

from stages import math_answers
from stages.domains import Group
from stages.domains.world import (
    Habit,
    Line,
    boxed,
    choose,
    choose_habit,
    join_lines,
    make_prompt,
    mix_lines,
    open_question,
    write_document,
)
from stages.rows import Prompt, Split

GROUP: Group = "reasoning"
LANGUAGES = ("en",)
READS_FILES = True

LETTERS = "ABCD"
FACTS: dict[str, dict[str, str]] = {
    "symbol": {
        "iron": "Fe",
        "gold": "Au",
        "silver": "Ag",
        "copper": "Cu",
        "lead": "Pb",
        "tin": "Sn",
        "zinc": "Zn",
        "neon": "Ne",
        "sodium": "Na",
        "carbon": "C",
        "oxygen": "O",
        "nitrogen": "N",
    },
    "unit": {
        "force": "newton",
        "energy": "joule",
        "power": "watt",
        "charge": "coulomb",
        "pressure": "pascal",
        "current": "ampere",
        "voltage": "volt",
        "time": "second",
    },
    "class": {
        "whale": "mammal",
        "frog": "amphibian",
        "eagle": "bird",
        "snake": "reptile",
        "shark": "fish",
        "ant": "insect",
        "bat": "mammal",
        "duck": "bird",
        "bee": "insect",
        "lizard": "reptile",
    },
}
FRAMES: dict[Split, tuple[str, ...]] = {
    "train": (
        "What is the {r} of {s}?",
        "Name the {r} of {s}.",
        "Give the {r} of {s}.",
        "Which is the {r} of {s}?",
        "I need the {r} of {s}.",
        "Here is a question: the {r} of {s}?",
        "So what is the {r} of {s} then?",
        "Can you tell me the {r} of {s} please?",
        "Say the {r} of {s} for me.",
        "Now name the {r} of {s} again.",
    ),
    "dev": ("Please give the {r} of {s}.",),
    "test": ("Answer what is the {r} of {s} here.", "I need you to name the {r} of {s} now."),
}
STATEMENTS: Mapping[str, Line] = {
    "symbol": Line("The symbol of {s} is {o}.", "{s}的符号是{o}。"),
    "unit": Line("The unit of {s} is {o}.", "{s}的单位是{o}。"),
    "class": Line("The class of {s} is {o}.", "{s}的种类是{o}。"),
}


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    """`count` different questions: facts recur, options and wording do not."""
    prompts: dict[str, Prompt] = {}
    while len(prompts) < count:
        prompt = _make_question(split, len(prompts), rng)
        prompts.setdefault(prompt.question, prompt)
    return list(prompts.values())


def document(prompt: Prompt, rng: random.Random) -> str:
    checks = json.loads(prompt.checks)
    lines, letter = _reason(checks["relation"], checks["subject"], checks["options"], choose_habit(rng), rng)
    return write_document(prompt.question, mix_lines(lines, "en", rng), boxed(letter, "en"))


def verify(prompt: Prompt, summary: str) -> float | None:
    return float(final_answer(prompt, summary) == prompt.answer)


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return math_answers.extract_boxed(summary)


def helpfulness(prompt: Prompt, summary: str) -> float:
    return 10 * (verify(prompt, summary) or 0.0)


def _make_question(split: Split, number: int, rng: random.Random) -> Prompt:
    relation = choose(rng, tuple(FACTS))
    subject = choose(rng, tuple(FACTS[relation]))
    answer = FACTS[relation][subject]
    others = sorted(set(FACTS[relation].values()) - {answer})
    options = [answer, *rng.sample(others, 3)]
    rng.shuffle(options)
    listed = ", ".join(f"{option}={letter}" for letter, option in zip(LETTERS, options, strict=True))
    question = choose(rng, FRAMES[split]).format(r=relation, s=subject)
    lines, letter = _reason(relation, subject, options, "clean", rng)
    return make_prompt(
        "stem",
        split,
        number,
        open_question(f"{question} {listed}.", split, "en", rng),
        letter,
        thoughts=join_lines(lines, "en"),
        summary=boxed(letter, "en"),
        checks={"relation": relation, "subject": subject, "options": options},
    )


def _reason(
    relation: str, subject: str, options: list[str], habit: Habit, rng: random.Random
) -> tuple[list[Line], str]:
    """(sentences, letter); a sloppy author recalls another option's fact half of the time."""
    right = FACTS[relation][subject]
    if habit == "guess":
        letter = choose(rng, LETTERS)
        return [Line(f"I guess it is {letter}.", f"我猜是{letter}。")], letter
    recalled = choose(rng, options) if habit == "sloppy" and rng.random() < 0.6 else right
    statement = STATEMENTS[relation]
    letter = LETTERS[options.index(recalled)]
    words = {"s": subject, "o": f"{'maybe ' if habit == 'sloppy' else ''}{recalled}={letter}"}
    lines = [Line(statement.en.format(**words), statement.zh.format(**words))]
    if habit == "check":
        lines.append(Line(f"Check: {recalled} is option {letter}.", f"检查：{recalled}是选项{letter}。"))
    return lines, letter
