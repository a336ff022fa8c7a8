"""What a sampling process runs: loads once, then makes the shards it is sent.

python -m stages.executors.local_worker DESCRIPTOR
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from stages.contract import PipelineError


def serve(connection: Connection) -> None:
    """Answers the first message, a `Load`, and each (number, shard) after it, with files, progress or an error."""
    messages = read_messages(connection)

    def report(done: int, total: int, **metrics: float | str) -> None:
        connection.send(done)

    try:
        maker = next(messages)()
        for number, shard in messages:
            connection.send(maker.make_file(number, shard, report))
    except (PipelineError, MemoryError, RuntimeError) as error:
        # Torch's lack of memory is a RuntimeError; the step knows what to say of it.
        connection.send(error)
        raise


def read_messages(connection: Connection) -> Iterator[Any]:
    with suppress(EOFError):
        while True:
            yield connection.recv()


def leave_with_step() -> None:
    """However the step ends, its end of standard input is closed; a shard in hand would hold this process for long."""
    # Nothing buffered: a lock that this thread holds would abort an interpreter that ends.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=leave_with_step, daemon=True).start()
    serve(Connection(int(sys.argv[1])))
