"""Prefect's own server for the length of one run, on a free port of the loopback interface.

Not Prefect's ephemeral mode: that server belongs to the terminal's process group, so Ctrl-C ends it
before the run, which then spends minutes trying to report to it.
"""

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.provenance import SOURCE_ROOT
from pipeline.store import make_folder
from pipeline.supervisor import start_supervised
from stages.contract import StepError

HOST = "127.0.0.1"
START_SECONDS = 90.0
"""A first start makes the database: 15 s on an idle two-core machine."""
POLL_SECONDS = 0.1


@contextmanager
def serve_prefect(log: Path) -> Iterator[str]:
    """Runs a server that keeps its history where Prefect always does; yields the address of its API.

    Raises StepError if it does not start.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    address = f"http://{HOST}:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    make_folder(log.parent)
    with log.open("ab") as file:
        server = start_supervised(command, file, {"PYTHONPATH": str(SOURCE_ROOT), "PREFECT_API_URL": address})
    try:
        wait_until_healthy(server, port, log)
        yield address
    finally:
        server.terminate()
        server.wait()


def wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(port):
        if server.poll() is not None or time.monotonic() > deadline:
            raise StepError(f"Prefect's server did not start (log: {log}); `--local` runs without it")
        time.sleep(POLL_SECONDS)


def is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
