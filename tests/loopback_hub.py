"""As much of the Hugging Face Hub on the loopback interface as `datasets` asks for: datasets at one commit.

python -m tests.loopback_hub SOURCE...      opens each, given as JSON, and prints what it is or why it is not
"""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from stages.contract import PipelineError
from stages.hub_rows import HubRows
from stages.problem_files import RowSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """The address of a Hub with these datasets: their files by path, by id."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(repositories))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_handler(repositories: Mapping[str, Mapping[str, bytes]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).removeprefix("/api").strip("/").split("/")
            id, action, revision, path = "/".join(parts[1:3]), *(*parts[3:5], "", "")[:2], "/".join(parts[5:])
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            files = repositories.get(id)
            if files is None or parts[0] != "datasets":
                self.refuse("RepoNotFound")
            elif revision not in ("", "main", COMMIT):
                self.refuse("RevisionNotFound")
            elif action == "resolve":
                self.send(files[path]) if path in files else self.refuse("EntryNotFound")
            elif action == "tree":
                self.send_json([describe(name, text) for name, text in files.items() if name.startswith(path)])
            elif action == "paths-info":
                asked = json.loads(body)["paths"]
                self.send_json([describe(name, files[name]) for name in asked if name in files])
            else:
                self.send_json({"id": id, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})

        do_HEAD = do_POST = do_GET

        def refuse(self, code: str) -> None:
            self.reply(404, b"", {"X-Error-Code": code})

        def send_json(self, value: Any) -> None:
            self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def send(self, text: bytes) -> None:
            self.reply(200, text, {"X-Repo-Commit": COMMIT, "ETag": f'"{hash(text):x}"'})

        def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def describe(name: str, text: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(text), "oid": f"{hash(text):x}"}


def open_source(given: str) -> dict[str, Any]:
    try:
        rows = RowSource.model_validate_json(given).open()
    except PipelineError as error:
        return {"error": type(error).__name__, "message": str(error)}
    assert isinstance(rows, HubRows)
    return {"name": rows.name, "stem": rows.stem, "rows": list(rows.read_rows())}


if __name__ == "__main__":
    print(json.dumps([open_source(given) for given in sys.argv[1:]]))
