"""Judges mathematical answers in tiers: text, exact value, and algebra where only algebra can tell.

Algebra is math-verify's, in processes of its own with a time limit for each pair and for the batch: sympy can take
minutes over twenty characters, a signal stops it in the main thread alone and a thread never (math-verify #50 and
#55, verl #5839).
"""

import importlib
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext

from stages.contract import StepError
from stages.math_answers import compare_text

Pair = tuple[str, str]
"""(gold, answer)."""
Verdicts = dict[Pair, bool | None]
WORKER = "stages.math_worker"
START_SECONDS = 60.0


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

    process: multiprocessing.process.BaseProcess
    connection: Connection
    pair: Pair = ("", "")
    due: float = 0.0
    """When it must have answered, in `time.monotonic` seconds."""
    judged: int = 0

    def ask(self, pair: Pair, due: float) -> None:
        self.pair, self.due = pair, due
        # A worker that has died is seen when its answer is read.
        with suppress(BrokenPipeError):
            self.connection.send(pair)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class Verifier:
    """A pool of workers; one that hangs, dies or has judged many is replaced."""

    def __init__(self, limits: VerifierLimits = VerifierLimits()) -> None:
        self.limits = limits
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([WORKER])
        self.idle = [self.start_worker() for _ in range(limits.workers or os.cpu_count() or 1)]
        self.lock = threading.Lock()

    def start_worker(self) -> Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=serve, args=(theirs, self.limits.memory_bytes), daemon=True)
        process.start()
        theirs.close()
        # Where another forkserver ran already, it has not loaded the parser: that takes a second, which is no pair's.
        if not ours.poll(START_SECONDS) or not receive(Worker(process, ours)):
            raise StepError("a verifier process did not start; is math-verify installed in this environment?")
        return Worker(process, ours)

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
            while waiting and self.idle:
                worker = self.idle.pop()
                worker.ask(waiting.popleft(), min(time.monotonic() + seconds, deadline))
                busy[worker.connection] = worker
            soonest = min(worker.due for worker in busy.values())
            answered = set(wait(list(busy), max(0.0, soonest - time.monotonic())))
            for connection in [c for c, w in busy.items() if c in answered or w.due <= time.monotonic()]:
                worker = busy.pop(connection)
                verdicts[worker.pair] = receive(worker) if connection in answered else None
                self.idle.append(self.renew(worker, verdicts[worker.pair]))
        return verdicts

    def renew(self, worker: Worker, verdict: bool | None) -> Worker:
        """The worker, or a new one in its place."""
        worker.judged += 1
        if verdict is not None and worker.judged < self.limits.recycle_after:
            return worker
        worker.stop()
        return self.start_worker()

    def stop(self) -> None:
        for worker in self.idle:
            worker.stop()


def measure_length(pair: Pair) -> int:
    return sum(map(len, pair))


def receive(worker: Worker) -> bool | None:
    """Its verdict; None if it died over the pair."""
    try:
        verdict: bool | None = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    return verdict


def serve(connection: Connection, memory_bytes: int) -> None:
    """What a worker runs until it is killed or its parent is gone."""
    worker = importlib.import_module(WORKER)
    worker.limit_memory(memory_bytes)
    connection.send(True)
    while True:
        try:
            pair = connection.recv()
        except EOFError:
            return
        connection.send(worker.compare(*pair))


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
