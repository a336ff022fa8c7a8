"""The accuracy reward against TRL's `accuracy_reward`: the same completions and gold answers on both sides.

    python -m benchmarks.accuracy [--repeats N] [--groups N]

TRL's function is single-threaded; it is measured as shipped and, as the stronger peer, over one process per core.
First a batch in which one answer in a hundred would burn TRL's five seconds. Then both sides, warm; every verdict
that differs is printed.
"""

import argparse
import contextlib
import io
import json
import logging
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.measurement import print_figure
from stages.rewards import load_reward
from stages.rows import Prompt

GROUP = 16
THOUGHTS = "We add the two numbers and check each step again, then we simplify the result. " * 50
"""About 4 kB, as a long chain of thought."""
Score = Callable[[Sequence["Sample"]], list[float | None]]


@dataclass(frozen=True)
class Sample:
    """One completion with its gold answer."""

    group: int
    gold: str
    text: str


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description="Verdicts a second.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--groups", type=int, default=64)
    given = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    workloads: dict[str, Callable[[int], list[Sample]]] = {
        "realistic mix": lambda seed: make_mix(given.groups, seed),
        "algebra, none repeats": lambda seed: make_algebra(given.groups * 4, seed),
    }
    # Before the peer's pool starts a forkserver that has not loaded the parser.
    measure_pathological(given.repeats)
    with multiprocessing.get_context("forkserver").Pool() as pool:
        for name, make in workloads.items():
            sides: dict[str, Score] = {
                "ours": score_ours,
                "trl": score_trl,
                "trl, a process per core": lambda listed: score_trl_in(pool, listed),
            }
            compare(name, make, sides, given.repeats)


def compare(name: str, make: Callable[[int], list[Sample]], sides: dict[str, Score], repeats: int) -> None:
    """Other problems in each repeat, the first of which warms both sides: nothing may be remembered."""
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats + 1):
        samples, verdicts = make(repeat), dict[str, list[float | None]]()
        for side, score in sides.items():
            began = time.perf_counter()
            verdicts[side] = score(samples)
            if repeat:
                rates[side].append(len(samples) / (time.perf_counter() - began))
        print_differences(samples, verdicts["ours"], verdicts["trl"])
    for peer in list(sides)[1:]:
        ratio = median(rates["ours"]) / median(rates[peer])
        print_figure(f"{name}: accuracy, ours to {peer}", ratio, "x", {k: rates[k] for k in ("ours", peer)})


def print_differences(samples: Sequence[Sample], ours: Sequence[float | None], theirs: Sequence[float | None]) -> None:
    different = [(s, a, b) for s, a, b in zip(samples, ours, theirs, strict=True) if a != b]
    print(json.dumps({"name": "verdicts that differ", "value": len(different), "n": len(samples)}))
    for sample, a, b in different:
        answer = sample.text.rpartition("</think>")[2].strip()
        print(json.dumps({"gold": sample.gold, "answer": answer, "ours": a, "trl": b}, ensure_ascii=False))


def measure_pathological(repeats: int) -> None:
    """Seconds for 8,192 completions, of which one in a hundred hangs sympy."""
    rng, seconds, unharmed = random.Random(0), list[float](), list[float]()
    for repeat in range(repeats):
        samples = make_mix(512, repeat)
        hanging = set(rng.sample(range(len(samples)), len(samples) // 100))
        for n in hanging:
            samples[n] = Sample(samples[n].group, r"x\sqrt{2}", wrap(rf"(x+\sqrt{{{n}}}+{repeat}y)^{{999}}"))
        began = time.perf_counter()
        verdicts = score_ours(samples)
        seconds.append(time.perf_counter() - began)
        unharmed.append(sum(v is not None for n, v in enumerate(verdicts) if n not in hanging) / (8192 - len(hanging)))
    print_figure("8,192 completions, 1 % hang", median(seconds), "s", {"ours": seconds}, at_most=20)
    print_figure("the others judged", min(unharmed), "share", {"ours": unharmed}, at_least=1)


def score_ours(samples: Sequence[Sample]) -> list[float | None]:
    prompts = [Prompt(f"math-test-{s.group}-{s.gold}", "math", "en", "What is it?", s.gold).to_row() for s in samples]
    columns: dict[str, Any] = {name: [row[name] for row in prompts] for name in prompts[0] if name != "prompt"}
    asked = [row["prompt"] for row in prompts]
    return load_reward("accuracy")([s.text for s in samples], prompts=asked, **columns)


def score_trl(samples: Sequence[Sample]) -> list[float | None]:
    from trl.rewards import accuracy_reward

    with contextlib.redirect_stderr(io.StringIO()):
        completions = [[{"role": "assistant", "content": s.text}] for s in samples]
        verdicts: list[float | None] = accuracy_reward(completions, [rf"$\boxed{{{s.gold}}}$" for s in samples])
    return verdicts


def score_trl_in(pool: Any, samples: Sequence[Sample]) -> list[float | None]:
    cores = os.cpu_count() or 1
    parts = [samples[n * len(samples) // cores : (n + 1) * len(samples) // cores] for n in range(cores)]
    return [verdict for part in pool.map(score_trl, parts) for verdict in part]


def wrap(answer: str) -> str:
    return f"<think>{THOUGHTS}</think> So the answer is $\\boxed{{{answer}}}$."


def make_mix(groups: int, seed: int) -> list[Sample]:
    """Groups of 16: six in ten with an integer, two with a fraction, 15 % with a root; 5 % of answers unreadable."""
    rng = random.Random(seed)
    return [
        Sample(group, gold, wrap(rng.choice(wrong) if rng.random() < 0.4 else rng.choice(right)))
        for group in range(groups)
        for gold, right, wrong in [draw_answers(rng)]
        for _ in range(GROUP)
    ]


def draw_answers(rng: random.Random) -> tuple[str, list[str], list[str]]:
    """(gold, answers that are right, answers that are not)."""
    a, b = rng.randint(2, 99), rng.choice((3, 7, 11, 13))
    kind = rng.choices(("integer", "fraction", "root", "unreadable"), (60, 20, 15, 5))[0]
    if kind == "integer":
        return str(a), [str(a), f"{a}.0"], [str(a + 1), str(a - 1), f"-{a}"]
    if kind == "fraction":
        right = [rf"\frac{{{a}}}{{{b}}}", rf"\dfrac{{{a}}}{{{b}}}", rf"\frac{{{2 * a}}}{{{2 * b}}}"]
        return right[0], right, [rf"\frac{{{a + 1}}}{{{b}}}", rf"\frac{{{a}}}{{{b + 1}}}", str(a)]
    if kind == "root":
        return draw_root(a, b)
    return str(a), [str(a)], ["", "I do not know", r"\text{none}", "???"]


def draw_root(a: int, b: int) -> tuple[str, list[str], list[str]]:
    right = [rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"\frac{{{a * b}}}{{\sqrt{{{b}}}}}"]
    return right[0], right, [rf"{a + 1}\sqrt{{{b}}}", rf"{a}\sqrt{{{b + 1}}}", str(a)]


def make_algebra(count: int, seed: int) -> list[Sample]:
    """A new expression each time, so that every pair needs a parser and no verdict can be remembered."""
    rng = random.Random(seed)
    return [Sample(n, f"(x+{n})^2", wrap(f"x^2+{2 * n}x+{n * n + rng.randint(0, 1)}")) for n in range(2, count + 2)]


if __name__ == "__main__":
    main(sys.argv[1:])
