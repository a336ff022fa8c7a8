"""How far the sandbox's verdicts on HumanEval agree with plain runs of its own test scripts.

    python -m benchmarks.humaneval PROBLEMS

PROBLEMS is HumanEval.jsonl (Chen et al. 2021, arXiv 2107.03374). Canonical solutions have to pass. Each is changed
in up to three ways; a change shows if the program, run together with its tests in one process, fails.
"""

import argparse
import ast
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measurement import print_figure
from stages.sandbox import AssertionScript, find_sandbox
from stages.sandbox_backends import Limits

LIMITS = Limits(wall_seconds=20.0, cpu_seconds=5)
PASSED = b"every assertion held\n"
BOUNDARIES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}

Problem = Mapping[str, str]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.humaneval", description="Verdicts on HumanEval.")
    parser.add_argument("problems", type=Path)
    problems = read_problems(parser.parse_args(arguments).problems)
    began = time.perf_counter()
    passed = [float(verdict is True) for verdict in judge_all([(row, write_solution(row)) for row in problems])]
    seconds = time.perf_counter() - began
    print_figure("canonical solutions that pass", sum(passed) / len(passed), "share", {"solutions": passed})
    print_figure("canonical solutions judged", len(passed) / seconds, "1/s", {"seconds": [seconds]})
    changed = [(row, source) for row in problems for source in change_program(row)]
    plain = run_all(changed)
    verdicts = judge_all(changed)
    caught = [float(verdict is False) for verdict, passes in zip(verdicts, plain, strict=True) if not passes]
    print_figure("changes that show and are caught", sum(caught) / len(caught), "share", {"changes": caught})
    blamed = [float(verdict is not True) for verdict, passes in zip(verdicts, plain, strict=True) if passes]
    print_figure("changes that do not show and are refused", sum(blamed) / len(blamed), "share", {"changes": blamed})


def read_problems(path: Path) -> list[Problem]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_solution(problem: Problem) -> str:
    return problem["prompt"] + problem["canonical_solution"]


def write_tests(problem: Problem) -> AssertionScript:
    """The problem's `check`, and what its prompt defines; one test calls the function by its own name."""
    function = problem["entry_point"]
    script = f"{problem['prompt']}\n    pass\n{function} = candidate\n{problem['test']}\ncheck(candidate)\n"
    return AssertionScript(function, script)


def judge_all(programs: Sequence[tuple[Problem, str]]) -> list[bool | None]:
    sandbox = find_sandbox()
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as threads:
        return list(threads.map(lambda pair: sandbox.judge(pair[1], write_tests(pair[0]), LIMITS), programs))


def run_all(programs: Sequence[tuple[Problem, str]]) -> list[bool]:
    """Whether each passes its tests in one process: the verdict that needs to be met."""

    def passes(pair: tuple[Problem, str]) -> bool:
        row, program = pair
        script = f"{program}\n{row['test']}\ncheck({row['entry_point']})\nprint({PASSED.decode().strip()!r})\n"
        return sandbox.run(script, limits=LIMITS).stdout.endswith(PASSED)

    sandbox = find_sandbox()
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as threads:
        return list(threads.map(passes, programs))


def change_program(problem: Problem) -> Iterator[str]:
    """The canonical solution with a wrong constant, off by one, and with an early return; where it has such a place."""
    for change in (change_constant, change_boundary):
        tree = ast.parse(write_solution(problem))
        if change_first(find_body(tree, problem["entry_point"])[1:], change):
            yield ast.unparse(tree)
    tree = ast.parse(write_solution(problem))
    find_body(tree, problem["entry_point"]).insert(0, ast.Return(ast.Constant(None)))
    yield ast.unparse(tree)


def find_body(tree: ast.Module, function: str) -> list[ast.stmt]:
    return [node.body for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function][-1]


def change_first(body: Sequence[ast.stmt], change: Callable[[ast.AST], bool]) -> bool:
    return any(change(node) for statement in body for node in ast.walk(statement))


def change_constant(node: ast.AST) -> bool:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float | str):
        return False
    node.value = f"{node.value}x" if isinstance(node.value, str) else node.value + 1
    return True


def change_boundary(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare) and (other := BOUNDARIES.get(type(node.ops[0]))):
        node.ops[0] = other()
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        node.args[-1] = ast.BinOp(node.args[-1], ast.Add(), ast.Constant(1))
        return True
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
