"""An OpenAI-compatible server on the loopback interface whose answers, failures and death a test decides."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


class Died(Exception):
    """Raised by a script: the server dies with this request unanswered."""


class LoopbackServer:
    """`script(number, body)` gives (status, body, headers) of the `number`-th completion request, from 1."""

    def __init__(self, script: Callable[[int, Body], tuple[int, bytes, dict[str, str]]], port: int = 0) -> None:
        self.script, self.lock = script, threading.Lock()
        self.asked: list[Body] = []
        self.keys: set[str] = set()
        self.models = ["policy"]
        self.in_flight = self.most_in_flight = 0
        self.stopped = threading.Event()
        self.healthy = threading.Event()
        self.healthy.set()
        self.http = ThreadingHTTPServer(("127.0.0.1", port), make_handler(self))
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, body: Body) -> tuple[int, bytes, dict[str, str]]:
        with self.lock:
            self.asked.append(body)
            number = len(self.asked)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return self.script(number, body)
        finally:
            with self.lock:
                self.in_flight -= 1

    def die(self) -> None:
        """Refuses new connections and leaves open ones unanswered."""
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()


def make_handler(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            server.healthy.wait()
            self.reply(200, json.dumps({"data": [{"id": name} for name in server.models]}).encode(), {})

        def do_POST(self) -> None:
            server.keys.add(self.headers.get("Authorization", ""))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self.reply(*server.answer(body))
            except Died:
                server.die()
                self.close_connection = True

        def reply(self, status: int, payload: bytes, headers: dict[str, str]) -> None:
            if server.stopped.is_set():
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(payload)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def expected_text(body: Body) -> str:
    """What a healthy server says: a function of all that decides a completion."""
    return f"{sum(body['prompt']) % 9973} {body['seed']}"


def complete(body: Body) -> tuple[int, bytes, dict[str, str]]:
    choice = {"index": 0, "text": expected_text(body), "finish_reason": "stop"}
    return 200, json.dumps({"choices": [choice], "usage": {"completion_tokens": 3}}).encode(), {}


@contextmanager
def serve(*scripts: Callable[[int, Body], tuple[int, bytes, dict[str, str]]]) -> Iterator[list[LoopbackServer]]:
    """A server for each script."""
    servers = [LoopbackServer(script) for script in scripts]
    try:
        yield servers
    finally:
        for server in servers:
            server.healthy.set()
            if not server.stopped.is_set():
                server.die()
            server.thread.join()
