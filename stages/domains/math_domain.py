"""Arithmetic word problems of 1-4 operations in English and Chinese, or problems from a file."""

import json
import random
from collections.abc import Sequence
from typing import Literal

from stages import math_answers
from stages.domains import Group
from stages.domains.world import (
    ITEMS,
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
    nudge,
    open_question,
    write_document,
)
from stages.math_verifier import judge_answers
from stages.rows import Prompt, Split

GROUP: Group = "reasoning"
LANGUAGES = ("en", "zh")
READS_FILES = True

Operator = Literal["+", "-", "*"]
Operation = tuple[Operator, int]

LIMIT = 99
STARTS: dict[Split, tuple[range, ...]] = {
    "train": (range(3, 20), range(29, 41)),
    "dev": (range(26, 29),),
    "test": (range(20, 26),),
}
OPERATION_COUNTS = {1: 0.2, 2: 0.35, 3: 0.3, 4: 0.15}
INTRODUCTIONS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": (
            "{n} has {a} {i}.",
            "{n} owns {a} {i}.",
            "{n} holds {a} {i}.",
            "There are {a} {i} in the bag of {n}.",
            "In the bag of {n} there are {a} {i}.",
            "{a} {i} belong to {n}.",
            "Today {n} has {a} {i}.",
            "In the morning {n} has {a} {i}.",
        ),
        "zh": (
            "{n}有{a}个{i}。",
            "{n}带了{a}个{i}。",
            "{n}的包里有{a}个{i}。",
            "今天{n}有{a}个{i}。",
            "{n}家里有{a}个{i}。",
            "有{a}个{i}是{n}的。",
        ),
    },
    "dev": {"en": ("In the morning {n} owns {a} {i}.",), "zh": ("今天{n}带了{a}个{i}。",)},
    "test": {"en": ("In the bag {n} holds {a} {i}.", "Today {n} owns {a} {i}."), "zh": ("今天{n}家里有{a}个{i}。",)},
}
PHRASES: dict[str, dict[Operator, tuple[str, ...]]] = {
    "en": {
        "+": ("{n} buys {k} more", "{n} finds {k} more", "a friend gives {n} {k} more", "{n} gets {k} more"),
        "-": ("{n} gives away {k}", "{n} loses {k}", "{n} sells {k}", "{n} drops {k}"),
        "*": ("the number becomes {k} times as large", "{n} now has {k} times as many"),
    },
    "zh": {
        "+": ("又买了{k}个", "又捡到{k}个", "朋友又给了{k}个"),
        "-": ("送出{k}个", "丢了{k}个", "卖掉{k}个"),
        "*": ("数量变成{k}倍",),
    },
}
LINKS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": (
            "Then {p}.",
            "Next {p}.",
            "Later {p}.",
            "Soon {p}.",
            "After this {p}.",
            "On that day {p}.",
            "Today {p}.",
            "In the morning {p}.",
        ),
        "zh": (
            "然后{p}。",
            "接着{p}。",
            "后来{p}。",
            "之后{p}。",
            "今天{p}。",
            "这时{p}。",
            "有一天{p}。",
            "家里{p}。",
        ),
    },
    "dev": {"en": ("Soon after {p}.",), "zh": ("不久后{p}。",)},
    "test": {"en": ("After that {p}.",), "zh": ("现在{p}。",)},
}
QUESTIONS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": (
            "How many {i} does {n} have?",
            "How many {i} are there now?",
            "How many {i} are left in the end?",
            "Say how many {i} there are.",
            "What is the number of {i} now?",
        ),
        "zh": ("{n}有多少个{i}？", "现在有多少个{i}？", "最后还有几个{i}？", "请问有几个{i}？"),
    },
    "dev": {"en": ("Say how many {i} are left.",), "zh": ("请问现在还有几个{i}？",)},
    "test": {"en": ("In the end how many {i} does {n} have?",), "zh": ("请问{n}最后有多少个{i}？",)},
}


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    """`count` different problems, half in each language."""
    prompts: dict[str, Prompt] = {}
    while len(prompts) < count:
        prompt = _make_problem(split, len(prompts), LANGUAGES[len(prompts) % 2], rng)
        prompts.setdefault(prompt.question, prompt)
    return list(prompts.values())


def document(prompt: Prompt, rng: random.Random) -> str:
    """Three in ten link their events by any words at all, so that a reader learns to look past these."""
    if rng.random() < 0.3:
        prompt = _make_problem("train", 0, prompt.language, rng, wandering=True)
    checks = json.loads(prompt.checks)
    lines, answer = _reason(checks["start"], checks["operations"], choose_habit(rng), rng)
    return write_document(prompt.question, mix_lines(lines, prompt.language, rng), boxed(str(answer), prompt.language))


def verify(prompt: Prompt, summary: str) -> float | None:
    return verify_all([prompt], [summary])[0]


def verify_all(prompts: Sequence[Prompt], summaries: Sequence[str]) -> list[float | None]:
    """Algebra is judged in one batch, an expression that the question already has is no answer to it."""
    answers = [math_answers.extract_boxed(summary) for summary in summaries]
    asked = {
        number: (prompt.answer, answer)
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        if answer is not None and not math_answers.echoes(prompt.question, prompt.answer, answer)
    }
    verdicts = dict(zip(asked, judge_answers(list(asked.values())), strict=True))
    return [None if verdicts.get(n, False) is None else float(bool(verdicts.get(n))) for n in range(len(prompts))]


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return math_answers.extract_boxed(summary)


def helpfulness(prompt: Prompt, summary: str) -> float:
    return 10 * (verify(prompt, summary) or 0.0)


def apply(value: int, operation: Operation) -> int:
    operator, k = operation
    return value + k if operator == "+" else value - k if operator == "-" else value * k


def _make_problem(split: Split, number: int, language: str, rng: random.Random, *, wandering: bool = False) -> Prompt:
    start = choose(rng, [a for span in STARTS[split] for a in span])
    operations = _draw_operations(start, rng)
    name, item = choose(rng, NAMES[split][language]), choose(rng, ITEMS[split][language])
    sentences = [choose(rng, INTRODUCTIONS[split][language]).format(n=name, a=start, i=item)]
    for operator, k in operations:
        phrase = choose(rng, PHRASES[language][operator]).format(n=name, k=k)
        link = _draw_link(language, rng) if wandering else choose(rng, LINKS[split][language])
        sentences.append(link.format(p=phrase))
    sentences.append(choose(rng, QUESTIONS[split][language]).format(n=name, i=item))
    lines, answer = _reason(start, operations, "check", rng)
    return make_prompt(
        "math",
        split,
        number,
        open_question(join_sentences(sentences), split, language, rng),
        str(answer),
        thoughts=join_lines(lines, language),
        summary=boxed(str(answer), language),
        checks={"start": start, "operations": operations},
        language=language,
    )


def _draw_link(language: str, rng: random.Random) -> str:
    words = rng.sample(ITEMS["train"][language], rng.randint(1, 3))
    return " ".join([*words, "{p}."]) if language == "en" else "".join([*words, "{p}。"])


def _draw_operations(start: int, rng: random.Random) -> list[Operation]:
    value, operations = start, list[Operation]()
    for _ in range(rng.choices(list(OPERATION_COUNTS), list(OPERATION_COUNTS.values()))[0]):
        possible: list[Operation] = [("+", k) for k in range(2, 10) if value + k <= LIMIT]
        possible += [("-", k) for k in range(2, 10) if value - k >= 0]
        possible += [("*", k) for k in (2, 3) if value * k <= LIMIT] * 2
        operations.append(choose(rng, possible))
        value = apply(value, operations[-1])
    return operations


def _reason(start: int, operations: Sequence[Operation], habit: Habit, rng: random.Random) -> tuple[list[Line], int]:
    """(sentences, answer) of an author with this habit; `clean` and `check` are right."""
    right = start
    for operation in operations:
        right = apply(right, operation)
    if habit == "guess":
        answer = right if rng.random() < 0.1 else nudge(right, rng)
        return [Line(f"I guess the answer is {answer}.", f"我猜答案是{answer}。")], answer
    lines, value = [Line(f"We start with {start}.", f"开始有{start}个。")], start
    for operation in operations:
        step, value = _reason_step(value, operation, habit, rng)
        lines += step
    return lines, value


def _reason_step(value: int, operation: Operation, habit: Habit, rng: random.Random) -> tuple[list[Line], int]:
    operator, k = operation
    result = apply(value, operation)
    verb = {"+": ("add", "加"), "-": ("take away", "减"), "*": ("multiply by", "乘")}[operator]
    if habit == "sloppy":
        about = nudge(result, rng) if rng.random() < 0.5 else result
        return [Line(f"Then {verb[0]} {k}, about {about}.", f"然后{verb[1]}{k}，大约{about}。")], about
    sum_text = f"{value}{operator}{k}={result}"
    clean = Line(f"Then {verb[0]} {k}: {sum_text}.", f"然后{verb[1]}{k}：{sum_text}。")
    if habit == "clean":
        return [clean], result
    if rng.random() < 0.3:
        slip = f"{value}{operator}{k}={nudge(result, rng)}"
        caught = Line(f"Wait, {sum_text}.", f"等等，{sum_text}。")
        return [Line(f"Then {verb[0]} {k}: {slip}.", f"然后{verb[1]}{k}：{slip}。"), caught], result
    back = {"+": f"{result}-{k}={value}", "-": f"{result}+{k}={value}", "*": f"{result}/{k}={value}"}[operator]
    return [clean, Line(f"Check: {back}.", f"检查：{back}。")], result
