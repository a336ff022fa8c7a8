"""A Piston-compatible service, played by a local server that runs what it is sent in the local sandbox."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from stages.contract import ConfigError
from stages.sandbox import AssertionScript, FunctionCases, Sandbox, StreamCases, choose_backends, find_sandbox, holds
from stages.sandbox_backends import Limits, available_backends
from stages.sandbox_service import Service

FAST = Limits(wall_seconds=1.5, cpu_seconds=1)
CASES = FunctionCases("f", "[[[1], 2], [[2], 3]]")
Answer = Callable[[dict[str, Any]], bytes]


@contextmanager
def serve(answer: Answer) -> Iterator[Sandbox]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = answer(task) if self.path == "/api/v2/execute" else b""
            self.send_response(200 if body else 500)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Sandbox(Service(f"http://127.0.0.1:{server.server_port}/api/v2"))
        finally:
            server.shutdown()


def run_task(task: dict[str, Any]) -> bytes:
    result = local_sandbox().run(task["files"][0]["content"], task["stdin"], FAST)
    run = {"stdout": result.stdout.decode(errors="replace"), "code": result.exit_code, "signal": None}
    return json.dumps({"run": {**run, "status": "TO" if result.timed_out else None}}).encode()


def local_sandbox() -> Sandbox:
    return next(sandbox for sandbox in map(Sandbox, available_backends()) if holds(sandbox))


@pytest.fixture(scope="module")
def service() -> Iterator[Sandbox]:
    with serve(run_task) as sandbox:
        yield sandbox


def test_it_judges_as_a_sandbox_of_this_machine_does(service: Sandbox) -> None:
    assert holds(service)
    verdicts = [
        service.judge(source, CASES, FAST)
        for source in (
            "def f(x): return x + 1",
            "def f(x): return x + 1.0",
            "import sys; sys.exit(0)",
            "def f(x) return",
            "while True: pass",
            "x = '\ud800'\ndef f(x): return x + 1",
        )
    ]
    assert verdicts == [True, False, False, False, False, False]


def test_scripts_read_their_input(service: Sandbox) -> None:
    source = "print(int(input()) + 1)"
    assert service.judge(source, StreamCases((("1\n", "2"), ("41", "42"))), FAST) is True
    assert service.judge(source, StreamCases((("1\n", "3"),)), FAST) is False


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not JSON",
        b"[]",
        b"{}",
        b'{"run": {}}',
        b'{"run": {"stdout": null, "code": 0}}',
        b'{"run": {"stdout": "2\\n3\\n", "code": 0}}',
        b'{"run": {"stdout": "", "status": "XX"}}',
    ],
)
def test_a_service_that_fails_is_no_verdict(answer: bytes) -> None:
    with serve(lambda task: answer) as sandbox:
        assert sandbox.judge("def f(x): return x + 1", CASES, FAST) is None
        assert not holds(sandbox)


def answer_late(task: dict[str, Any]) -> bytes:
    time.sleep(0.5)
    return run_task(task)


def test_a_service_that_is_slow_or_gone_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.sandbox_service.PATIENCE_SECONDS", -1.3)
    with serve(answer_late) as sandbox:
        assert sandbox.judge("def f(x): return x + 1", CASES, FAST) is None
    assert sandbox.judge("def f(x): return x + 1", CASES, FAST) is None


def test_assertion_scripts_are_refused_with_the_way_out(service: Sandbox) -> None:
    with pytest.raises(ConfigError, match="unset R1_SANDBOX_URL"):
        service.judge("def f(x): return x + 1", AssertionScript("f", "assert candidate(1) == 2"), FAST)


def test_the_variable_names_the_service(service: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1_SANDBOX_URL", service.backend.url)
    find_sandbox.cache_clear()
    assert find_sandbox().backend == service.backend
    monkeypatch.setenv("R1_SANDBOX_URL", "file:///etc/passwd")
    with pytest.raises(ConfigError, match="expected an http"):
        list(choose_backends())
    find_sandbox.cache_clear()
