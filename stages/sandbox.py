"""Runs untrusted Python programs under bubblewrap or, where user namespaces are refused, sandlock.

A program sees an empty environment, no network, a read-only Python runtime without
site-packages, and hard limits. Expected outputs never enter the sandbox: it returns what the
program computed, and the comparison is made here. There is no fall-back to a bare process.
"""

import importlib.util
import json
import marshal
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any, Protocol

from stages import sandbox_harness
from stages.contract import ConfigError, StepError

NO_SANDBOX = (
    "no sandbox found; install bubblewrap or `pip install sandlock`, "
    "or turn code off with --set domains.code.enabled=false"
)
MAX_CACHED_VERDICTS = 65_536

CONFINEMENT = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv"),
    *("--cap-drop", "ALL", "--uid", "65534", "--gid", "65534"),
    *("--dev-bind", "/dev/null", "/dev/null", "--size", "16777216", "--tmpfs", "/tmp", "--chdir", "/tmp"),
)
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

Case = Sequence[Any]
"""[arguments, expected], in JSON types."""


class SandboxError(StepError):
    """The sandbox itself failed; says nothing about the program."""


@dataclass(frozen=True)
class Limits:
    """What one program may use."""

    wall_seconds: float = 4.0
    cpu_seconds: int = 2
    memory_bytes: int = 512 << 20
    """Address space of each process."""
    processes: int = 8
    """Processes of the user; the kernel does not apply it under bubblewrap as root."""
    file_bytes: int = 16 << 20
    open_files: int = 64
    output_bytes: int = 1 << 20

    def for_kernel(self) -> dict[str, int]:
        """Hard limits by their names in the `resource` module."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class RunResult:
    stdout: bytes
    """At most a little more than `Limits.output_bytes`; a program that writes more is killed."""
    exit_code: int
    """Above 128 or negative if a signal ended the program."""
    timed_out: bool


@dataclass(frozen=True)
class Child:
    """A started process, whatever started it."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    finish: Callable[[float], int]
    """Waits so many seconds, then kills all of it; returns the exit code."""


class Backend(Protocol):
    """A way to start a command that can reach nothing."""

    @property
    def name(self) -> str: ...

    def start(self, command: Sequence[str], limits: Limits) -> Child: ...


@dataclass(frozen=True)
class Bubblewrap:
    """Linux namespaces through the `bwrap` program; killing it ends every process inside."""

    program: str
    name: str = "bubblewrap"

    def start(self, command: Sequence[str], limits: Limits) -> Child:
        process = subprocess.Popen(
            [*self.confinement(), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={},
            start_new_session=True,
        )
        if not process.stdin or not process.stdout:
            raise SandboxError(f"{self.program} was started without pipes")
        return Child(process.stdin, process.stdout, lambda seconds: finish_process(process, seconds))

    def confinement(self) -> list[str]:
        readable = [word for path in runtime_paths() for word in ("--ro-bind", path, path)]
        hidden = [word for path in package_paths() for word in ("--tmpfs", path, "--remount-ro", path)]
        return [self.program, *CONFINEMENT, *readable, *hidden, "--remount-ro", "/"]


@dataclass(frozen=True)
class Sandlock:
    """Landlock and seccomp through the `sandlock` package; needs no namespaces. Nothing is writable."""

    name: str = "sandlock"

    def start(self, command: Sequence[str], limits: Limits) -> Child:
        import sandlock

        confined = sandlock.Sandbox(
            fs_readable=runtime_paths(),
            fs_denied=package_paths(),
            fs_writable=["/dev/null"],
            max_processes=limits.processes,
            max_memory=limits.memory_bytes,
            clean_env=True,
            no_coredump=True,
            cwd="/",
        )
        mode = sandlock.StdioMode
        try:
            process = confined.popen(list(command), stdin=mode.PIPED, stdout=mode.PIPED, stderr=mode.NULL)
        except (RuntimeError, sandlock.SandlockError) as error:
            raise SandboxError(f"sandlock could not start a program: {error}") from error
        return Child(process.stdin, process.stdout, lambda seconds: int(process.wait(seconds).exit_code))


class Sandbox:
    """Runs programs under one backend and remembers the verdicts of those that were tested."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.judge = lru_cache(maxsize=MAX_CACHED_VERDICTS)(self.compare_results)

    def run(self, source: str, stdin: str = "", limits: Limits = DEFAULT_LIMITS) -> RunResult:
        """Runs a program as a script. Raises SandboxError if it could not be started."""
        return self.start_program(source, "", [], stdin, limits)[1]

    def run_function_tests(
        self, source: str, function: str, cases: Sequence[Case], limits: Limits = DEFAULT_LIMITS
    ) -> bool | None:
        """Whether `function` of the program returns what each case expects; None if the sandbox failed.

        All cases run in one start. Results must be equal in full and in type; a program that exits,
        raises, hangs or returns fewer results is wrong. Without cases nothing was shown: wrong.
        """
        try:
            return self.judge(source, function, json.dumps(cases), limits)
        except SandboxError:
            return None

    def compare_results(self, source: str, function: str, cases: str, limits: Limits) -> bool:
        pairs = json.loads(cases)
        if not pairs:
            return False
        arguments = [values for values, _ in pairs]
        token, result = self.start_program(source, function, arguments, "", limits)
        wanted = "".join(f"{token} {sandbox_harness.encode(expected)}\n" for _, expected in pairs)
        return not result.timed_out and result.stdout == wanted.encode()

    def start_program(
        self, source: str, function: str, arguments: list[Any], stdin: str, limits: Limits
    ) -> tuple[str, RunResult]:
        """(token of the run, its result). A child that never reported ready is a failure of the sandbox."""
        token = secrets.token_hex(8)
        request = marshal.dumps((token, limits.for_kernel(), source, function, arguments))
        message = len(request).to_bytes(8, "big") + request + stdin.encode(errors="replace")
        stdout, exit_code, timed_out = self.exchange(message, limits)
        ready, newline, output = stdout.partition(b"\n")
        if ready != token.encode() or not newline:
            raise SandboxError(f"{self.backend.name} did not start a program (exit code {exit_code})")
        return token, RunResult(output, exit_code, timed_out)

    def exchange(self, message: bytes, limits: Limits) -> tuple[bytes, int, bool]:
        """(output, exit code, timed out) of a child that was sent `message`. It is dead afterwards."""
        deadline = time.monotonic() + limits.wall_seconds
        try:
            child = self.backend.start([interpreter(), "-I", "-S", "-c", read_harness()], limits)
        except OSError as error:
            raise SandboxError(f"{self.backend.name} could not be started: {error}") from error
        with child.stdin, child.stdout:
            output = transfer(child, message, deadline, limits.output_bytes)
        overflowed = len(output) > limits.output_bytes
        exit_code = child.finish(0.0 if overflowed else max(0.0, deadline - time.monotonic()))
        return output, exit_code, time.monotonic() >= deadline


def transfer(child: Child, message: bytes, deadline: float, max_bytes: int) -> bytes:
    """Sends the message; returns what the child wrote until it closed its output, wrote too much or time was up."""
    os.set_blocking(child.stdin.fileno(), False)
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        selector.register(child.stdin, selectors.EVENT_WRITE)
        while events := selector.select(max(0.0, deadline - time.monotonic())):
            for key, _ in events:
                if key.fileobj is child.stdout:
                    chunk = os.read(key.fd, 65536)
                    output += chunk
                    if not chunk or len(output) > max_bytes:
                        return output
                else:
                    message = send_some(key.fd, message)
                    if not message:
                        selector.unregister(child.stdin)
                        child.stdin.close()
    return output


def send_some(descriptor: int, message: bytes) -> bytes:
    """What is left of the message; nothing if nobody reads it any more."""
    try:
        return message[os.write(descriptor, message) :]
    except BrokenPipeError:
        return b""


def finish_process(process: subprocess.Popen[bytes], seconds: float) -> int:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@cache
def read_harness() -> str:
    return Path(sandbox_harness.__file__).read_text(encoding="utf-8")


@cache
def interpreter() -> str:
    """The real Python behind a virtual environment: programs see no installed package."""
    return str(Path(sys.executable).resolve())


@cache
def runtime_paths() -> tuple[str, ...]:
    """What Python needs to start: itself, its standard library, shared libraries."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    library = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib", sysconfig.get_config_var("INSTSONAME") or "")
    shared = ["/lib64", "/usr/lib64", f"/lib/{multiarch}", f"/usr/lib/{multiarch}"] if multiarch else ["/lib64", "/lib"]
    wanted = [interpreter(), sysconfig.get_path("stdlib"), *([str(library)] if library.is_file() else []), *shared]
    return tuple(dict.fromkeys(path for path in wanted if Path(path).exists()))


@cache
def package_paths() -> tuple[str, ...]:
    """Package folders inside the standard library's; they stay hidden."""
    inside = (Path(sysconfig.get_path("stdlib"), name) for name in ("site-packages", "dist-packages"))
    return tuple(str(path) for path in inside if path.is_dir())


@cache
def find_sandbox() -> Sandbox:
    """The first backend that holds on this machine. Raises ConfigError if there is none."""
    for backend in available_backends():
        sandbox = Sandbox(backend)
        if holds(sandbox):
            return sandbox
    raise ConfigError(NO_SANDBOX)


def available_backends() -> Iterator[Backend]:
    if program := shutil.which("bwrap"):
        yield Bubblewrap(program)
    if importlib.util.find_spec("sandlock"):
        yield Sandlock()


def holds(sandbox: Sandbox) -> bool:
    """Whether a program runs in it and can neither read a file of ours, nor write, nor reach a local port."""
    with tempfile.NamedTemporaryFile() as secret, socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [secret.name, server.getsockname()[1]]
        return sandbox.run_function_tests(PROBE, "probe", [[arguments, [False, False, False]]]) is True
