"""Judges untrusted Python programs by tests; the programs run where they can reach nothing.

A program sees an empty environment, no network, a read-only Python runtime without
site-packages, and hard limits. Expected outputs never enter its sandbox: it returns what it
computed, and the comparison is made outside. There is no fall-back to a bare process.
"""

import json
import logging
import marshal
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from stages.contract import ConfigError, DataError
from stages.sandbox_backends import (
    DEFAULT_LIMITS,
    Backend,
    Child,
    Limits,
    RunResult,
    SandboxError,
    available_backends,
    exchange,
    running,
    transfer,
)
from stages.sandbox_harness import PASSED, encode
from stages.sandbox_service import URL_VARIABLE, Service

NO_SANDBOX = (
    "no sandbox found; install bubblewrap or `pip install sandlock`, "
    "or turn code off with --set domains.code.enabled=false"
)
MAX_CACHED_VERDICTS = 65_536
log = logging.getLogger(__name__)

PROBE = """
import socket

def succeeds(action, *arguments):
    try:
        action(*arguments).close()
    except OSError:
        return False
    return True

def probe(secret, port):
    return [
        succeeds(open, secret),
        succeeds(open, "/usr/written", "w"),
        succeeds(socket.create_connection, ("127.0.0.1", port), 1),
    ]
"""


@dataclass(frozen=True)
class FunctionCases:
    """What a function returns, equal in full and in type."""

    function: str
    cases: str
    """JSON list of [arguments, expected]; as text because 1, 1.0 and true are equal keys of a cache."""


@dataclass(frozen=True)
class StreamCases:
    """What a script writes for each standard input, but for white space at the ends of lines and of the text."""

    cases: tuple[tuple[str, str], ...]
    """(input, output)."""


@dataclass(frozen=True)
class AssertionScript:
    """A trusted script that calls the function as `candidate` and fails by any exception, as HumanEval's `check`.

    Arguments and results are copies, in built-in types. The script must call `candidate`.
    """

    function: str
    script: str

    def __post_init__(self) -> None:
        try:
            compile(self.script, "<tests>", "exec")
        except (SyntaxError, ValueError) as error:
            raise DataError(f"tests of {self.function!r} are no Python script: {error}") from error


Tests = FunctionCases | StreamCases | AssertionScript


class Sandbox:
    """Runs programs under one backend and remembers the verdicts of those that were tested."""

    def __init__(self, backend: Backend | Service) -> None:
        self.backend = backend
        self.remember = lru_cache(maxsize=MAX_CACHED_VERDICTS)(self.test)

    def run(self, source: str, stdin: str = "", limits: Limits = DEFAULT_LIMITS) -> RunResult:
        """Runs a program as a script. Raises SandboxError if it could not be started."""
        return self.start_program("script", source, stdin=stdin, limits=limits)[1]

    def judge(self, source: str, tests: Tests, limits: Limits = DEFAULT_LIMITS) -> bool | None:
        """Whether the program passes all tests; None, and a line in the log, if the sandbox failed.

        A program that exits, raises, hangs or leaves a result out is wrong. Without tests nothing
        was shown: wrong.
        """
        if len(source) > limits.source_chars:
            return False
        try:
            return self.remember(source, tests, limits)
        except SandboxError as error:
            log.warning("cannot judge a program: %s", error)
            return None

    def test(self, source: str, tests: Tests, limits: Limits) -> bool:
        if isinstance(tests, FunctionCases):
            return self.compare_results(source, tests, limits)
        if isinstance(tests, StreamCases):
            return bool(tests.cases) and all(self.compare_output(source, *case, limits) for case in tests.cases)
        return self.check_assertions(source, tests, limits)

    def compare_results(self, source: str, tests: FunctionCases, limits: Limits) -> bool:
        """All cases run in one start."""
        cases = json.loads(tests.cases)
        if not cases:
            return False
        arguments = [values for values, _ in cases]
        token, result = self.start_program("results", source, tests.function, arguments, limits=limits)
        wanted = "".join(f"{token} {encode(expected)}\n" for _, expected in cases)
        return not result.timed_out and result.stdout == wanted.encode()

    def compare_output(self, source: str, stdin: str, expected: str, limits: Limits) -> bool:
        """One start for each input: what one leaves in an interpreter could change what a right program does next."""
        result = self.run(source, stdin, limits)
        ended = result.exit_code == 0 and not result.timed_out
        return ended and strip_lines(result.stdout) == strip_lines(expected.encode(errors="replace"))

    def check_assertions(self, source: str, tests: AssertionScript, limits: Limits) -> bool:
        """The script runs in a second sandbox, which nothing but values can reach."""
        if isinstance(self.backend, Service):
            raise ConfigError(
                f"{self.backend.name} cannot run assertion scripts; unset {URL_VARIABLE} to run them here"
            )
        deadline = time.monotonic() + limits.wall_seconds
        with running(self.backend, limits) as program, running(self.backend, limits) as checker:
            # The checker first: a program that is busy must not be what keeps it from starting.
            self.prepare(checker, "checks", tests.script, "", deadline, limits)
            waits = self.prepare(program, "answers", source, tests.function, deadline, limits)
            return waits and relay(program, checker, deadline, limits.output_bytes)

    def prepare(self, child: Child, part: str, source: str, function: str, deadline: float, limits: Limits) -> bool:
        """Hands a child its part of a dialogue; whether it then waited to be spoken to."""
        token, request = write_request(part, source, function, [], limits)
        ready = transfer(child, frame(request), deadline, limits.output_bytes, one_line=True)
        if not ready.startswith(f"{token}\n".encode()):
            raise SandboxError(f"{self.backend.name} did not start a program")
        return is_line(ready)

    def start_program(
        self,
        part: str,
        source: str,
        function: str = "",
        arguments: Sequence[Any] = (),
        stdin: str = "",
        limits: Limits = DEFAULT_LIMITS,
    ) -> tuple[str, RunResult]:
        """(token of the run, its result). A child that never reported ready is a failure of the sandbox."""
        token, request = write_request(part, source, function, arguments, limits)
        if isinstance(self.backend, Service):
            result = self.backend.execute(request, stdin, limits)
        else:
            result = exchange(self.backend, frame(request) + stdin.encode(errors="replace"), limits)
        ready, newline, output = result.stdout.partition(b"\n")
        if ready != token.encode() or not newline:
            raise SandboxError(f"{self.backend.name} did not start a program (exit code {result.exit_code})")
        return token, RunResult(output, result.exit_code, result.timed_out)


def write_request(part: str, source: str, function: str, arguments: Sequence[Any], limits: Limits) -> tuple[str, bytes]:
    """(a fresh token, the request in a form that any Python reads)."""
    token = secrets.token_hex(8)
    return token, marshal.dumps((token, limits.for_kernel(), part, source, function, list(arguments)), 2)


def frame(request: bytes) -> bytes:
    return len(request).to_bytes(8, "big") + request


def relay(program: Child, checker: Child, deadline: float, max_bytes: int) -> bool:
    """Carries the checker's questions to the program and answers back; whether the checker passed it."""
    answer, asked = b"\n", False
    while True:
        question = transfer(checker, answer, deadline, max_bytes, one_line=True)
        if question == f"{PASSED}\n".encode():
            return asked
        if not is_line(question) or b"=" not in question:
            return False
        answer = transfer(program, question, deadline, max_bytes, one_line=True)
        asked = True
        if not is_line(answer) or len(answer) > max_bytes:
            return False


def is_line(text: bytes) -> bool:
    return text.endswith(b"\n") and text.count(b"\n") == 1


def strip_lines(text: bytes) -> list[bytes]:
    return [line.rstrip() for line in text.rstrip().split(b"\n")]


@cache
def find_sandbox() -> Sandbox:
    """The first that holds: the service that R1_SANDBOX_URL names, else one of this machine. Raises ConfigError."""
    for backend in choose_backends():
        sandbox = Sandbox(backend)
        if holds(sandbox):
            log.info("programs run in %s", backend.name)
            return sandbox
    raise ConfigError(NO_SANDBOX)


def choose_backends() -> Iterator[Backend | Service]:
    if url := os.environ.get(URL_VARIABLE):
        yield Service(url)
    yield from available_backends()


def holds(sandbox: Sandbox) -> bool:
    """Whether a program runs in it and can neither read a file of ours, nor write, nor reach a local port."""
    with tempfile.NamedTemporaryFile() as secret, socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [secret.name, server.getsockname()[1]]
        tests = FunctionCases("probe", json.dumps([[arguments, [False, False, False]]]))
        try:
            return sandbox.test(PROBE, tests, DEFAULT_LIMITS)
        except SandboxError as error:
            log.info("no programs run in %s: %s", sandbox.backend.name, error)
            return False
