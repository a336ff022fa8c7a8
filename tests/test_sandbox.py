import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages import sandbox as sandbox_module
from stages.contract import ConfigError
from stages.sandbox import FunctionCases, Sandbox, find_sandbox, holds
from stages.sandbox_backends import (
    Backend,
    Bubblewrap,
    Child,
    Limits,
    SandboxError,
    Sandlock,
    available_backends,
    finish_process,
)
from stages.sandbox_harness import encode

BACKENDS = [backend for backend in available_backends() if holds(Sandbox(backend))]
FAST = Limits(wall_seconds=1.5, cpu_seconds=1)
ADD_ONE = "def f(x):\n    return x + 1\n"
CASES = [[[1], 2], [[2], 3]]


@pytest.fixture(scope="module", params=[backend.name for backend in BACKENDS] or ["none"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Each backend of this machine. The three tests below fail where one should hold and does not."""
    for backend in BACKENDS:
        if backend.name == request.param:
            return Sandbox(backend)
    pytest.skip("no backend works on this machine")


def test_linux_has_a_sandbox_that_holds() -> None:
    """Else every other test here would be skipped unseen: sandlock comes with the packages on Linux."""
    assert not sys.platform.startswith("linux") or BACKENDS


def test_bubblewrap_holds_where_user_namespaces_are_allowed() -> None:
    program = shutil.which("bwrap")
    plain = [str(program), "--unshare-user", "--ro-bind", "/", "/", "true"]
    allowed = bool(program) and subprocess.run(plain, capture_output=True).returncode == 0
    assert not allowed or holds(Sandbox(Bubblewrap(str(program))))


def test_sandlock_holds_where_the_kernel_has_what_it_needs() -> None:
    if not sys.platform.startswith("linux"):
        return
    import sandlock

    assert sandlock.landlock_abi_version() < sandlock.min_landlock_abi() or holds(Sandbox(Sandlock()))


def judge(sandbox: Sandbox, source: str, cases: Any = CASES) -> bool | None:
    return sandbox.judge(source, FunctionCases("f", json.dumps(cases)), FAST)


def test_a_right_program_passes_and_wrong_ones_do_not(sandbox: Sandbox) -> None:
    assert judge(sandbox, ADD_ONE) is True
    assert judge(sandbox, "f = lambda x: x + 2") is False
    assert judge(sandbox, ADD_ONE, [[[1], 2], [[2], 4]]) is False, "one wrong case is enough"
    assert judge(sandbox, ADD_ONE, []) is False, "no case shows nothing"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def f(x) return x + 1",
        "def g(x): return x + 1",
        "f = 3",
        "def f(x): raise ValueError(x)",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "def f(x):\n    import os\n    os._exit(0)",
        "def f(x):\n    return x + 1 if x < 2 else exit(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "def f(x): return f(x)",
        "def f(x):\n    a = []\n    a.append(a)\n    return a",
        "def f(x): return 10 ** 10000",
        "def f(x): return ' ' * (1 << 40)",
        "print('\\0')\nx = '\0'",
        "x = '\ud800'\ndef f(x): return x + 1",
        "import os\nos.write(1, b'2\\n3\\n')\nos._exit(0)",
        "import os\nfor fd in range(3, 9):\n    try: os.write(fd, b'2\\n3\\n')\n    except OSError: pass\nos._exit(0)",
        "class Two:\n    def __eq__(self, other): return True\ndef f(x): return Two()",
        "class Two(int):\n    def __repr__(self): return str(int(self))\ndef f(x): return Two(x + 1)",
    ],
)
def test_a_program_that_does_not_return_the_results_is_wrong(sandbox: Sandbox, source: str) -> None:
    assert judge(sandbox, source) is False


@pytest.mark.parametrize(
    "source", ["while True: pass", "import time; time.sleep(60)", "def f(x):\n    while 1: print(x)"]
)
def test_a_program_that_does_not_end_is_wrong(sandbox: Sandbox, source: str) -> None:
    assert judge(sandbox, source) is False


def test_prints_do_not_disturb_the_results(sandbox: Sandbox) -> None:
    assert judge(sandbox, "print('hi' * 100000)\ndef f(x):\n    print(x)\n    return x + 1") is True


def test_a_result_that_only_looks_equal_is_wrong(sandbox: Sandbox) -> None:
    for wrong in ("x + 1.0", "str(x + 1)", "[x + 1]", "None"):
        assert judge(sandbox, f"def f(x): return {wrong}") is False
    assert judge(sandbox, "def f(x): return x == 1", [[[1], 1]]) is False, "True is not 1"
    nested = [[[[1, 2], {"a": "é\ud800"}], {"b": [1.5, None, True], "a": "é\ud800"}]]
    source = "def f(x, y): return {'a': y['a'], 'b': (1.5, None, len(x) == 2)}"
    assert judge(sandbox, source, nested) is True


def test_large_arguments_arrive(sandbox: Sandbox) -> None:
    values = list(range(200_000))
    assert judge(sandbox, "f = sum", [[[values], sum(values)]]) is True


def test_a_script_reads_its_input(sandbox: Sandbox) -> None:
    result = sandbox.run("n = int(input())\nprint(n + 1, input())", "41\nüber\n")
    assert (result.stdout.decode(), result.exit_code, result.timed_out) == ("42 über\n", 0, False)
    assert sandbox.run("raise SystemExit(3)").exit_code == 3


def test_a_script_that_hangs_is_stopped(sandbox: Sandbox) -> None:
    result = sandbox.run("print('begun', flush=True)\nimport time; time.sleep(60)", limits=Limits(wall_seconds=1.0))
    assert result.timed_out
    assert result.stdout == b"begun\n"


def test_a_flood_of_output_is_cut(sandbox: Sandbox) -> None:
    result = sandbox.run("while True: print('x' * 1000)", limits=Limits(output_bytes=10_000))
    assert 10_000 <= len(result.stdout) < 100_000
    assert not result.timed_out


def test_nothing_outside_can_be_reached(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gold.txt").write_text("42")
    monkeypatch.setenv("R1_CANARY", "42")
    source = f"""
import os, sys, socket
def held(action, *arguments):
    try:
        action(*arguments)
    except (OSError, ImportError):
        return True
    return False
def connect():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))
def f():
    return [
        held(open, {str(tmp_path / "gold.txt")!r}),
        held(open, {str(tmp_path / "new.txt")!r}, "w"),
        held(open, "/etc/passwd"),
        held(connect),
        held(__import__, "pytest"),
        "R1_CANARY" not in os.environ,
    ]
"""
    assert judge(sandbox, source, [[[], [True] * 6]]) is True
    assert not (tmp_path / "new.txt").exists()


def test_what_can_be_written_is_small(sandbox: Sandbox) -> None:
    source = """
import os, sysconfig
def f():
    written = 0
    for folder in ["/", "/tmp", "/dev", sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")]:
        for number in range(40):
            try:
                with open(os.path.join(folder, f"filler-{number}"), "wb") as file:
                    written += file.write(bytes(1 << 20))
            except OSError:
                break
    return written <= 17 << 20
"""
    assert judge(sandbox, source, [[[], True]]) is True


def count_programs() -> int:
    """Processes of this machine that run the harness: its text is in their command."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += b"marshal.loads(bytes.fromhex(" in path.read_bytes()
    return found


def test_a_program_cannot_start_another(sandbox: Sandbox) -> None:
    source = """
import os, subprocess
def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        return True
    return False
def f():
    spawn = refused(os.posix_spawn, "/bin/true", ["true"], {})
    return [refused(os.fork), refused(subprocess.run, ["/bin/true"]), spawn]
"""
    assert judge(sandbox, source, [[[], [True] * 3]]) is True


def test_threads_work(sandbox: Sandbox) -> None:
    source = """
import threading
def f(x):
    results = []
    threading.stack_size(64 << 20)
    thread = threading.Thread(target=lambda: results.append(x + 1))
    thread.start()
    thread.join()
    return results[0]
"""
    assert judge(sandbox, source) is True


def test_nothing_survives_a_program_that_hides(sandbox: Sandbox) -> None:
    daemon = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.closerange(0, 9)\ntime.sleep(60)"
    )
    assert sandbox.run(daemon, limits=Limits(wall_seconds=0.7)).timed_out
    deadline = time.monotonic() + 5
    while count_programs() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert count_programs() == 0


class CountingBackend:
    """Starts what another backend would, and counts."""

    name = "counting"

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.started = 0

    def start(self, command: Any, limits: Limits) -> Child:
        self.started += 1
        return self.backend.start(command, limits)


def test_equal_programs_and_cases_are_judged_once(sandbox: Sandbox) -> None:
    backend = CountingBackend(sandbox.backend)
    counted = Sandbox(backend)
    assert [judge(counted, ADD_ONE), judge(counted, ADD_ONE), judge(counted, ADD_ONE, [[[1], 3]])] == [
        True,
        True,
        False,
    ]
    assert backend.started == 2


class BrokenBackend:
    """Starts a child that ends without running the harness, as bubblewrap does where it may not."""

    name = "broken"

    def __init__(self) -> None:
        self.started = 0

    def start(self, command: Any, limits: Limits) -> Child:
        self.started += 1
        command = [sys.executable, "-c", "print('no permission')"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdin and process.stdout
        return Child(process.stdin, process.stdout, lambda seconds: finish_process(process, seconds))


def test_a_sandbox_failure_is_no_verdict_and_is_not_remembered() -> None:
    backend = BrokenBackend()
    assert [judge(Sandbox(backend), ADD_ONE), judge(Sandbox(backend), ADD_ONE)] == [None, None]
    broken = Sandbox(backend)
    assert [judge(broken, ADD_ONE), judge(broken, ADD_ONE)] == [None, None]
    assert backend.started == 4
    with pytest.raises(SandboxError, match="broken did not start"):
        broken.run("print(1)")


def test_without_a_sandbox_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "choose_backends", lambda: [BrokenBackend()])
    find_sandbox.cache_clear()
    with pytest.raises(ConfigError, match=r"install bubblewrap.*--set domains.code.enabled=false"):
        find_sandbox()


def test_a_missing_program_is_a_failure_of_the_sandbox() -> None:
    missing = Bubblewrap("/nonexistent/bwrap")
    assert judge(Sandbox(missing), ADD_ONE) is None
    assert not holds(Sandbox(missing))


def test_encoding_keeps_types_apart() -> None:
    values = [1, 1.0, True, "1", None, [1], {"1": 1}, {"1": 1.0}, "None", object(), -0.0, 0.0]
    assert len({encode(value) for value in values}) == len(values)
    assert encode((1, 2)) == encode([1, 2])
    assert encode({"a": 1, "b": 2}) == encode({"b": 2, "a": 1})


def test_the_second_backend_needs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert all(isinstance(backend, Sandlock) for backend in available_backends())
