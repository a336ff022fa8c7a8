"""Bad input of a step: one clear message, the right class and exit code, nothing published."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stages.__main__ import CONFIG, DATA, main, run_spec
from stages.contract import DataError
from stages.reasoning_rl import ReasoningRLConfig, train_reasoning_rl
from stages.rows import Prompt, read_rows, write_rows
from stages.training.pretraining import import_checkpoint
from tests import micro_model


@pytest.fixture
def checkpoint(micro_base: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(micro_base, tmp_path / "checkpoint"))


def refuse(source: Path, target: Path, message: str) -> None:
    target.mkdir()
    with pytest.raises(DataError, match=message):
        import_checkpoint(source, target)
    assert not list(target.iterdir())


def test_a_sound_checkpoint_is_imported(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    assert import_checkpoint(checkpoint, target)["source"] == "checkpoint"
    for name in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        assert (target / name).read_bytes() == (checkpoint / name).read_bytes()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "weights.pkl", "model.ckpt"])
def test_pickled_weights_are_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (checkpoint / name).write_bytes(b"\x80\x04.")
    refuse(checkpoint, tmp_path / "out", f"pickled weights .*{name}.*which can run code when loaded")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", tmp_path / "out", "is not a checkpoint folder; expected a config.json")
    refuse(tmp_path / "nowhere", tmp_path / "out2", "is not a checkpoint folder")


def test_a_checkpoint_without_weights_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    refuse(checkpoint, tmp_path / "out", r"has no weights; expected \*\.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    file = checkpoint / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refuse(checkpoint, tmp_path / "out", "checkpoint cannot be loaded: ")


def test_a_tokenizer_without_a_chat_template_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    refuse(checkpoint, tmp_path / "out", "has no chat template")


def test_a_split_that_is_missing_or_would_be_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'train' .* would be empty"):
        write_rows([], tmp_path, "train")
    with pytest.raises(DataError, match="has no split 'train'"):
        read_rows(tmp_path, "train")


def test_a_prompt_longer_than_the_context_is_refused(micro_base: Path, tmp_path: Path) -> None:
    prompts = [*micro_model.make_prompts("math", 4), Prompt("math-train-x", "math", "en", "1" * 400, "5")]
    write_rows([prompt.to_row() for prompt in prompts], tmp_path / "prompts", "train")
    config = ReasoningRLConfig(steps=3, prompts_per_step=2, num_generations=2, minibatches=1)
    context = micro_model.make_context(tmp_path, policy=micro_base, prompts=tmp_path / "prompts")
    expected = r"longest prompt has 40\d tokens and .* is 32768, expected no more than .* context of 384 in all; lower"
    with pytest.raises(DataError, match=expected):
        train_reasoning_rl(config, context)


def run_step(folder: Path, module: str, name: str, config: dict[str, Any], **inputs: Path) -> tuple[int, str]:
    """(exit code, error) of a step as its process reports them."""
    context = micro_model.make_context(folder)
    spec = {
        "module": f"stages.{module}",
        "config": config,
        "runtime": {"device": "cpu"},
        "inputs": {role: str(path) for role, path in inputs.items()},
        "output_dir": str(context.output_dir),
        "scratch_dir": str(context.scratch_dir),
        "progress_path": str(folder / "progress"),
        "result_path": str(folder / "result"),
    }
    code = run_spec(name, spec)
    return code, json.loads((folder / "result").read_text())["error"]


def test_a_row_longer_than_max_length_ends_the_process_with_the_code_for_data(micro_base: Path, tmp_path: Path) -> None:
    write_rows(micro_model.make_sft_rows(4), tmp_path / "data", "train")
    inputs = {"base": micro_base, "data": tmp_path / "data"}
    code, error = run_step(tmp_path, "cold_start", "cold_start_sft", {"max_length": 20}, **inputs)
    assert code == DATA and "expected at most max_length=20; raise it" in error
    assert "\n" not in error
    assert not list((tmp_path / "output").iterdir())


@pytest.mark.parametrize(
    ("config", "field"),
    [({"num_generations": 1}, "num_generations"), ({"stepz": 1}, "stepz"), ({"steps": "many"}, "steps")],
)
def test_a_config_that_cannot_be_names_its_field(tmp_path: Path, config: dict[str, Any], field: str) -> None:
    code, error = run_step(tmp_path, "reasoning_rl", "reasoning_rl", config)
    assert code == CONFIG and field in error


@pytest.mark.parametrize(
    ("domain", "shares", "code", "message"),
    [
        ("greetings", {"math": 1.0}, DATA, "no prompts rewarded by 'rule'"),
        ("math", {"math": 0.0}, DATA, "no prompts rewarded by 'rule'"),
        ("math", {"code": 1.0}, CONFIG, "domain_shares has no 'math'"),
    ],
)
def test_prompts_that_rl_cannot_draw_from(
    micro_base: Path, tmp_path: Path, domain: str, shares: dict[str, float], code: int, message: str
) -> None:
    write_rows([prompt.to_row() for prompt in micro_model.make_prompts(domain, 3)], tmp_path / "prompts", "train")
    inputs = {"policy": micro_base, "prompts": tmp_path / "prompts"}
    config = {"domain_shares": shares}
    ended, error = run_step(tmp_path, "reasoning_rl", "reasoning_rl", config, **inputs)
    assert ended == code and message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask"], "ask lacks --model or --question; expected the folder of a policy and a text"),
        (["ask", "--model", "policy"], "ask lacks --model or --question"),
        (["sft"], "--spec is missing; expected the JSON file of the step"),
    ],
)
def test_a_command_that_lacks_something_says_what(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=str(CONFIG)):
        main(arguments)
    assert message in capsys.readouterr().err
