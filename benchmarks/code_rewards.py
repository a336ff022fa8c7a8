"""One-line programs judged a second, against bare starts of the same Python.

    python -m benchmarks.code_rewards [--programs N] [--repeats N]

The bare side starts `python -I -S` with one line of output and nothing else: the least that one process for each
program can cost. The sides take turns, since other work on the machine slows both.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from benchmarks.measurement import print_figure
from stages.sandbox import FunctionCases, Sandbox, find_sandbox
from stages.sandbox_backends import interpreter

TARGET = 150.0
"""Programs a second on two cores."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.code_rewards", description="Programs judged a second.")
    parser.add_argument("--programs", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    backend = find_sandbox().backend
    sides: dict[str, list[float]] = {backend.name: [], "python -I -S": []}
    for _ in range(given.repeats):
        sandbox = Sandbox(backend)
        sides[backend.name].append(measure_rate(lambda number, sandbox=sandbox: judge(sandbox, number), given.programs))
        sides["python -I -S"].append(measure_rate(start_bare, given.programs))
    print_figure("programs judged", median(sides[backend.name]), "1/s", sides, target=TARGET)


def measure_rate(run: Callable[[int], bool], programs: int) -> float:
    """Calls a second with two threads for each core, as code rewards are computed."""
    began = time.perf_counter()
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as threads:
        right = list(threads.map(run, range(programs)))
    if not all(right):
        sys.exit(f"{right.count(False)} of {programs} right programs did not pass")
    return programs / (time.perf_counter() - began)


def judge(sandbox: Sandbox, number: int) -> bool:
    cases = json.dumps([[[x], (x + number) * 3] for x in (1, 4, 7)])
    return sandbox.judge(f"def f(x): return (x+{number})*3", FunctionCases("f", cases)) is True


def start_bare(number: int) -> bool:
    done = subprocess.run([interpreter(), "-I", "-S", "-c", f"print({number})"], capture_output=True, env={})
    return done.stdout == f"{number}\n".encode()


if __name__ == "__main__":
    main(sys.argv[1:])
