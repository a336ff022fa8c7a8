"""Judges mathematical answers in tiers: text, exact value, and algebra where only algebra can tell.

Algebra is math-verify's, in processes of its own with a time limit for each pair and for the batch: sympy can take
minutes over twenty characters, a signal stops it in the main thread alone and a thread never (math-verify #50 and
#55, verl #5839).
"""

import json
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from stages.contract import StepError, count_cores
from stages.math_answers import compare_text, is_plain

Pair = tuple[str, str]
"""(gold, answer)."""
Verdicts = dict[Pair, bool | None]
WORKER = Path(__file__).with_name("math_worker.py")
PART = 128


@dataclass(frozen=True)
class VerifierLimits:
    """What algebra may use."""

    round_seconds: tuple[float, ...] = (0.25, 1.0, 3.0)
    """Time of a pair in each round; one it was too short for waits until all others had their turn."""
    batch_seconds: float = 15.0
    """Time of all pairs of one call; what is left then cannot be judged."""
    memory_bytes: int = 2 << 30
    """Address space of each worker."""
    recycle_after: int = 2000
    """Pairs a worker judges before a new one takes its place: sympy's caches only grow."""
    workers: int = 0
    """Processes; 0 = one for each core."""


@dataclass
class Worker:
    """A process that compares one pair at a time."""

    pid: int
    connection: Connection
    pair: Pair = ("", "")
    due: float = 0.0
    """When it must have answered, in `time.monotonic` seconds."""
    judged: int = 0

    def ask(self, pair: Pair, due: float) -> None:
        self.pair, self.due = pair, due
        # A worker that has died is seen when its answer is read.
        with suppress(BrokenPipeError):
            self.connection.send_bytes(json.dumps(pair).encode())

    def receive(self) -> bool | None:
        """Its verdict; None if it died over the pair."""
        try:
            verdict: bool | None = json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            return None
        return verdict


class Verifier:
    """A pool of workers; one that hangs, dies or has judged many is replaced.

    They are forked by a process of their own: multiprocessing's would run the caller's script once more.
    """

    def __init__(self, limits: VerifierLimits = VerifierLimits()) -> None:
        self.limits = limits
        self.control, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", str(WORKER), str(theirs.fileno()), str(limits.memory_bytes)]
            self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self.idle = [self.start_worker() for _ in range(limits.workers or count_cores())]
        self.lock = threading.Lock()

    def start_worker(self) -> Worker:
        ours, theirs = Pipe()
        with theirs, suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.control, [b"start"], [theirs.fileno()])
            if pid := self.control.recv(64):
                return Worker(int(pid), ours)
        raise StepError("a verifier process did not start; is math-verify installed in this environment?")

    def end_worker(self, worker: Worker) -> None:
        self.control.sendall(b"%d" % worker.pid)
        self.control.recv(64)
        worker.connection.close()

    def compare(self, pairs: Iterable[Pair]) -> Verdicts:
        """Verdict of each different pair, None for one that could not be judged in time or crashed its worker."""
        deadline = time.monotonic() + self.limits.batch_seconds
        with self.lock:
            verdicts: Verdicts = dict.fromkeys(pairs)
            for seconds in self.limits.round_seconds:
                # What hangs is long more often than not.
                late = sorted((pair for pair, verdict in verdicts.items() if verdict is None), key=measure_length)
                verdicts |= self.run_round(late, seconds, deadline)
            return verdicts

    def run_round(self, pairs: Iterable[Pair], seconds: float, deadline: float) -> Verdicts:
        waiting, busy = deque(pairs), dict[Connection, Worker]()
        verdicts: Verdicts = {}
        while waiting or busy:
            while waiting and self.idle and time.monotonic() < deadline:
                worker = self.idle.pop()
                worker.ask(waiting.popleft(), min(time.monotonic() + seconds, deadline))
                busy[worker.connection] = worker
            if not busy:
                break
            soonest = min(worker.due for worker in busy.values())
            answered = set(wait(list(busy), max(0.0, soonest - time.monotonic())))
            for connection in [c for c, w in busy.items() if c in answered or w.due <= time.monotonic()]:
                worker = busy.pop(connection)
                verdicts[worker.pair] = worker.receive() if connection in answered else None
                self.idle.append(self.renew(worker, verdicts[worker.pair]))
        return verdicts

    def renew(self, worker: Worker, verdict: bool | None) -> Worker:
        """The worker, or a new one in its place."""
        worker.judged += 1
        if verdict is not None and worker.judged < self.limits.recycle_after:
            return worker
        self.end_worker(worker)
        return self.start_worker()

    def stop(self) -> None:
        self.control.close()
        self.server.wait()
        for worker in self.idle:
            worker.connection.close()


def measure_length(pair: Pair) -> int:
    return sum(map(len, pair))


def find_ungradable(golds: Iterable[str]) -> set[str]:
    """Gold answers that are neither words nor a value nor read by the parser: only their own spelling would match."""
    hard = sorted({gold for gold in golds if not is_plain(gold)})
    # In parts, each with the time of a batch: a long list must not be refused for its length.
    parts = [hard[start : start + PART] for start in range(0, len(hard), PART)]
    return {gold for part in parts for (gold, _), same in compare_with_themselves(part).items() if not same}


def compare_with_themselves(golds: Sequence[str]) -> Verdicts:
    return load_verifier().compare((gold, gold) for gold in golds)


@cache
def load_verifier() -> Verifier:
    return Verifier()


def judge_answers(pairs: Sequence[Pair]) -> list[bool | None]:
    """Whether each answer is its gold one; None where nobody can tell. Equal pairs are judged once."""
    verdicts = {pair: compare_text(*pair) for pair in dict.fromkeys(pairs)}
    hard = [pair for pair, verdict in verdicts.items() if verdict is None]
    if hard:
        verdicts |= load_verifier().compare(hard)
    return [verdicts[pair] for pair in pairs]
