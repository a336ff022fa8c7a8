"""R1-Zero: its template, what of a completion is read under it, and the step."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from stages.contract import StepContext
from stages.engines import Sampling, load_engine
from stages.r1_zero import TEMPLATE, R1ZeroConfig, train_r1_zero, write_chat_template
from stages.rewards import accuracy, think_format
from stages.rows import ANSWER, THOUGHTS, read_completion, user_turn, write_rows
from tests import micro_model

RENDERED = TEMPLATE.format(prompt="What is 2+3?")
DOCUMENT = "Question: {prompt}\nThoughts:"


@pytest.mark.parametrize("template", [TEMPLATE, DOCUMENT, 'Say "{prompt}" {{ 1 }} \\n.'])
def test_the_template_is_what_the_tokenizer_writes(micro_base: Path, template: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(micro_base)
    tokenizer.chat_template = write_chat_template(template)
    rendered = tokenizer.apply_chat_template(user_turn("2 {{ 3 }} 四?"), add_generation_prompt=True, tokenize=False)
    assert rendered == template.replace("{prompt}", "2 {{ 3 }} 四?")


def test_the_template_is_the_papers() -> None:
    assert TEMPLATE.startswith("A conversation between User and Assistant. The user asks a question,")
    assert TEMPLATE.endswith("<answer> answer here </answer>. User: {prompt}. Assistant:")


@pytest.mark.parametrize("template", ["no place", "{prompt} and {prompt}"])
def test_a_template_has_one_place_for_the_question(template: str) -> None:
    with pytest.raises(ValidationError, match=r"expected \{prompt\} in it once"):
        R1ZeroConfig(template=template)


@pytest.mark.parametrize(
    ("text", "well_formed", "right"),
    [
        (" <think> 2+3=5 </think> <answer> \\boxed{5} </answer>", 1.0, 1.0),
        ("<think>2+3=5</think><answer>\\boxed{6}</answer>", 1.0, 0.0),
        ("<think>2+3=5</think> \\boxed{5}", 0.0, 0.0),
        ("<think>2+3=5</think> <answer>\\boxed{5}", 0.0, 0.0),
        ("<think>2+3=5</think> <answer>\\boxed{5}</answer> and more", 0.0, 0.0),
        ("<think>2+3=5</think> so <answer>\\boxed{5}</answer>", 0.0, 0.0),
        ("<think>2</think><answer>6</answer><think>3</think><answer>\\boxed{5}</answer>", 0.0, 1.0),
        ("<answer>\\boxed{5}</answer>", 0.0, 0.0),
        ("<think></think><answer>\\boxed{5}</answer>", 0.0, 1.0),
    ],
)
def test_answers_stand_in_their_tags(text: str, well_formed: float, right: float) -> None:
    read = read_completion(RENDERED, text)
    row = {"answer": ["5"], "id": ["math-test-1"], "domain": ["math"], "language": ["en"], "checks": ["{}"]}
    known = {**row, "reasoning": ["required"], "reward": ["rule"], "demonstration": [""]}
    assert think_format.reward([read], reasoning=["required"]) == [well_formed]
    assert accuracy.reward([read], prompts=[user_turn("What is 2+3?")], **known) == [right]


def test_a_document_is_read_by_its_headings() -> None:
    assert read_completion(f"Question: 2+3?{THOUGHTS}", f" We add.{ANSWER}5") == "<think> We add.</think> 5"
    assert read_completion(f"Question: 2+3?{THOUGHTS}", " We add.") == " We add."
    assert read_completion("Question: 2+3? Answer:", " We add.") == " We add."


def test_it_trains_from_the_base_model_and_keeps_its_template(micro_base: Path, tmp_path: Path) -> None:
    prompts = [prompt.to_row() for prompt in micro_model.make_prompts("math", 12)]
    write_rows(prompts, tmp_path / "prompts", "train")
    config = R1ZeroConfig(
        template=DOCUMENT,
        steps=2,
        prompts_per_step=2,
        num_generations=2,
        minibatches=1,
        domain_shares={},
        max_completion_length=60,
        save_steps=2,
    )
    made = micro_model.make_context(tmp_path, policy=micro_base, prompts=tmp_path / "prompts")
    context = StepContext(made.inputs, made.output_dir, made.scratch_dir, made.runtime)
    metrics = train_r1_zero(config, context)
    assert metrics["steps"] == 2 and metrics["seconds"]["decode"] >= 0
    log = [json.loads(line) for line in (context.output_dir / "training_log.jsonl").read_text().splitlines()]
    assert "rewards/think_format/mean" in log[0] and "rewards/language_consistency/mean" not in log[0]
    engine = load_engine("cpu", context.output_dir, context.runtime)
    asked, sampling = "What is 2+3?", Sampling(n=1, temperature=0.0, max_completion_length=40)
    (answer,) = engine.sample([asked], sampling, seed=0)[0]
    (raw,) = engine.extend([DOCUMENT.format(prompt=asked)], sampling, seed=0)[0]
    assert answer.text == read_completion(DOCUMENT.format(prompt=asked), raw.text)
