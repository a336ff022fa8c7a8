"""Every program of tests/exploits, in each backend that holds here, as this user and as an ordinary one."""

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.sandbox import FunctionCases, Sandbox, holds
from stages.sandbox_backends import Limits, available_backends, harness_command
from tests.exploits.hostile_programs import PROGRAMS, Hostile

ROOT = Path(__file__).resolve().parent.parent
LIMITS = Limits(wall_seconds=4.0, cpu_seconds=1, memory_bytes=256 << 20, output_bytes=1 << 16)
ALLOWED = {"held": {True}, "wrong": {False}, "judged": {True, False}}
BACKENDS = {backend.name: backend for backend in available_backends() if holds(Sandbox(backend))}

Verdicts = dict[str, bool | None]


@pytest.fixture(scope="module", params=BACKENDS)
def verdicts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    sandbox = Sandbox(BACKENDS[request.param])
    secret = tmp_path_factory.mktemp("grader") / "expected.txt"
    secret.write_text("42")
    start = random.randrange(10**8, 10**9)
    cases = json.dumps([[[number], number + 1] for number in (start, start + 7)])
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("R1_EXPECTED", "42")
        places = {"SECRET": str(secret), "PORT": str(server.getsockname()[1]), "PID": str(os.getpid())}

        def judge(program: Hostile) -> bool | None:
            source = program.source
            for word, place in places.items():
                source = source.replace(word, place)
            # On a busy machine a sandbox may start too late; a program that brings that about does so each time.
            verdicts = (sandbox.judge(source, FunctionCases("f", cases), LIMITS) for _ in range(3))
            return next((verdict for verdict in verdicts if verdict is not None), None)

        with ThreadPoolExecutor(6) as threads:
            return dict(zip([program.name for program in PROGRAMS], threads.map(judge, PROGRAMS), strict=True))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name.replace(" ", "-"))
def test_the_sandbox_holds(verdicts: Verdicts, program: Hostile) -> None:
    assert verdicts[program.name] in ALLOWED[program.must], program.tries


def test_nothing_survives(verdicts: Verdicts) -> None:
    deadline = time.monotonic() + 5
    while (left := find_programs()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert verdicts


def find_programs() -> list[str]:
    """Processes of this machine that run the harness."""
    mark = harness_command()[-1].encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [str(path)] if mark in path.read_bytes() else []
    return found


def test_an_ordinary_user_can_run_them_too() -> None:
    if os.geteuid() != 0:
        pytest.skip("the tests above ran as an ordinary user already")
    closed = open_folders()
    if closed and not shutil.which("bwrap"):
        pytest.skip("Python or the project lies where an ordinary user may not look, and no bubblewrap can show it")
    user = [str(shutil.which("setpriv")), "--reuid=65534", "--regid=65534", "--clear-groups"]
    tests = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    command = [*closed, *user, *tests]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.environ["PATH"], "HOME": "/tmp"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > len(PROGRAMS), done.stdout


def open_folders() -> list[str]:
    """A command prefix that shows Python and the project to every user, wherever the folders above are closed."""
    needed = sorted({Path(sys.base_prefix), Path(sys.prefix), ROOT})
    closed = {path: folder for path in needed if (folder := find_closed_folder(path))}
    words = [word for folder in sorted(set(closed.values())) for word in ("--perms", "0755", "--tmpfs", str(folder))]
    for path, folder in closed.items():
        between = [parent for parent in reversed(path.parents) if parent.is_relative_to(folder) and parent != folder]
        words += [word for parent in between for word in ("--perms", "0755", "--dir", str(parent))]
        words += ["--ro-bind", str(path), str(path)]
    return [str(shutil.which("bwrap")), "--dev-bind", "/", "/", *words, "--cap-add", "ALL", "--"] if closed else []


def find_closed_folder(path: Path) -> Path | None:
    """The topmost folder above that others may not enter."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)
