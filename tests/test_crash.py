"""kill -9 at any moment leaves only whole artifacts and no process; the next run goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cleaning import collect_garbage
from pipeline.store import Store
from pipeline.supervisor import list_children, start_supervised
from stages.contract import StepError
from tests.toy_stage import STEPS, run_toy, write_profile

ROOT = Path(__file__).resolve().parent.parent

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="a process dies with its parent only on Linux")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_profile(tmp_path)
    return tmp_path


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.toy_stage", str(folder), *overrides]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill(run: subprocess.Popen[str]) -> None:
    run.kill()
    run.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited 30 s in vain")


def is_alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def marked_processes(marker: Path) -> list[int]:
    return [int(pid) for pid in marker.read_text().split()] if marker.exists() else []


def assert_whole(store: Store) -> None:
    """Every visible version verifies."""
    for name in store.step_names():
        history = store.history(name)
        assert len(history) == len(store.versions(name))
        assert all(store.verify(artifact) == [] for artifact in history)


@linux_only
def test_kill_at_random_moments_leaves_only_whole_artifacts(folder: Path) -> None:
    moments = random.Random(0)
    store = Store(folder / "artifacts", "toy")
    for _ in range(8):
        run = start(folder, "weigh.seconds=0.3")
        time.sleep(moments.uniform(0.2, 3.0))
        kill(run)
        assert_whole(store)
    wait_until(lambda: all(is_free(store, step.name) for step in STEPS))
    run_toy(folder, "weigh.seconds=0.3")
    assert_whole(store)
    assert [len(store.history(step.name)) for step in STEPS] == [1] * len(STEPS)
    collect_garbage(store, delete=True)
    assert collect_garbage(store) == []
    assert_whole(store)


def is_free(store: Store, step: str) -> bool:
    """A child that saw its runner die holds the lock until it has ended."""
    try:
        with store.lock(step):
            return True
    except StepError:
        return False


@linux_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_survives_the_runner(folder: Path, number: signal.Signals) -> None:
    marker = folder / "marker"
    run = start(folder, "weigh.seconds=60", f"weigh.marker={marker}")
    wait_until(lambda: len(marked_processes(marker)) == 2)
    assert all(is_alive(pid) for pid in marked_processes(marker))
    run.send_signal(number)
    run.communicate()
    wait_until(lambda: not any(is_alive(pid) for pid in marked_processes(marker)))


@linux_only
def test_no_process_survives_the_supervisor(folder: Path) -> None:
    marker = folder / "marker"
    run = start(folder, "weigh.seconds=60", f"weigh.marker={marker}")
    wait_until(lambda: len(marked_processes(marker)) == 2)
    step, helper = marked_processes(marker)
    parent = int(Path(f"/proc/{step}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    _, error = run.communicate(timeout=30)
    wait_until(lambda: not is_alive(step))
    assert "StepError" in error
    os.kill(helper, signal.SIGKILL)


@linux_only
def test_orphans_that_end_are_reaped_while_the_command_runs(tmp_path: Path) -> None:
    """A sandbox leaves one for each program; a process table has room for some ten thousand."""
    marker = tmp_path / "marker"
    command = ["sh", "-c", f"(true &); (true &); (true &); sleep 0.3; touch {marker}; sleep 60"]
    with (tmp_path / "log").open("w") as log:
        supervisor = start_supervised(command, log, {})
    wait_until(marker.exists)
    wait_until(lambda: [is_alive(pid) for pid in list_children(supervisor.pid)] == [True])
    supervisor.terminate()
    assert supervisor.wait(30) == 128 + signal.SIGTERM


def test_of_two_runs_at_once_one_publishes_and_one_is_told_why_not(folder: Path) -> None:
    marker = folder / "marker"
    first = start(folder, "weigh.seconds=8", f"weigh.marker={marker}")
    wait_until(lambda: len(marked_processes(marker)) == 2)
    second = start(folder, "weigh.seconds=8", f"weigh.marker={marker}")
    _, error = second.communicate(timeout=60)
    assert second.returncode != 0
    assert f"step 'weigh' is being run by process {first.pid}" in error
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert len(Store(folder / "artifacts", "toy").history("weigh")) == 1


@linux_only
def test_the_lock_is_held_until_the_child_of_a_killed_runner_is_gone(folder: Path) -> None:
    marker = folder / "marker"
    run = start(folder, "weigh.seconds=60", f"weigh.marker={marker}")
    wait_until(lambda: len(marked_processes(marker)) == 2)
    store = Store(folder / "artifacts", "toy")
    partial = next((store.folder / "weigh").glob(".partial-*"))
    assert not [item for item in collect_garbage(store) if item.path == partial]
    kill(run)
    wait_until(lambda: any(item.path == partial for item in collect_garbage(store)))
    assert not any(is_alive(pid) for pid in marked_processes(marker))
    collect_garbage(store, delete=True)
    assert not partial.exists()
