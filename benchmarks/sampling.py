"""Sampling on a CPU: the `cpu` engine against `generate` of transformers and, where it is, vLLM, on one checkpoint.

    python -m benchmarks.sampling CHECKPOINT [--repeats N]
    .venv-vllm/bin/python -m benchmarks.sampling CHECKPOINT        # after `make vllm`

Each side has a process of its own and the batch size that suits it best of those tried; vLLM makes batches of its own.
All answer the same prompts at the same settings; tokens are counted up to the end of each answer. Last, the share of
prompts with equal greedy answers of the first two.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measurement import print_figure
from stages.contract import Runtime
from stages.domains import domain_names, domain_rng, load_domain
from stages.engines import Engine, Sampling, load_engine

PROMPTS_PER_DOMAIN = 24
BATCH_SIZES = (64, 128, 256)
SETTINGS = {"T 1.0": (1.0, 1.0), "T 0.6": (0.6, 0.95)}
"""Temperature and top-p."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description="Tokens a second on a CPU.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", help="measure this one alone and print what was found")
    given = parser.parse_args(arguments)
    if given.engine:
        print(json.dumps(measure(given.engine, given.checkpoint, given.repeats)))
        return
    names = ["cpu", "transformers", *(["vllm"] if find_spec("vllm") else [])]
    found = {name: measure_apart(name, arguments) for name in names}
    for setting in SETTINGS:
        sides = {name: side["rates"][setting] for name, side in found.items()}
        for peer in names[1:]:
            ratio = median(sides["cpu"]) / median(sides[peer])
            print_figure(f"sampled tokens, {setting}, cpu engine to {peer}", ratio, "x", sides)
    answers = [found[name]["answers"] for name in names[:2]]
    equal = [float(ours == theirs) for ours, theirs in zip(*answers, strict=True)]
    print_figure("equal greedy answers", sum(equal) / len(equal), "share", {"prompts": equal})


def measure_apart(name: str, arguments: Sequence[str]) -> Any:
    command = [sys.executable, "-m", "benchmarks.sampling", *arguments, "--engine", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, checkpoint: Path, repeats: int) -> dict[str, Any]:
    """Tokens per second by setting, and greedy answers."""
    questions = [
        prompt.question
        for domain in domain_names()
        for prompt in load_domain(domain).generate("test", PROMPTS_PER_DOMAIN, domain_rng(0, domain, "test"))
    ]
    engine = load_engine(name, checkpoint, Runtime(device="cpu"))
    rates = {setting: measure_setting(engine, repeats, questions, *values) for setting, values in SETTINGS.items()}
    return {"rates": rates, "answers": answer_greedily(engine, questions)}


def answer_greedily(engine: Engine, questions: Sequence[str]) -> list[str]:
    groups = engine.sample(questions, Sampling(n=1, temperature=0.0, max_completion_length=128), 0)
    return [completion.text for group in groups for completion in group]


def measure_setting(
    engine: Engine, repeats: int, questions: Sequence[str], temperature: float, top_p: float
) -> list[float]:
    """Tokens per second of each repeat, at the best of BATCH_SIZES."""
    rates: list[list[float]] = []
    for batch_size in BATCH_SIZES:
        sampling = Sampling(n=4, temperature=temperature, top_p=top_p, max_completion_length=128, batch_size=batch_size)
        rates.append([])
        for seed in range(repeats):
            began = time.perf_counter()
            groups = engine.sample(questions, sampling, seed)
            tokens = sum(completion.tokens for group in groups for completion in group)
            rates[-1].append(tokens / (time.perf_counter() - began))
    return max(rates, key=median)


if __name__ == "__main__":
    main(sys.argv[1:])
