"""One-line Python functions, graded by running them on hidden inputs in the sandbox."""

import json
import random
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from stages.contract import count_cores
from stages.domains import Group
from stages.domains.world import (
    Habit,
    Line,
    choose,
    choose_habit,
    join_lines,
    make_prompt,
    mix_lines,
    open_question,
    write_document,
)
from stages.rows import Prompt, Split
from stages.sandbox import FunctionCases, find_sandbox

GROUP: Group = "reasoning"
LANGUAGES = ("en", "zh")

Operator = Literal["+", "-", "*"]
Operation = tuple[Operator, int]

INPUTS = (1, 4, 7)
CONSTANTS: dict[Split, tuple[int, ...]] = {
    "train": tuple(k for k in range(2, 100) if k % 7 not in (2, 6)),
    "dev": tuple(range(16, 100, 7)),
    "test": tuple(range(13, 100, 7)),
}
"""No number of a split is in another one's."""
VERBS: dict[str, dict[Operator, tuple[str, ...]]] = {
    "en": {"+": ("adds {k}",), "-": ("subtracts {k}",), "*": ("multiplies by {k}",)},
    "zh": {"+": ("加{k}",), "-": ("减{k}",), "*": ("乘{k}",)},
}
FRAMES: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": (
            "Write a Python function f(x) that {p}.",
            "Define f(x) in Python: it {p}.",
            "Give a function f(x) that {p} and returns the result.",
            "Make a function f(x) which {p}.",
            "I need f(x): it {p}.",
            "Please write f(x) that {p}.",
        ),
        "zh": ("写一个Python函数f(x)，{p}。", "定义f(x)：{p}。", "请给出函数f(x)，它把x{p}。", "我要f(x)，{p}。"),
    },
    "dev": {"en": ("Please make a function f(x) that {p}.",), "zh": ("请给出f(x)，{p}。",)},
    "test": {
        "en": ("Give f(x) in Python: it {p}.", "I need a function f(x) which {p}."),
        "zh": ("我要一个函数f(x)，{p}。",),
    },
}
THEN: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {"en": (", then ", ", and then ", " and ", " and it ", ", then it "), "zh": ("，然后", "，再")},
    "dev": {"en": (" then ",), "zh": ("，再然后",)},
    "test": {"en": (" and then it ",), "zh": ("，然后再",)},
}


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    """`count` different tasks, half in each language."""
    prompts: dict[str, Prompt] = {}
    while len(prompts) < count:
        prompt = _make_task(split, len(prompts), LANGUAGES[len(prompts) % 2], rng)
        prompts.setdefault(prompt.question, prompt)
    return list(prompts.values())


def document(prompt: Prompt, rng: random.Random) -> str:
    lines, expression = _reason(json.loads(prompt.checks)["operations"], choose_habit(rng), rng)
    return write_document(prompt.question, mix_lines(lines, prompt.language, rng), write_program(expression))


def verify(prompt: Prompt, summary: str) -> float | None:
    source = extract_program(summary)
    if source is None:
        return 0.0
    cases = json.dumps(json.loads(prompt.checks)["cases"])
    passed = find_sandbox().judge(source, FunctionCases("f", cases))
    return None if passed is None else float(passed)


def verify_all(prompts: Sequence[Prompt], summaries: Sequence[str]) -> list[float | None]:
    """Programs side by side, two for each core: half of a start is waiting for the kernel to make namespaces."""
    with ThreadPoolExecutor(2 * count_cores()) as threads:
        return list(threads.map(verify, prompts, summaries))


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return extract_program(summary)


def helpfulness(prompt: Prompt, summary: str) -> float:
    return 10 * (verify(prompt, summary) or 0.0)


def extract_program(summary: str) -> str | None:
    """Source of the one fenced Python block, or None."""
    blocks = re.findall(r"```python\n(.*?)\n?```", summary, flags=re.DOTALL)
    return str(blocks[0]) if len(blocks) == 1 else None


def write_program(expression: str) -> str:
    return f"```python\ndef f(x): return {expression}\n```"


def _make_task(split: Split, number: int, language: str, rng: random.Random) -> Prompt:
    operations: list[Operation] = [
        (choose(rng, ("+", "-", "*")), choose(rng, CONSTANTS[split])) for _ in range(rng.choice((1, 2, 2, 3)))
    ]
    phrases = [choose(rng, VERBS[language][operator]).format(k=k) for operator, k in operations]
    question = choose(rng, FRAMES[split][language]).format(p=choose(rng, THEN[split][language]).join(phrases))
    lines, expression = _reason(operations, "clean", rng)
    return make_prompt(
        "code",
        split,
        number,
        open_question(question, split, language, rng),
        expression,
        thoughts=join_lines(lines, language),
        summary=write_program(expression),
        checks={"operations": operations, "cases": [[[x], _compute(x, operations)] for x in INPUTS]},
        language=language,
    )


def _compute(x: int, operations: list[Operation]) -> int:
    for operator, k in operations:
        x = x + k if operator == "+" else x - k if operator == "-" else x * k
    return x


def _extend(expression: str, operation: Operation) -> str:
    operator, k = operation
    needs_brackets = operator == "*" and expression != "x"
    return f"({expression}){operator}{k}" if needs_brackets else f"{expression}{operator}{k}"


def _reason(operations: list[Operation], habit: Habit, rng: random.Random) -> tuple[list[Line], str]:
    """(sentences, expression); a guess forgets a step, a sloppy author forgets brackets or a sign."""
    if habit == "guess":
        expression = f"x{choose(rng, '+-*')}{operations[-1][1]}"
        return [Line(f"I guess it is {expression}.", f"我猜是{expression}。")], expression
    lines, expression = list[Line](), "x"
    for operator, k in operations:
        verb = {"+": ("add", "加"), "-": ("subtract", "减"), "*": ("multiply by", "乘")}[operator]
        if habit == "sloppy" and rng.random() < 0.5:
            expression = f"{expression}{choose(rng, '+-*')}{k}"
        else:
            expression = _extend(expression, (operator, k))
        sloppy = ("maybe ", "可能是") if habit == "sloppy" else ("", "")
        lines.append(Line(f"To {verb[0]} {k}: {sloppy[0]}{expression}.", f"先{verb[1]}{k}：{sloppy[1]}{expression}。"))
    if habit == "check":
        lines.append(Line(f"Check: {expression}, good.", f"检查：{expression}，对。"))
    return lines, expression
