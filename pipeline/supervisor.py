"""The direct child of the runner: runs one command and leaves none of its processes behind.

    python -m pipeline.supervisor PARENT_PID -- COMMAND...

It dies with its parent, passes SIGTERM and SIGINT on as SIGTERM, and when the command ends, or
`GRACE_SECONDS` after it was asked to, kills every descendant. Exit code: the command's, or
128 + the signal that ended it.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

GRACE_SECONDS = 10
"""From SIGTERM to SIGKILL: time to save a checkpoint."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""From linux/prctl.h."""


def start_supervised(
    command: Sequence[str], log: IO[Any], environment: Mapping[str, str], descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Starts `command` so that it cannot outlive this process; `environment` is added, `descriptors` are inherited."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.supervisor", str(os.getpid()), "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        pass_fds=descriptors,
        start_new_session=True,
    )


def supervise(command: Sequence[str], parent: int) -> int:
    """Runs `command` to its end and returns its exit code."""
    request(PR_SET_PDEATHSIG, signal.SIGTERM)
    request(PR_SET_CHILD_SUBREAPER, 1)
    stopped = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopped)
    # Inherited descriptors stay open: one of them is the lock of the step.
    child = subprocess.Popen(command, close_fds=False, preexec_fn=prepare_child)

    def stop(number: int, frame: FrameType | None) -> None:
        child.terminate()
        signal.alarm(GRACE_SECONDS)

    for number in stopped:
        signal.signal(number, stop)
    signal.signal(signal.SIGALRM, lambda number, frame: child.kill())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopped)
    if os.getppid() != parent:
        stop(signal.SIGTERM, None)
    code = wait_for(child.pid)
    kill_descendants()
    return code if code >= 0 else 128 - code


def wait_for(child: int) -> int:
    """Exit code of `child`, minus a signal. Orphans are reaped: thousands of sandboxed programs leave one each."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def prepare_child() -> None:
    """Runs in the child before the command: it dies with the supervisor and takes signals again."""
    request(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


def request(option: int, value: int) -> None:
    """prctl(2); only Linux has it, elsewhere orphans are left to the signals."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, int(value), 0, 0, 0)


def kill_descendants() -> None:
    """Kills children until none is left; as a subreaper, orphaned grandchildren become ours."""
    while True:
        for pid in list_children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def list_children(parent: int) -> list[int]:
    """Process ids whose parent is `parent`; empty where there is no /proc."""
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if read_parent(path) == parent]


def read_parent(path: Path) -> int:
    """Parent of a /proc/<pid>/stat; 0 if the process has ended. Its name may hold anything, `)` included."""
    try:
        return int(path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[3:], int(sys.argv[1])))
