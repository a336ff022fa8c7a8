"""Shards made in this process, or in several on this machine, each with an engine and verifiers of its own.

Workers are a script of their own: a fork would copy the threads of torch and Arrow half, and multiprocessing's spawn
would run the caller's script once more.
"""

import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from stages.contract import CORES, Progress, Runtime, StepError, count_cores
from stages.executors import Files, Load

ROOT = Path(__file__).resolve().parents[2]
ATTEMPTS = 2
"""Processes that may be killed over one shard."""


class Worker:
    """A process that makes one shard at a time, and ends when its standard input does."""

    def __init__(self, load: Load, runtime: Runtime) -> None:
        self.number = -1
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", "stages.executors.local_worker", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], env=make_environment(runtime)
            )
        self.send(load)

    def ask(self, number: int, shard: Any) -> None:
        self.number = number
        self.send((number, shard))

    def send(self, message: Any) -> None:
        # A worker that has died is seen when its answer is read.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def receive(self) -> Any:
        """The file of its shard, the prompts done of it, an error to raise; None if it was killed.

        Raises StepError if it ended in any other way.
        """
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            if (code := self.process.wait()) < 0:
                return None
            raise StepError(f"a sampling process ended with exit code {code}; its traceback is in the log") from error

    def end(self) -> None:
        self.process.kill()
        self.connection.close()
        with self.process:
            self.process.wait()


def make_environment(runtime: Runtime) -> dict[str, str]:
    # Judging has time limits: workers that crowd the machine would make right programs late, and so wrong.
    cores = max(1, count_cores() // runtime.workers)
    threads = str(runtime.threads or cores)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    own = {CORES: str(cores), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": path}
    return {**os.environ, **own}


def make_shards(load: Load, shards: Mapping[int, Any], runtime: Runtime, progress: Progress) -> Files:
    if runtime.workers > 1 and len(shards) > 1:
        yield from make_apart(load, shards, runtime, progress)
        return
    maker = load()
    for number, shard in shards.items():
        yield number, maker.make_file(number, shard, progress)


def make_apart(load: Load, shards: Mapping[int, Any], runtime: Runtime, progress: Progress) -> Files:
    waiting, killed, busy = deque(shards), Counter[int](), dict[Connection, Worker]()
    try:
        while waiting or busy:
            while waiting and len(busy) < runtime.workers:
                worker = Worker(load, runtime)
                busy[worker.connection] = worker
                worker.ask(number := waiting.popleft(), shards[number])
            for connection in cast(list[Connection], wait(list(busy))):
                worker, number = busy[connection], busy[connection].number
                match worker.receive():
                    case int(done):
                        progress(done, len(shards))
                    case bytes(file):
                        if waiting:
                            worker.ask(following := waiting.popleft(), shards[following])
                        else:
                            busy.pop(connection).end()
                        yield number, file
                    case None:
                        busy.pop(connection).end()
                        killed[number] += 1
                        refuse_loss(number, killed[number], worker.process.returncode)
                        waiting.appendleft(number)
                    case error:
                        raise error
    finally:
        for worker in busy.values():
            worker.end()


def refuse_loss(number: int, times: int, code: int) -> None:
    """Raises StepError if a shard has cost so many processes that another one would be lost too."""
    if times == ATTEMPTS:
        raise StepError(
            f"shard {number} was lost {times} times, its process killed by {signal.Signals(-code).name}, often for "
            "want of memory: lower runtime.workers or sft_data.sampling.batch_size; finished shards are kept, run again"
        )
