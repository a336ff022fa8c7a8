"""Sampling: how many, in which order, with which seed, and what does not fit."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, GPT2Config, GPT2LMHeadModel, Qwen3ForCausalLM
from transformers.generation.logits_process import TopPLogitsWarper

from stages.contract import ConfigError, Runtime
from stages.engines import Completion, Engine, Sampling, load_engine
from stages.engines.ask import ask
from stages.engines.decoder import Decoder, Draw
from stages.rows import split_completion

QUESTIONS = ["What is 2+3?", "Tom has 5 apples. How many apples are there now?", "你好，我是小明。", "Hello, I am Tom."]
GREEDY = Sampling(n=1, temperature=0.0, max_completion_length=12)
DRAWN = Sampling(n=3, max_completion_length=12)


@pytest.fixture(scope="module", params=["transformers", "cpu"])
def engine(request: pytest.FixtureRequest, micro_base: Path) -> Engine:
    return load_engine(request.param, micro_base, Runtime(device="cpu"))


@pytest.fixture(scope="module")
def model(micro_base: Path) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM.from_pretrained(micro_base).eval()


def test_greedy_is_deterministic(engine: Engine) -> None:
    assert engine.sample(QUESTIONS, GREEDY, seed=0) == engine.sample(QUESTIONS, GREEDY, seed=1)


def test_sampling_is_a_function_of_the_seed(engine: Engine) -> None:
    first = engine.sample(QUESTIONS, DRAWN, seed=0)
    assert first == engine.sample(QUESTIONS, DRAWN, seed=0)
    assert first != engine.sample(QUESTIONS, DRAWN, seed=1)


def test_n_completions_for_each_question(engine: Engine) -> None:
    groups = engine.sample(QUESTIONS, DRAWN, seed=0)
    assert [len(group) for group in groups] == [3] * 4
    assert len({completion.text for group in groups for completion in group}) > 3
    for completion in (completion for group in groups for completion in group):
        assert 0 < completion.tokens <= 12
        assert completion.finish_reason == "stop" or completion.tokens == 12
        assert "<|" not in completion.text


def test_batches_draw_from_different_random_numbers(engine: Engine) -> None:
    alone = DRAWN.model_copy(update={"batch_size": 1, "n": 1})
    texts = [group[0].text for group in engine.sample(QUESTIONS[:1] * 4, alone, seed=0)]
    assert len(set(texts)) > 1


def test_what_the_template_writes_of_a_completion_is_part_of_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = engine.sample(QUESTIONS, GREEDY, seed=0)
    assert not any(completion.text.startswith("<think>\n") for (completion,) in plain)
    template = engine.tokenizer.chat_template
    monkeypatch.setattr(engine.tokenizer, "chat_template", template + "{{ '<think>\\n' }}")
    for (completion,) in engine.sample(QUESTIONS, GREEDY, seed=0):
        assert completion.text.startswith("<think>\n") and completion.tokens <= 12


def test_results_come_back_in_the_order_of_the_questions(engine: Engine) -> None:
    """Batches are by length; the room that is left tells which text a completion belongs to."""
    sampling = Sampling(n=2, batch_size=2, max_completion_length=400)
    texts = ["1" * length for length in (376, 364, 380, 372)]
    reports: list[tuple[int, int]] = []
    groups = engine.extend(texts, sampling, 0, lambda done, total, **metrics: reports.append((done, total)))
    rooms = [max(completion.tokens for completion in group) for group in groups]
    assert rooms == [8, 20, 4, 12]
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_prompt_that_fills_the_context_is_told_and_moves_nothing_else(engine: Engine) -> None:
    too_long = "1" * 400
    groups = engine.sample([too_long, *QUESTIONS], DRAWN, seed=0)
    assert groups[0] == [Completion("", 0, "prompt_too_long")] * 3
    assert groups[1:] == engine.sample(QUESTIONS, DRAWN, seed=0)
    assert engine.sample([too_long], GREEDY, seed=0) == [[Completion("", 0, "prompt_too_long")]]


def test_a_sample_depends_on_its_prompt_alone(micro_base: Path) -> None:
    """Neither on the order and the size of batches nor on the others; greedy near-ties apart, which none is here."""
    engine = load_engine("cpu", micro_base, Runtime(device="cpu"))
    first = engine.sample(QUESTIONS, DRAWN, seed=0)
    assert engine.sample(QUESTIONS[::-1], DRAWN.model_copy(update={"batch_size": 3}), seed=0) == first[::-1]
    assert engine.sample(QUESTIONS[2:3], DRAWN, seed=0) == first[2:3]


def test_a_long_prompt_cuts_no_answer_of_another(engine: Engine) -> None:
    long = "1 " * 180
    sampling = Sampling(n=1, temperature=0.0, max_completion_length=380)
    answers = engine.sample([*QUESTIONS, long], sampling, seed=0)
    assert answers[:4] == engine.sample(QUESTIONS, sampling, seed=0)
    assert answers[4][0].tokens < 60


def test_no_questions_no_answers(engine: Engine) -> None:
    assert engine.sample([], GREEDY, seed=0) == []


def test_one_question_is_answered_greedily(micro_base: Path) -> None:
    runtime = Runtime(device="cpu")
    greedy = Sampling(n=1, temperature=0.0, max_completion_length=2048)
    expected = load_engine("transformers", micro_base, runtime).sample([QUESTIONS[1]], greedy, seed=3)[0][0].text
    assert ask(micro_base, QUESTIONS[1], runtime) == split_completion(expected)


def test_an_unknown_engine_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'vlm' does not exist; expected one of: cpu, openai, transformers, vllm"):
        load_engine("vlm", tmp_path, Runtime())


def test_the_decoder_is_as_greedy_as_generate(model: Qwen3ForCausalLM) -> None:
    """1,000 prompts of all lengths side by side: rows are padded, end at different times and move up."""
    rng = random.Random(0)
    prompts = [[rng.randrange(4, 300) for _ in range(1 + number % 40)] for number in range(1000)]
    ends = list(range(0, 300, 3))
    decoded = [c.tokens for c in Decoder(model).decode(prompts, 1, 24, Draw(0.0, 1.0, torch.empty(0)), ends)]
    config = GenerationConfig(max_new_tokens=24, do_sample=False, eos_token_id=ends, pad_token_id=0)
    for length in range(1, 41):
        alike = [number for number, prompt in enumerate(prompts) if len(prompt) == length]
        made = model.generate(torch.tensor([prompts[number] for number in alike]), generation_config=config)
        for number, row in zip(alike, made[:, length:].tolist(), strict=True):
            assert decoded[number] == row[: len(decoded[number])]
            assert len(decoded[number]) == 24 or decoded[number][-1] in ends
    assert len({len(tokens) for tokens in decoded}) > 3


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.95), (1.5, 0.8)])
def test_drawn_tokens_follow_the_distribution(model: Qwen3ForCausalLM, temperature: float, top_p: float) -> None:
    """Chi-square of 20,000 first tokens against the model's probabilities, rare tokens taken together."""
    prompt, count = [5, 60, 61, 7], 20_000
    draw = Draw(temperature, top_p, torch.rand((count, 1), generator=torch.Generator().manual_seed(0)))
    tokens = [completion.tokens[0] for completion in Decoder(model).decode([prompt], count, 1, draw, [0])]
    with torch.inference_mode():
        raw = (model(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(dim=-1)
    warper = TopPLogitsWarper(top_p) if top_p < 1 else None
    expected = warper(torch.tensor([prompt]), raw.log()[None])[0].softmax(dim=-1) if warper else raw
    seen = torch.bincount(torch.tensor(tokens), minlength=len(expected)).double()
    assert seen[expected == 0].sum() == 0
    often = expected * count >= 5
    groups = (
        torch.cat([seen[often], seen[~often].sum()[None]]),
        torch.cat([expected[often], expected[~often].sum()[None]]),
    )
    wanted = groups[1].double() * count
    kept = wanted > 0
    statistic = ((groups[0] - wanted)[kept] ** 2 / wanted[kept]).sum()
    freedom = int(kept.sum()) - 1
    assert freedom >= 2
    # Wilson-Hilferty: the cube root of chi-square over its degrees of freedom is nearly normal.
    spread = (2 / (9 * freedom)) ** 0.5
    assert abs((statistic / freedom) ** (1 / 3) - (1 - spread**2)) / spread < 3.5


def test_a_sample_does_not_depend_on_rows_that_end_before_it(model: Qwen3ForCausalLM) -> None:
    """Rows move up as others finish; their random numbers stay their own."""
    uniforms = torch.rand((8, 20), generator=torch.Generator().manual_seed(1))
    prompts, ends = [[5, 60 + number] for number in range(8)], range(0, 300, 5)
    together = Decoder(model).decode(prompts, 1, 20, Draw(1.0, 1.0, uniforms), ends)
    alone = [
        Decoder(model).decode([prompt], 1, 20, Draw(1.0, 1.0, uniforms[n : n + 1]), ends)[0]
        for n, prompt in enumerate(prompts)
    ]
    assert [completion.tokens for completion in together] == [completion.tokens for completion in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
    assert len({len(completion.tokens) for completion in together}) > 1


def test_the_cpu_engine_refuses_another_kind_of_model(micro_base: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(micro_base).save_pretrained(tmp_path)
    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is GPT2LMHeadModel; use engine: transformers"):
        load_engine("cpu", tmp_path, Runtime())
