"""What is published can be read with the tools everybody has."""

from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import load_profile
from pipeline.planner import plan_run
from pipeline.runner import run_plan
from pipeline.store import Artifact, Store
from stages import base_model, prompts
from stages.rows import THINK_CLOSE, THINK_OPEN, user_turn
from tests import micro_model

STEPS = (*base_model.STEPS, *prompts.STEPS)
PROFILE = {
    "project": "micro",
    "runtime": {"threads": 1, "device": "cpu"},
    "domains": {
        "math": {"train": 20, "dev": 4, "test": 6},
        "greetings": {"train": 10, "dev": 4, "test": 4},
    },
    "base_model": micro_model.BASE.model_dump(mode="json", exclude={"seed"}),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Artifacts of a base model and of prompts, made by the real runner."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "micro.yaml").write_text(yaml.safe_dump(PROFILE))
    profile = load_profile(folder / "micro.yaml", (), STEPS)
    store = Store(folder / "artifacts", profile.project)
    run_plan(plan_run(STEPS, profile, store), STEPS, profile, store)
    return {step.name: store.history(step.name)[-1] for step in STEPS}


def test_a_policy_loads_and_generates(published: dict[str, Artifact]) -> None:
    folder = published["base_model"].path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen3"
    assert model.num_parameters() == published["base_model"].record.metrics["parameters"]
    tokens = tokenizer.apply_chat_template(user_turn("2+3?"), add_generation_prompt=True, return_tensors="pt")
    generated = model.generate(**tokens, max_new_tokens=5)
    assert generated.shape[1] > tokens["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_nothing_else_lies_beside_the_weights(published: dict[str, Artifact]) -> None:
    folder: Path = published["base_model"].path
    suffixes = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jsonl", ".jinja", ".md"}


def test_think_tags_are_ordinary_tokens(published: dict[str, Artifact]) -> None:
    """Special ones would be dropped in decoding, and the format reward would be constantly 0."""
    tokenizer = AutoTokenizer.from_pretrained(published["base_model"].path)
    text = f"{THINK_OPEN}2+3=5 好{THINK_CLOSE}The answer is 5."
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode([*tokens, tokenizer.eos_token_id], skip_special_tokens=True) == text
    for tag in (THINK_OPEN, THINK_CLOSE):
        assert len(tokenizer(tag, add_special_tokens=False)["input_ids"]) == 1


def test_each_digit_is_a_token(published: dict[str, Artifact]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published["base_model"].path)
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_dataset_loads(published: dict[str, Artifact], split: str, tmp_path: Path) -> None:
    artifact = published["prompts"]
    files = {split: str(artifact.path / "data" / f"{split}-*.parquet")}
    rows = load_dataset("parquet", data_files=files, split=split, cache_dir=str(tmp_path))
    assert len(rows) == sum(artifact.record.metrics["rows"][split].values())
    assert rows[0]["prompt"][0]["role"] == "user" and rows[0]["prompt"][0]["content"]
    assert {"id", "domain", "language", "answer", "reasoning", "reward", "checks"} <= set(rows.column_names)
