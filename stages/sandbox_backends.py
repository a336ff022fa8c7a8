"""Ways to start a Python that can reach nothing: bubblewrap's namespaces, or sandlock's Landlock rules.

Either way a program is one process: it may start threads but cannot fork, so that its address space limit
is the memory limit of everything it starts, and nothing of it outlives the start.
"""

import importlib.util
import marshal
import os
import platform
import selectors
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Protocol

from stages import sandbox_harness
from stages.contract import StepError
from stages.sandbox_filter import ARCHITECTURES, DENIED, write_filter

CONFINEMENT = (
    *("--as-pid-1", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--clearenv"),
    *("--cap-drop", "ALL", "--uid", "65534", "--gid", "65534"),
    *("--dev-bind", "/dev/null", "/dev/null", "--size", "16777216", "--tmpfs", "/tmp", "--chdir", "/tmp"),
)
ANSWERED_BY_SANDLOCK = {"fork", "vfork", "socket"}
AS_NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups")


class SandboxError(StepError):
    """The sandbox itself failed; says nothing about the program."""


@dataclass(frozen=True)
class Limits:
    """What one program may use."""

    wall_seconds: float = 4.0
    cpu_seconds: int = 2
    memory_bytes: int = 512 << 20
    """Address space; a program cannot fork, so of everything it starts."""
    threads: int = 64
    """The kernel does not apply it where root itself runs bubblewrap; the address space bounds them there."""
    file_bytes: int = 16 << 20
    open_files: int = 64
    output_bytes: int = 1 << 20
    source_chars: int = 1 << 18
    """A longer program is wrong unseen."""

    def for_kernel(self) -> dict[str, int]:
        """Hard limits by their names in the `resource` module."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_NPROC": self.threads,
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
    """Linux namespaces through the `bwrap` program, and a seccomp filter; killing it ends every process inside."""

    program: str
    prefix: tuple[str, ...] = ()
    """A command that runs the program as another user."""
    name: str = "bubblewrap"

    def start(self, command: Sequence[str], limits: Limits) -> Child:
        with open_filter() as descriptor:
            process = subprocess.Popen(
                [*self.prefix, *self.confinement(), "--seccomp", str(descriptor), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={},
                pass_fds=[descriptor],
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
            extra_deny_syscalls=sorted(DENIED.keys() - ANSWERED_BY_SANDLOCK),
            max_processes=1,
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


def available_backends() -> Iterator[Backend]:
    program = shutil.which("bwrap")
    if program and platform.machine() in ARCHITECTURES:
        setpriv = shutil.which("setpriv")
        if setpriv and os.geteuid() == 0:
            yield Bubblewrap(program, (setpriv, *AS_NOBODY, "--"), "bubblewrap as nobody")
        yield Bubblewrap(program)
    if importlib.util.find_spec("sandlock"):
        yield Sandlock()


@contextmanager
def running(backend: Backend, limits: Limits) -> Iterator[Child]:
    """A child that waits for a request; it ends with the block. Raises SandboxError where the machine has no room."""
    try:
        child = backend.start(harness_command(), limits)
        try:
            with child.stdin, child.stdout:
                yield child
        finally:
            child.finish(0.0)
    except OSError as error:
        raise SandboxError(f"{backend.name} failed: {error}") from error


def exchange(backend: Backend, message: bytes, limits: Limits) -> RunResult:
    """What a child wrote that was sent `message` and nothing more. It is dead afterwards."""
    deadline = time.monotonic() + limits.wall_seconds
    with running(backend, limits) as child:
        output = transfer(child, message, deadline, limits.output_bytes)
        overflowed = len(output) > limits.output_bytes
        exit_code = child.finish(0.0 if overflowed else max(0.0, deadline - time.monotonic()))
    return RunResult(output, exit_code, time.monotonic() >= deadline)


def transfer(child: Child, message: bytes, deadline: float, max_bytes: int, one_line: bool = False) -> bytes:
    """Sends the message; returns what the child wrote until it closed its output, wrote too much or time was up.

    With `one_line` the child may write on after its first line, and is sent more.
    """
    os.set_blocking(child.stdin.fileno(), False)
    unsent, output = memoryview(message), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        selector.register(child.stdin, selectors.EVENT_WRITE)
        while events := selector.select(max(0.0, deadline - time.monotonic())):
            for key, _ in events:
                if key.fileobj is child.stdin:
                    unsent = send_some(key.fd, unsent)
                    if not unsent:
                        selector.unregister(child.stdin)
                        if not one_line:
                            child.stdin.close()
                    continue
                chunk = os.read(key.fd, 65536)
                output += chunk
                if not chunk or len(output) > max_bytes or (one_line and chunk.endswith(b"\n")):
                    return bytes(output)
    return bytes(output)


def send_some(descriptor: int, message: memoryview) -> memoryview:
    """What is left of the message; nothing if nobody reads it any more."""
    try:
        return message[os.write(descriptor, message) :]
    except BrokenPipeError:
        return message[:0]


def finish_process(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Raises SandboxError if a signal that is not ours ended it: no program inside can send one to this process."""
    if process.returncode is not None:
        return process.returncode
    try:
        exit_code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    if exit_code < 0:
        raise SandboxError(f"a sandbox was killed from outside by signal {-exit_code}")
    return exit_code


@contextmanager
def open_filter() -> Iterator[int]:
    """A descriptor that the seccomp program can be read from once."""
    readable, writable = os.pipe()
    try:
        os.write(writable, write_filter(platform.machine()))
        os.close(writable)
        yield readable
    finally:
        os.close(readable)


@cache
def harness_command() -> tuple[str, ...]:
    """Starts the harness. Its compiled code is at hand: parsing the text would take a tenth of the start."""
    code = marshal.dumps(compile(read_harness(), "<harness>", "exec")).hex()
    return interpreter(), "-I", "-S", "-c", f"import marshal; exec(marshal.loads(bytes.fromhex('{code}')))"


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
