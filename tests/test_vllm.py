"""Sampling with the real vLLM of `make vllm`: inside a step, and behind two servers of which one is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from stages.contract import Runtime
from stages.engines import Completion, Sampling, load_engine
from stages.engines.openai_engine import OpenAIEngine
from stages.rows import Prompt, Row, read_rows, write_rows
from tests.micro_model import make_prompts

pytestmark = pytest.mark.vllm
DOMAINS = ("math", "greetings", "safety", "stem", "logic")
GREEDY = Sampling(n=1, temperature=0.0, max_completion_length=48)
# Small, quiet, offline, and one thread for each server.
ENVIRONMENT = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
SERVER = ("--dtype", "float32", "--enforce-eager", "--generation-config", "vllm", "--no-enable-chunked-prefill")


@pytest.fixture(scope="module")
def vllm_python(root: Path) -> str:
    path = root / ".venv-vllm" / "bin" / "python"
    assert path.exists(), f"{path} does not exist; `make vllm` makes it"
    return str(path)


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """200 ordinary ones, one that leaves a few tokens of the context and one that leaves none."""
    made = [prompt for domain in DOMAINS for prompt in make_prompts(domain, 40, "test")]
    return made + [replace(made[-1], id=f"long-{length}", question="1" * length) for length in (370, 400)]


def evaluate(interpreter: str, engine: str, policy: Path, prompts: list[Prompt], folder: Path) -> list[Row]:
    """Rows of the evaluation step, run as the pipeline runs it, greedily and then drawn."""
    folder.mkdir()
    write_rows([prompt.to_row() for prompt in prompts], folder / "prompts", "test")
    config = {
        "engine": engine,
        "samples": 1,
        "settings": [{"temperature": 0.0}, {"temperature": 1.0}],
        "max_completion_length": GREEDY.max_completion_length,
        "bootstrap_samples": 100,
    }
    spec = {
        "module": "stages.evaluation",
        "config": config,
        "inputs": {"policy": str(policy), "prompts": str(folder / "prompts")},
        "output_dir": str(folder),
        "scratch_dir": str(folder),
        "runtime": Runtime(device="cpu").model_dump(),
        "progress_path": str(folder / "progress"),
        "result_path": str(folder / "result"),
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    command = [interpreter, "-m", "stages", "evaluate_cold_start_sft", "--spec", str(folder / "spec.json")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((folder / "result").read_text())["packages"]["torch"]
    return read_rows(folder, "samples")


def read_completions(rows: list[Row], temperature: float) -> list[Completion]:
    return [
        Completion(row["completion"], row["tokens"], row["finish_reason"])
        for row in rows
        if row["temperature"] == temperature
    ]


def count_equal(ours: list[Completion], theirs: list[Completion]) -> int:
    return sum(a == b for a, b in zip(ours, theirs, strict=True))


@contextmanager
def start_server(python: str, policy: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Base URL and process of a vLLM server that may still be loading; its whole process group ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(policy), *SERVER]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", port, "--served-model-name", "policy"],
            env=ENVIRONMENT,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            httpx2.get(f"{url}/models")
        except httpx2.ConnectError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the server ended: {log.read_text()[-4000:]}")


def check_greedy(ours: list[Completion], theirs: list[Completion]) -> None:
    """At least 99 % of 200 are equal: float32 sums in another order may turn a near tie, on another processor."""
    assert count_equal(ours[:200], theirs) >= 198
    assert 0 < ours[200].tokens < GREEDY.max_completion_length
    assert ours[201] == Completion("", 0, "prompt_too_long")


def test_greedy_tokens_are_those_of_transformers(
    vllm_python: str, servable_base: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    theirs = evaluate(sys.executable, "transformers", servable_base, prompts[:200], tmp_path / "transformers")
    ours = evaluate(vllm_python, "vllm", servable_base, prompts, tmp_path / "vllm")
    greedy, drawn = read_completions(ours, 0.0), read_completions(ours, 1.0)
    check_greedy(greedy, read_completions(theirs, 0.0))
    assert count_equal(drawn, greedy) < 100


def test_a_server_killed_halfway_loses_nothing(
    vllm_python: str, servable_base: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    questions = [prompt.question for prompt in prompts]
    expected = load_engine("transformers", servable_base, Runtime(device="cpu")).sample(questions[:200], GREEDY, 0)
    with ExitStack() as running:
        logs = [tmp_path / "first.log", tmp_path / "second.log"]
        servers = [running.enter_context(start_server(vllm_python, servable_base, log)) for log in logs]
        for (url, process), log in zip(servers, logs, strict=True):
            wait_for(url, process, log)
        reports: list[int] = []

        def kill_halfway(done: int, total: int, **metrics: float | str) -> None:
            reports.append(done)
            if done == total // 2:
                os.killpg(servers[0][1].pid, signal.SIGKILL)

        engine = OpenAIEngine(servable_base, [url for url, _ in servers])
        sampled = engine.sample(questions, GREEDY.model_copy(update={"batch_size": 16}), 0, kill_halfway)
        assert servers[0][1].wait(30) == -signal.SIGKILL and servers[1][1].poll() is None
    # All but the one that leaves no room.
    assert reports == list(range(1, len(questions)))
    # A server leaves out half a character at the end, where a tokenizer writes U+FFFD.
    whole = [replace(completion, text=completion.text.rstrip("\ufffd")) for (completion,) in expected]
    check_greedy([completion for (completion,) in sampled], whole)
