"""What verifier processes run: math-verify on one gold answer and one answer.

Started as a script of its own: it loads the parser once and forks a worker for each connection it is sent, so that a
worker costs milliseconds and nothing of the caller is copied or imported again.
"""

import json
import logging
import os
import resource
import signal
import socket
import sys
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

# The pool limits the time of a pair from outside; the library says at each call that nobody does.
logging.getLogger("math_verify").setLevel(logging.ERROR)

EXTRACTION = (
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True, malformed_operators=True, nits=True),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    ),
)
"""Those of TRL's `accuracy_reward`, and the short forms that LaTeX allows, as `\\sqrt3` and `\\frac12`."""


def serve_verifier(control: socket.socket, memory_bytes: int) -> None:
    """Until the verifier is gone: forks a worker for a connection (answers its pid), ends the worker of a pid."""
    workers: set[int] = set()
    while True:
        message, fds, _, _ = socket.recv_fds(control, 64, 1)
        if fds:
            pid = os.fork()
            if not pid:
                control.close()
                serve_pairs(Connection(fds[0]), memory_bytes)
            os.close(fds[0])
            workers.add(pid)
            control.sendall(b"%d" % pid)
        elif message:
            workers.remove(end_worker(int(message)))
            control.sendall(b"ended")
        else:
            break
    for pid in workers:
        end_worker(pid)


def end_worker(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[0]


def serve_pairs(connection: Connection, memory_bytes: int) -> None:
    """A worker: judges pairs, JSON both ways, until it is ended or nobody asks any more."""
    # An expression that grows without end must not take the machine along.
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    try:
        while True:
            connection.send_bytes(json.dumps(compare(*json.loads(connection.recv_bytes()))).encode())
    except (EOFError, BrokenPipeError):
        os._exit(0)
    finally:
        # Whatever ends a worker, it must not go on as the server it was forked from.
        os._exit(1)


def compare(gold: str, answer: str) -> bool | None:
    """Whether two LaTeX expressions are equal; None if the gold one is no expression, so that only text can match."""
    expected = parse_gold(gold)
    if all(isinstance(form, str) for form in expected):
        return None
    return bool(verify(expected, parse_box(answer), timeout_seconds=None))


@lru_cache(maxsize=4096)
def parse_gold(gold: str) -> list[Any]:
    return parse_box(gold)


def parse_box(text: str) -> list[Any]:
    """Parsed forms of an expression, none if it is not one."""
    parsed: list[Any] = parse(f"\\boxed{{{text}}}", EXTRACTION, extraction_mode="first_match", parsing_timeout=None)
    return parsed


# The first expression costs half a second of tables; every process forked from here starts with them.
compare("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}")

if __name__ == "__main__":
    serve_verifier(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
