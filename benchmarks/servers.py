"""What the `openai` engine costs on this side: requests a second against two servers that answer at once.

    python -m benchmarks.servers CHECKPOINT [--requests N] [--repeats N]

Beside it the same requests sent by the same HTTP library without retries, health checks, queues or seeds. Both
include reading the answers, the engine also tokenizing. The servers are processes of their own and share the machine.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import httpx2

from benchmarks.measurement import print_figure
from stages.engines import Sampling
from stages.engines.openai_engine import OpenAIEngine

SERVERS, IN_FLIGHT = 2, 128
ANSWER = {"choices": [{"text": "4" * 400, "finish_reason": "stop"}], "usage": {"completion_tokens": 200}}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI server that lists one model and has one answer."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    answer = ANSWER if scope["method"] == "POST" else {"data": [{"id": "policy"}]}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description="Requests a second.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    texts = [f"What is {number} + {number % 7}? " * 10 for number in range(given.requests)]
    with ExitStack() as running:
        urls = [start_server(running) for _ in range(SERVERS)]
        engine = OpenAIEngine(given.checkpoint, urls)
        prompts = engine.tokenizer(texts, add_special_tokens=False)["input_ids"]
        sampling = Sampling(n=1, batch_size=IN_FLIGHT, max_completion_length=200)
        sides: dict[str, list[float]] = {"openai engine": [], "bare client": []}
        for _ in range(given.repeats):
            began = time.perf_counter()
            engine.extend(texts, sampling, 0)
            sides["openai engine"].append(len(texts) / (time.perf_counter() - began))
            began = time.perf_counter()
            asyncio.run(ask_barely(urls, prompts))
            sides["bare client"].append(len(texts) / (time.perf_counter() - began))
    print_figure("requests a second, openai engine", median(sides["openai engine"]), "1/s", sides)


def start_server(running: ExitStack) -> str:
    """Base URL of a server that answers and ends with `running`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--log-level", "error"]
    process = subprocess.Popen([sys.executable, "-m", "uvicorn", "benchmarks.servers:app", *options])
    running.callback(process.wait)
    running.callback(process.kill)
    return f"http://127.0.0.1:{port}/v1"


async def ask_barely(urls: Sequence[str], prompts: Sequence[Sequence[int]]) -> None:
    left = iter(enumerate(prompts))

    async def work(client: httpx2.AsyncClient, url: str) -> None:
        for number, prompt in left:
            body = {"model": "policy", "prompt": prompt, "max_tokens": 200, "temperature": 1.0, "seed": number}
            (await client.post(f"{url}/completions", json=body)).json()

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(limits=limits, timeout=60) as client:
        await asyncio.gather(*(work(client, url) for url in urls for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    main(sys.argv[1:])
