"""Sampling from OpenAI-compatible servers, as `vllm serve` starts them, over their /completions.

Where they are is no part of a profile: R1_ENDPOINTS holds their base URLs, separated by commas, R1_API_KEY the
key if they want one, R1_MODEL the model's name if they serve several. That they serve the policy whose folder
the engine is given is up to who starts them. Each completion is one request, in tokens and with a seed of its
own; its text is the server's, which leaves out half a character at the end. Servers take requests from one
queue; what a dead one was asked goes back there, and when it answers again it takes part again.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, Field, ValidationError

from stages.contract import ConfigError, Progress, Runtime, StepError, no_progress
from stages.engines import Completion, Sampling
from stages.engines.prompting import TOO_LONG, PromptingEngine, check_servable, derive_seeds

ENDPOINTS, API_KEY, MODEL = "R1_ENDPOINTS", "R1_API_KEY", "R1_MODEL"
# What a server would else take from the model's generation config.
NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
BUSY = 429
TRANSIENT = (408, 425, BUSY)
Shape = TypeVar("Shape", bound=BaseModel)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long, in seconds, and how often servers are given another chance."""

    tries: int = 8
    """Of one request, before the step fails."""
    busy_tries: int = 120
    """Of one request, where the answer is that the server is busy (429)."""
    failures: int = 5
    """In a row after which a server counts as down, whatever it says of itself."""
    pause: float = 0.5
    """Before the second try; doubles with each."""
    longest_pause: float = 30
    check_every: float = 15
    """Between two health checks of a server that is at work."""
    check: float = 30
    """Longest health check."""
    request: float = 4 * 3600
    """Longest request."""
    all_down: float = 600
    """Without any server, before the step fails: so long they may take to load."""

    def pause_before(self, attempt: int) -> float:
        return min(self.longest_pause, self.pause * 2.0 ** min(attempt - 1, 30))


class ServerError(Exception):
    """A server did not do what it was asked, and may do it another time."""

    def __init__(self, message: str, busy: bool = False, pause: float = 0.0) -> None:
        super().__init__(message)
        self.busy, self.pause = busy, pause


class Choice(BaseModel):
    text: str
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    completion_tokens: int


class Answer(BaseModel):
    """What is read of an answer of /completions to a request for one completion."""

    choices: Annotated[list[Choice], Field(min_length=1, max_length=1)]
    usage: Usage


class Model(BaseModel):
    id: str


class ModelList(BaseModel):
    """What is read of an answer of /models."""

    data: Annotated[list[Model], Field(min_length=1)]


@dataclass(frozen=True)
class Request:
    """One completion to make: sample `sample` of text `number`."""

    number: int
    sample: int
    tokens: Sequence[int]
    max_tokens: int
    seed: int
    failures: int = 0
    refusals: int = 0
    """Times a server was too busy for it."""


class Server:
    """One endpoint. `failures` are those since its last answer, `trouble` the last of them."""

    def __init__(self, url: str, client: httpx2.AsyncClient, patience: Patience) -> None:
        self.url, self.client, self.patience = url.rstrip("/"), client, patience
        # The address may hold a password.
        self.name = urlsplit(url).netloc.rpartition("@")[2]
        self.failures, self.trouble = 0, "not asked yet"

    async def list_models(self) -> list[str]:
        """Ids of its models. Raises ServerError if it does not answer."""
        listed = await self._call(ModelList, "GET", "models", self.patience.check)
        return [model.id for model in listed.data]

    async def complete(self, body: Mapping[str, Any]) -> Completion:
        answer = await self._call(Answer, "POST", "completions", self.patience.request, body)
        choice, tokens = answer.choices[0], answer.usage.completion_tokens
        if choice.finish_reason == "length" and tokens < body["max_tokens"]:
            message = f"server {self.name} stopped after {tokens} of {body['max_tokens']} tokens"
            raise StepError(f"{message}: its context is shorter than the policy's; start it with a larger one")
        return Completion(choice.text, tokens, choice.finish_reason)

    async def _call(
        self, shape: type[Shape], method: str, path: str, seconds: float, body: Mapping[str, Any] | None = None
    ) -> Shape:
        timeout = httpx2.Timeout(seconds, connect=self.patience.check, pool=None)
        try:
            response = await self.client.request(method, f"{self.url}/{path}", json=body, timeout=timeout)
        except httpx2.RequestError as error:
            raise ServerError(f"server {self.name}: {type(error).__name__} {error}".rstrip()) from error
        if not response.is_success:
            self._refuse(response)
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "its answer"
            raise ServerError(f"server {self.name} answered /{path} with no usable {field}: {first['msg']}") from error

    def _refuse(self, response: httpx2.Response) -> None:
        """Raises ServerError where another try may help, else StepError with what the server says."""
        status = response.status_code
        message = f"server {self.name} answered {status}: {response.text[:500].strip()}"
        if status >= 500 or status in TRANSIENT:
            wanted = response.headers.get("retry-after", "")
            raise ServerError(message, status == BUSY, float(wanted) if wanted.isdecimal() else 0.0)
        raise StepError(f"{message}; see {ENDPOINTS}, {API_KEY}, {MODEL} and how the server was started")


class Dispatch:
    """The requests of one call on their way through the servers."""

    def __init__(
        self, servers: Sequence[Server], requests: Sequence[Request], sampling: Sampling, patience: Patience, model: str
    ) -> None:
        self.servers, self.sampling, self.patience, self.model = servers, sampling, patience, model
        self.pending: asyncio.Queue[Request] = asyncio.Queue()
        for request in requests:
            self.pending.put_nowait(request)
        self.answers: asyncio.Queue[tuple[Request, Completion]] = asyncio.Queue()
        self.last_sign = asyncio.get_running_loop().time()

    async def serve(self, server: Server) -> None:
        """Keeps `server` at work while it lives and waits for it while it does not; ends only by an error."""
        attempt = 0
        while True:
            await self._await_health(server)
            if attempt := attempt + 1 if server.failures else 0:
                await asyncio.sleep(self.patience.pause_before(attempt))
            tasks = [asyncio.create_task(self._work(server)) for _ in range(self.sampling.batch_size)]
            tasks.append(asyncio.create_task(self._watch(server)))
            try:
                await asyncio.gather(*tasks)
            except ServerError as error:
                logger.warning("%s; its requests go to the others", error)
            finally:
                await cancel(tasks)

    async def _work(self, server: Server) -> None:
        """Asks one request after the other. Raises ServerError if the server is down."""
        while True:
            request = await self.pending.get()
            try:
                completion = await server.complete(self._write_body(request))
            except ServerError as error:
                await self._try_again(server, request, error)
            except asyncio.CancelledError:
                self.pending.put_nowait(request)
                raise
            else:
                server.failures = 0
                self.answers.put_nowait((request, completion))

    def _write_body(self, request: Request) -> dict[str, Any]:
        drawn = {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p, "seed": request.seed}
        asked = {"model": self.model, "prompt": request.tokens, "max_tokens": request.max_tokens}
        return {**asked, **drawn, **NEUTRAL}

    async def _try_again(self, server: Server, request: Request, error: ServerError) -> None:
        """Puts `request` back after a pause. Raises ServerError if the server is down, StepError after the last try."""
        failures, refusals = request.failures + (not error.busy), request.refusals + error.busy
        if failures >= self.patience.tries or refusals >= self.patience.busy_tries:
            raise StepError(f"a request failed {failures} times and found servers busy {refusals} times; last, {error}")
        server.failures, server.trouble = server.failures + (not error.busy), str(error)
        try:
            if server.failures >= self.patience.failures:
                raise error
            await self._check(server)
            await asyncio.sleep(max(error.pause, self.patience.pause_before(failures + refusals)))
        finally:
            self.pending.put_nowait(replace(request, failures=failures, refusals=refusals))

    async def _watch(self, server: Server) -> None:
        """Raises ServerError when a server that keeps its connections no longer answers."""
        while True:
            await asyncio.sleep(self.patience.check_every)
            await self._check(server)

    async def _await_health(self, server: Server) -> None:
        """Returns when `server` answers. Raises StepError when no server has for too long."""
        attempt = 0
        while True:
            try:
                return await self._check(server)
            except ServerError as error:
                server.trouble = str(error)
                if not attempt:
                    logger.warning("%s; waiting for it", error)
            silent = asyncio.get_running_loop().time() - self.last_sign
            if silent > self.patience.all_down:
                troubles = "; ".join(server.trouble for server in self.servers)
                raise StepError(f"no server of {ENDPOINTS} has answered for {silent:.0f} s: {troubles}")
            attempt += 1
            await asyncio.sleep(self.patience.pause_before(attempt))

    async def _check(self, server: Server) -> None:
        """Raises ServerError if the server is down, ConfigError if it is not clear that it serves the same model."""
        listed = await server.list_models()
        self.last_sign = asyncio.get_running_loop().time()
        if not self.model and len(listed) == 1:
            self.model = listed[0]
        if self.model not in listed:
            expected = f"the model '{self.model}'" if self.model else f"one model, or its name in {MODEL}"
            raise ConfigError(f"server {server.name} serves {', '.join(sorted(listed)[:5])}; expected {expected}")


class OpenAIEngine(PromptingEngine):
    """A policy's template and tokenizer here, the policy itself behind the servers at `urls`."""

    def __init__(
        self, model_dir: Path, urls: Sequence[str], key: str = "", model: str = "", patience: Patience | None = None
    ) -> None:
        super().__init__(model_dir)
        self.urls, self.key, self.model, self.patience = urls, key, model, patience or Patience()

    def extend(
        self, texts: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        encoded, fitting = self._encode(texts)
        seeds = derive_seeds(seed, texts)
        results = [[TOO_LONG] * sampling.n for _ in texts]
        requests = [
            Request(number, sample, encoded[number], self._limit(encoded[number], sampling), seeds[number] + sample)
            for number in fitting
            for sample in range(sampling.n)
        ]
        if requests:
            asyncio.run(self._ask(requests, sampling, results, progress))
        return results

    def _limit(self, tokens: Sequence[int], sampling: Sampling) -> int:
        return min(sampling.max_completion_length, self.context - len(tokens))

    async def _ask(
        self, requests: Sequence[Request], sampling: Sampling, results: list[list[Completion]], progress: Progress
    ) -> None:
        """Fills `results` with a completion for each request. Progress is in texts."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        # Servers drop idle connections after 5 s (uvicorn): not to be met halfway.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2)
        async with httpx2.AsyncClient(headers=headers, limits=limits) as client:
            servers = [Server(url, client, self.patience) for url in self.urls]
            dispatch = Dispatch(servers, requests, sampling, self.patience, self.model)
            tasks = [asyncio.create_task(dispatch.serve(server)) for server in servers]
            tasks.append(asyncio.create_task(keep_answers(dispatch.answers, requests, results, progress)))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                await cancel(tasks)


async def keep_answers(
    answers: asyncio.Queue[tuple[Request, Completion]],
    requests: Sequence[Request],
    results: list[list[Completion]],
    progress: Progress,
) -> None:
    """Puts each answer in its place, until every request has one."""
    left = Counter(request.number for request in requests)
    total = len(left)
    while left:
        request, completion = await answers.get()
        results[request.number][request.sample] = completion
        left[request.number] -= 1
        if not left[request.number]:
            del left[request.number]
            progress(total - len(left), total)


async def cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def load(model_dir: Path, runtime: Runtime) -> OpenAIEngine:
    """Raises ConfigError if the environment names no servers, DataError for a policy that vLLM cannot serve."""
    check_servable(model_dir)
    urls = [url.strip() for url in os.environ.get(ENDPOINTS, "").split(",") if url.strip()]
    wrong = [number for number, url in enumerate(urls, 1) if not is_web_address(url)]
    if not urls or wrong:
        # The address itself may hold a password.
        found = f"is no http(s) URL at place {wrong[0]}" if wrong else "is not set"
        example = "http://127.0.0.1:8000/v1,http://127.0.0.1:8001/v1"
        raise ConfigError(f"{ENDPOINTS} {found}; expected base URLs of OpenAI-compatible servers, as {example}")
    return OpenAIEngine(model_dir, urls, os.environ.get(API_KEY, ""), os.environ.get(MODEL, ""))


def is_web_address(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)
