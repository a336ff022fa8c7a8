"""Runs untrusted programs in a service that speaks Piston's HTTP interface, for machines without a sandbox.

Confinement is the service's; the verdict is still formed here, from what the program wrote. Whatever
the service fails to do is SandboxError. Its `PISTON_OUTPUT_MAX_SIZE` has to be at least
`Limits.output_bytes`: a program that writes more than the service keeps is wrong.
"""

import http.client
import json
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from stages.contract import ConfigError
from stages.sandbox_backends import Limits, RunResult, SandboxError, read_harness

URL_VARIABLE = "R1_SANDBOX_URL"
PATIENCE_SECONDS = 30.0
"""For transfer and queues, beyond what the program may take itself."""


@dataclass(frozen=True)
class Service:
    url: str
    """Without the `/execute` at its end, as `http://localhost:2000/api/v2`."""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ConfigError(
                f"{URL_VARIABLE} is {self.url!r}; expected an http(s) URL as http://localhost:2000/api/v2"
            )

    @property
    def name(self) -> str:
        return f"service {self.url}"

    def execute(self, request: bytes, stdin: str, limits: Limits) -> RunResult:
        """Result of the harness and its marshalled request. Raises SandboxError."""
        program = read_harness().replace("main(read_request())", f"main({request!r})")
        task = {"language": "python", "version": "*", "files": [{"name": "program.py", "content": program}]}
        run = self.post({**task, "stdin": stdin}, limits.wall_seconds + PATIENCE_SECONDS)
        # XX is Piston's for a failure of its own, TO for a program that took too long.
        if not isinstance(run, dict) or run.get("status") == "XX" or not isinstance(run.get("stdout"), str):
            raise SandboxError(f"{self.name} answered {str(run)[:200]}; expected what a program wrote")
        code = run.get("code")
        stdout = run["stdout"].encode(errors="replace")
        return RunResult(stdout, code if isinstance(code, int) else -1, run.get("status") == "TO")

    def post(self, task: dict[str, Any], seconds: float) -> object:
        """What the service tells about the run."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url.rstrip('/')}/execute", json.dumps(task).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                return json.load(response).get("run")
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            raise SandboxError(f"{self.name} failed: {error}") from error
