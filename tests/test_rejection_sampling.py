"""Stage 3: quotas, filters and what is written down about them."""

from collections import Counter
from pathlib import Path

import pytest

from stages import rejection_sampling
from stages.assembly import REASONS
from stages.contract import DataError, Metrics, StepContext
from stages.engines import Sampling
from stages.rejection_sampling import LOCAL_REASONS, STEPS, SFTDataConfig, make_sft_data, scale_targets
from stages.rows import Prompt, read_rows, split_completion, write_rows
from tests.micro_model import make_prompts
from tests.scripted_engine import ScriptedEngine

EVERYTHING = {"math", "code", "stem", "logic", "writing", "factual_qa", "self_cognition", "translation"}


def test_quotas_keep_the_papers_proportions() -> None:
    quotas = scale_targets(SFTDataConfig(scale=0.01), EVERYTHING)
    assert abs(sum(quotas.values()) - 8047) <= 4
    assert (quotas["math"], quotas["code"], quotas["stem"], quotas["logic"]) == (3953, 2111, 101, 104)
    assert quotas["writing"] == quotas["translation"] == 445
    assert sum(SFTDataConfig().targets.values()) == 804_745


def test_the_share_of_a_domain_that_is_off_goes_to_the_others() -> None:
    whole = scale_targets(SFTDataConfig(scale=0.01), EVERYTHING)
    rest = scale_targets(SFTDataConfig(scale=0.01), EVERYTHING - {"code", "writing"})
    assert "code" not in rest and "writing" not in rest
    assert abs(sum(rest.values()) - 8047) <= 4
    assert rest["math"] / rest["logic"] == pytest.approx(whole["math"] / whole["logic"], rel=0.02)
    assert rest["math"] > whole["math"]
    general = [domain for domain in rest if domain not in ("math", "stem", "logic")]
    assert sum(rest[domain] for domain in general) / sum(rest.values()) == pytest.approx(177_812 / 593_616, rel=0.01)


def test_without_a_domain_there_is_no_set() -> None:
    with pytest.raises(DataError, match="general_shares; got: greetings"):
        scale_targets(SFTDataConfig(), {"greetings"})


@pytest.fixture
def prompts(tmp_path: Path) -> dict[str, Prompt]:
    made = [p for name in ("math", "logic", "self_cognition", "greetings") for p in make_prompts(name, 20)]
    write_rows([prompt.to_row() for prompt in made], tmp_path / "prompts", "train")
    return {prompt.question: prompt for prompt in made}


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, prompts: dict[str, Prompt], config: SFTDataConfig) -> Metrics:
    def answer(question: str, number: int) -> str:
        """Right, right again, wrong, unreadable, mixed, unfinished; then right in other words."""
        gold = prompts[question].demonstration
        thoughts, summary = split_completion(gold)
        kinds = {
            2: f"<think>{thoughts}</think>\\boxed{{x}}",
            3: summary,
            4: gold.replace("<think>", "<think>Yes 好的."),
        }
        return kinds.get(number, gold if number != 6 else gold.replace("</think>", " </think>"))

    engine = ScriptedEngine(answer, unfinished=[5])
    monkeypatch.setattr(rejection_sampling, "load_engine", lambda name, model_dir, runtime: engine)
    inputs = {"policy": folder / "policy", "prompts": folder / "prompts"}
    output = folder / "out"
    output.mkdir()
    return make_sft_data(config, StepContext(inputs, output, folder))


def test_funnel_and_composition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: dict[str, Prompt]) -> None:
    config = SFTDataConfig(
        targets={"math": 12, "logic": 60, "general": 8},
        general_shares={"self_cognition": 3.0, "greetings": 1.0},
        sampling=Sampling(n=7),
        per_prompt=1,
    )
    metrics = run(tmp_path, monkeypatch, prompts, config)
    assert [step["filter"] for step in metrics["funnel"]] == ["sampled", *LOCAL_REASONS, *REASONS]
    assert {step["filter"]: step["dropped"] for step in metrics["funnel"] if step["dropped"]} == {
        "unfinished": 40,
        "format": 40,
        "wrong answer": 40,
        "mixed language": 40,
        "duplicate": 40,
        "near duplicate": 40,
        "over quota": 8,
    }
    for before, after in zip(metrics["funnel"], metrics["funnel"][1:], strict=False):
        assert before["left"] - after["dropped"] == after["left"]
    rows = read_rows(tmp_path / "out", "train")
    assert Counter(row["domain"] for row in rows) == metrics["composition"]
    assert metrics["composition"] == {"math": 12, "logic": 20, "self_cognition": 6, "greetings": 2}
    assert metrics["shortfall"] == {"logic": 40}
    assert metrics["remedies"]["logic"].startswith(
        "logic has 20 of 60 rows from 20 prompts, 20 of them solved: about 40"
    )
    assert metrics["rows"] == len(rows) == 40 and metrics["full_set"] == config.targets
    assert metrics["solve_rate"] == pytest.approx(4 / 7)
    assert all(row["completion"][0]["content"] == prompts[row["prompt"][0]["content"]].demonstration for row in rows)
    assert {row["source"] for row in rows if row["domain"] in ("math", "logic")} == {"reasoning_rl"}
    assert {row["source"] for row in rows if row["domain"] not in ("math", "logic")} == {"demonstration"}


def test_data_come_from_the_rl_checkpoint_and_weights_from_the_base() -> None:
    inputs = {step.name: dict(step.inputs) for step in STEPS}
    assert inputs["sft_data"]["policy"] == "reasoning_rl"
    assert inputs["sft"] == {"base": "base_model", "data": "sft_data"}
