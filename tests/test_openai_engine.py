"""Sampling from servers: what is asked, and that nothing is lost or doubled whatever they do."""

import asyncio
import json
import shutil
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stages.contract import ConfigError, DataError, Runtime, StepError
from stages.engines import Completion, Sampling, load_engine
from stages.engines.openai_engine import OpenAIEngine, Patience
from stages.engines.prompting import derive_seeds
from tests.loopback_server import Body, Died, LoopbackServer, complete, expected_text, serve

TEXTS = [f"What is {a} + {b}?" for a in range(6) for b in range(5)]
SAMPLING = Sampling(n=2, batch_size=4, max_completion_length=12)
# Short pauses, but time enough for a busy machine to answer.
BRISK = Patience(pause=0.001, longest_pause=0.01, check_every=0.05, all_down=60)
Reply = tuple[int, bytes, dict[str, str]]
Script = Callable[[int, Body], Reply]


def healthy(number: int, body: Body) -> Reply:
    return complete(body)


def failing(status: int, message: str, **headers: str) -> Script:
    return lambda number, body: (status, json.dumps({"error": {"message": message}}).encode(), headers)


def saying(payload: bytes) -> Script:
    return lambda number, body: (200, payload, {})


def choosing(**changes: object) -> Script:
    """A healthy answer, but for `changes` in its choice."""

    def script(number: int, body: Body) -> Reply:
        status, payload, headers = complete(body)
        answer = json.loads(payload)
        answer["choices"][0] |= changes
        return status, json.dumps(answer).encode(), headers

    return script


def at_first(count: int, script: Script) -> Script:
    return lambda number, body: script(number, body) if number <= count else complete(body)


def connect(
    model_dir: Path, servers: Sequence[LoopbackServer], patience: Patience = BRISK, **options: str
) -> OpenAIEngine:
    return OpenAIEngine(model_dir, [server.url for server in servers], patience=patience, **options)


def expect(engine: OpenAIEngine, texts: Sequence[str], seed: int, sampling: Sampling = SAMPLING) -> list[list[str]]:
    encoded = engine.tokenizer(list(texts))["input_ids"]
    return [
        [expected_text({"prompt": tokens, "seed": first + sample}) for sample in range(sampling.n)]
        for tokens, first in zip(encoded, derive_seeds(seed, texts), strict=True)
    ]


def check_complete(engine: OpenAIEngine) -> None:
    groups = engine.extend(TEXTS, SAMPLING, 7)
    assert [[c.text for c in group] for group in groups] == expect(engine, TEXTS, 7)
    assert {(c.tokens, c.finish_reason) for group in groups for c in group} == {(3, "stop")}


def test_completions_stand_where_their_prompts_do_whenever_they_arrive(micro_base: Path) -> None:
    """Of each four requests side by side the server answers the last first."""
    answered: set[int] = set()
    changed = threading.Condition()

    def script(number: int, body: Body) -> Reply:
        with changed:
            assert changed.wait_for(lambda: number % 4 == 0 or number + 1 in answered, 30)
            answered.add(number)
            changed.notify_all()
        return complete(body)

    with serve(script) as servers:
        check_complete(connect(micro_base, servers))


def test_a_request_says_all_that_decides_its_completion(micro_base: Path) -> None:
    with serve(healthy) as servers:
        engine = connect(micro_base, servers, key="secret")
        engine.sample(["What is 2 + 3?"], Sampling(n=2, temperature=0.6, top_p=0.95, max_completion_length=2000), 7)
    rendered = engine.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 2 + 3?"}], add_generation_prompt=True, tokenize=False
    )
    tokens = engine.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    (seed,) = derive_seeds(7, [rendered])
    assert sorted(servers[0].asked, key=lambda body: body["seed"]) == [
        {
            "model": "policy",
            "prompt": tokens,
            "max_tokens": engine.context - len(tokens),
            "temperature": 0.6,
            "top_p": 0.95,
            "seed": seed + sample,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        for sample in range(2)
    ]
    assert servers[0].keys == {"Bearer secret"}


def test_seeds_follow_from_run_text_and_repetition() -> None:
    assert derive_seeds(0, ["a", "b"]) == derive_seeds(0, ["b", "a"])[::-1]
    assert derive_seeds(0, ["a"]) != derive_seeds(1, ["a"])
    assert len(set(derive_seeds(0, ["a"] * 1000))) == 1000
    assert all(0 <= seed < 2**30 for seed in derive_seeds(3, TEXTS))


def test_requests_in_flight_are_bounded_and_shared(micro_base: Path) -> None:
    both_work = threading.Barrier(8)

    def script(number: int, body: Body) -> Reply:
        if number <= 4:
            both_work.wait(30)
        return complete(body)

    with serve(script, script) as servers:
        check_complete(connect(micro_base, servers))
    assert [server.most_in_flight for server in servers] == [4, 4]
    assert sum(len(server.asked) for server in servers) == 2 * len(TEXTS)


def test_a_dead_servers_requests_go_to_the_other(micro_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    def dying(number: int, body: Body) -> Reply:
        if number == 6:
            raise Died
        return complete(body)

    with serve(dying, healthy) as servers:
        check_complete(connect(micro_base, servers))
        repeated = Counter((str(b["prompt"]), b["seed"]) for server in servers for b in server.asked)
    # Only what the dead one held was asked twice.
    assert len(repeated) == 2 * len(TEXTS) and sum(repeated.values()) - len(repeated) <= SAMPLING.batch_size
    assert f"127.0.0.1:{servers[0].port}" in caplog.text


def test_a_server_that_hangs_is_given_up(micro_base: Path) -> None:
    started = threading.Event()

    def hanging(number: int, body: Body) -> Reply:
        started.set()
        servers[0].healthy.clear()
        servers[0].healthy.wait()
        return complete(body)

    def waiting(number: int, body: Body) -> Reply:
        assert started.wait(30)
        return complete(body)

    with serve(hanging, waiting) as servers:
        check_complete(connect(micro_base, servers, replace(BRISK, check=0.5)))
    assert servers[0].asked


def test_a_server_that_comes_back_takes_part_again(micro_base: Path) -> None:
    reborn: list[LoopbackServer] = []

    def dying(number: int, body: Body) -> Reply:
        if number == 1:
            servers[0].die()
            reborn.append(LoopbackServer(healthy, servers[0].port))
        raise Died

    with serve(dying) as servers:
        try:
            check_complete(connect(micro_base, servers))
        finally:
            reborn[0].die()
    assert len(reborn[0].asked) == 2 * len(TEXTS)


def test_without_any_server_the_step_fails_and_names_them(micro_base: Path) -> None:
    with serve(healthy, healthy) as servers:
        for server in servers:
            server.die()
        with pytest.raises(StepError, match="no server of R1_ENDPOINTS has answered") as caught:
            connect(micro_base, servers, replace(BRISK, all_down=0.1)).extend(TEXTS, SAMPLING, 0)
    assert all(f"127.0.0.1:{server.port}: ConnectError" in str(caught.value) for server in servers)


def test_a_death_costs_a_request_one_try(micro_base: Path) -> None:
    """Whoever loses a request asks whether the server lives before it takes another."""

    def dying(number: int, body: Body) -> Reply:
        raise Died

    one_by_one = SAMPLING.model_copy(update={"batch_size": 1})
    with serve(dying) as servers, pytest.raises(StepError, match="no server of R1_ENDPOINTS has answered"):
        connect(micro_base, servers, replace(BRISK, tries=2, all_down=0.5)).extend(TEXTS[:1], one_by_one, 0)


UNUSABLE: dict[str, tuple[Script, str]] = {
    "500": (failing(500, "engine is gone"), "answered 500: .*engine is gone"),
    "503": (failing(503, "loading"), "answered 503"),
    "no JSON": (saying(b"<html>proxy</html>"), "no usable its answer"),
    "cut JSON": (saying(b'{"choices": [{"text": "4'), "Invalid JSON"),
    "truncated UTF-8": (saying(b'{"choices": [{"text": "\xe4\xbd", "finish_reason": "stop"}]}'), "Invalid JSON"),
    "half a surrogate pair": (saying(b'{"choices": [{"text": "\\ud83d", "finish_reason": "stop"}]}'), "Invalid JSON"),
    "no choices": (saying(b'{"choices": [], "usage": {"completion_tokens": 1}}'), "choices: List should have at least"),
    "no usage": (saying(b'{"choices": [{"text": "4", "finish_reason": "stop"}]}'), "usage: Field required"),
    "no text": (choosing(text=None), r"choices.0.text: Input should be a valid string"),
    "aborted": (choosing(finish_reason="abort"), r"choices.0.finish_reason: Input should be 'stop' or 'length'"),
}


@pytest.mark.parametrize(("script", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_a_server_fails_to_do_is_asked_again(micro_base: Path, script: Script, message: str) -> None:
    with serve(at_first(7, script)) as servers:
        check_complete(connect(micro_base, servers))
    assert len(servers[0].asked) >= 2 * len(TEXTS) + 7
    with serve(script) as servers, pytest.raises(StepError, match=f"a request failed 8 times.*{message}"):
        connect(micro_base, servers).extend(TEXTS[:1], SAMPLING, 0)


def test_a_server_that_only_fails_does_not_draw_the_requests_to_it(micro_base: Path) -> None:
    """It answers at once, the other one only when all of its own hands are full."""
    with serve(failing(500, "out of memory"), healthy) as servers:
        check_complete(connect(micro_base, servers))
    assert len(servers[1].asked) >= 2 * len(TEXTS)


def test_a_failure_now_and_then_does_not_count_as_a_death(micro_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    def script(number: int, body: Body) -> Reply:
        return failing(500, "again")(number, body) if number % 4 == 0 else complete(body)

    with serve(script) as servers:
        check_complete(connect(micro_base, servers))
    assert not caplog.text


def test_a_busy_server_is_asked_later(micro_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float, real: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        pauses.append(seconds)
        await real(min(seconds, 0.01))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with serve(at_first(60, failing(429, "slow down", **{"Retry-After": "9"}))) as servers:
        check_complete(connect(micro_base, servers))
    assert pauses.count(9.0) == 60
    with serve(failing(429, "quota")) as servers, pytest.raises(StepError, match=r"busy 120 times.*429.*quota"):
        connect(micro_base, servers).extend(TEXTS[:1], SAMPLING, 0)


def test_pauses_double_up_to_a_limit() -> None:
    assert [Patience().pause_before(attempt) for attempt in (1, 2, 3, 7, 8, 1000)] == [0.5, 1, 2, 30, 30, 30]


def test_a_refusal_is_told_at_once_with_the_servers_words(micro_base: Path) -> None:
    with (
        serve(failing(400, "temperature is not a number")) as servers,
        pytest.raises(StepError, match=r"answered 400: .*temperature is not a number.*R1_ENDPOINTS"),
    ):
        connect(micro_base, servers).extend(TEXTS, SAMPLING, 0)
    assert len(servers[0].asked) <= SAMPLING.batch_size


def test_a_server_with_a_shorter_context_is_told_of(micro_base: Path) -> None:
    with (
        serve(choosing(finish_reason="length")) as servers,
        pytest.raises(StepError, match="stopped after 3 of 12 tokens: its context is shorter"),
    ):
        connect(micro_base, servers).extend(TEXTS, SAMPLING, 0)


def test_all_servers_serve_one_model(micro_base: Path) -> None:
    with serve(healthy, healthy) as servers:
        servers[1].models = ["other"]
        with pytest.raises(ConfigError, match=r"serves (other; expected the model 'policy'|policy; .*'other')"):
            connect(micro_base, servers).extend(TEXTS, SAMPLING, 0)
    with serve(healthy) as servers:
        servers[0].models = ["policy", "adapter"]
        with pytest.raises(ConfigError, match="serves adapter, policy; expected one model, or its name in R1_MODEL"):
            connect(micro_base, servers).extend(TEXTS, SAMPLING, 0)
        connect(micro_base, servers, model="adapter").extend(TEXTS[:1], SAMPLING, 0)
        assert {body["model"] for body in servers[0].asked} == {"adapter"}


def test_a_prompt_that_fills_the_context_is_asked_of_nobody(micro_base: Path) -> None:
    reports: list[tuple[int, int]] = []
    with serve(healthy) as servers:
        engine = connect(micro_base, servers)
        too_long = engine.extend(["1" * 400], SAMPLING, 0)
        groups = engine.extend(["1" * 400, *TEXTS[:2]], SAMPLING, 0, lambda d, t, **metrics: reports.append((d, t)))
    assert too_long == [groups[0]] == [[Completion("", 0, "prompt_too_long")] * 2]
    assert [[c.text for c in group] for group in groups[1:]] == expect(engine, TEXTS[:2], 0)
    assert reports == [(1, 2), (2, 2)]


def test_what_the_template_writes_of_a_completion_is_part_of_it(
    micro_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(healthy) as servers:
        engine = connect(micro_base, servers)
        monkeypatch.setattr(engine.tokenizer, "chat_template", engine.tokenizer.chat_template + "{{ '<think>\\n' }}")
        ((completion,),) = engine.sample(["Hello"], SAMPLING.model_copy(update={"n": 1}), 0)
    assert completion.text == f"<think>\n{expected_text(servers[0].asked[0])}"


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        ("", "R1_ENDPOINTS is not set; expected base URLs"),
        (" , ", "R1_ENDPOINTS is not set"),
        ("http://a/v1,user:hidden@b:8000/v1", "is no http.* URL at place 2"),
    ],
)
def test_endpoints_come_from_the_environment(
    servable_base: Path, monkeypatch: pytest.MonkeyPatch, endpoints: str, message: str
) -> None:
    monkeypatch.setenv("R1_ENDPOINTS", endpoints)
    with pytest.raises(ConfigError, match=message) as caught:
        load_engine("openai", servable_base, Runtime())
    assert "hidden" not in str(caught.value)


def test_the_engine_is_loaded_from_the_environment(servable_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(healthy, healthy) as servers:
        monkeypatch.setenv("R1_ENDPOINTS", ", ".join(server.url for server in servers))
        monkeypatch.setenv("R1_API_KEY", "secret")
        engine = load_engine("openai", servable_base, Runtime())
        assert engine.extend([], SAMPLING, 0) == []
        assert len(engine.extend(TEXTS, SAMPLING, 0)) == len(TEXTS)
    assert set.union(*(server.keys for server in servers)) == {"Bearer secret"}


@pytest.mark.parametrize("engine", ["openai", "vllm"])
def test_a_policy_of_which_vllm_would_leave_out_a_part_is_refused(
    micro_base: Path, tmp_path: Path, engine: str
) -> None:
    policy = shutil.copytree(micro_base, tmp_path / "policy")
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps({**config, "attention_bias": True}))
    with pytest.raises(DataError, match=r"attention output biases .* which vLLM leaves out for qwen3: .*; use engine"):
        load_engine(engine, policy, Runtime())


def test_the_vllm_engine_names_the_interpreter_it_needs(servable_base: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine 'vllm' .*No module named 'vllm'; run `make vllm` and set runtime"):
        load_engine("vllm", servable_base, Runtime(device="cpu"))
