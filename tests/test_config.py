"""Profiles: defaults, shared keys, overrides, and errors that say where and what."""

from pathlib import Path

import pytest

from pipeline.config import Profile, load_profile, profile_model
from pipeline.recipe import R1
from stages.contract import ConfigError
from tests.toy_stage import STEPS, SourceConfig, WeighConfig, write_profile

ROOT = Path(__file__).resolve().parent.parent


def load(folder: Path, *overrides: str, **sections: object) -> Profile:
    return load_profile(write_profile(folder, **sections), overrides, STEPS)


def test_defaults_and_sections(tmp_path: Path) -> None:
    profile = load(tmp_path, weigh={"scale": 2})
    assert profile.project == "toy"
    assert profile.configs["weigh"] == WeighConfig(scale=2.0)
    assert profile.configs["source"] == SourceConfig()
    assert profile.configs["evaluate_weigh"] is profile.configs["evaluate_refine"]
    assert profile.resolved["refine"]["scale"] == 1.0


def test_shared_seed_reaches_every_step_that_does_not_set_its_own(tmp_path: Path) -> None:
    profile = load(tmp_path, "seed=5", seed=3, weigh={"seed": 7})
    assert {name: config.seed for name, config in profile.configs.items()} == {
        "source": 5,
        "weigh": 7,
        "refine": 5,
        "evaluate_weigh": 5,
        "evaluate_refine": 5,
    }


def test_overrides_are_yaml_and_may_make_sections(tmp_path: Path) -> None:
    profile = load(tmp_path, "weigh.scale=1e-4", "project=other", "source.label='7'")
    assert profile.project == "other"
    assert profile.configs["weigh"] == WeighConfig(scale=1e-4)
    assert profile.configs["source"] == SourceConfig(label="7")


def test_runtime_of_a_step(tmp_path: Path) -> None:
    profile = load(tmp_path, runtime={"threads": 2, "steps": {"weigh": {"launcher": ["torchrun"]}}})
    assert profile.runtime_of("weigh").launcher == ("torchrun",)
    assert profile.runtime_of("weigh").threads == 2
    assert profile.runtime_of("source").launcher == ()


@pytest.mark.parametrize(
    ("sections", "overrides", "message"),
    [
        ({"weigh": {"scael": 1}}, [], r"toy\.yaml: weigh\.scael is not a known key; did you mean scale\?"),
        ({"wiegh": {}}, [], "wiegh is not a known key; did you mean weigh"),
        ({"weigh": {"scale": "fast"}}, [], r"toy\.yaml: weigh\.scale is 'fast'; expected a valid number"),
        ({}, ["weigh.scale=fast"], "--set: weigh.scale is 'fast'"),
        ({"seed": "x"}, [], r"toy\.yaml: seed is 'x'; expected a valid integer[^;]*$"),
        ({"weigh": 3}, [], "weigh is 3"),
        ({"project": "../x"}, [], "project is '../x'"),
        ({"runtime": {"executor": "slurm"}}, [], "runtime.executor is 'slurm'; expected 'local' or 'ray'"),
        ({"runtime": {"workers": 0}}, [], r"runtime\.workers is 0; expected greater than or equal to 1"),
        ({"runtime": {"thread": 1}}, [], "runtime.thread is not a known key; did you mean threads"),
        ({"runtime": {"steps": {"weigh": {"thread": 1}}}}, [], "did you mean threads"),
        ({"runtime": {"steps": {"weight": {}}}}, [], r"runtime\.steps\.weight: no such step; did you mean weigh"),
        ({}, ["weigh.scale"], "--set weigh.scale: expected step.field=value"),
        ({}, ["project.x=1"], "'project' is 'toy'; expected a mapping"),
        ({}, ["weigh.scale=[1"], "the value is not YAML"),
    ],
)
def test_errors_name_file_field_and_expectation(
    tmp_path: Path, sections: dict[str, object], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, *overrides, **sections)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("domains.maths.train=3", r"domains: no domain is called maths; expected some of code,"),
        (
            "evaluation.engine=gpu",
            "^--set: evaluation.engine is 'gpu'; expected one of cpu, openai, transformers, vllm",
        ),
        ("helpful_pairs.judge={path: judge, engine: gpu}", "^--set: helpful_pairs.judge.engine is 'gpu'; expected one"),
        ("r1_zero.reward_weights.helpful=1", "reward_weights: no reward is called 'helpful'; expected accuracy, lang"),
        (
            "all_scenario_rl.reward_weights.kind=1",
            "no reward is called 'kind'; expected .*, helpful, saf",
        ),
        (
            "reasoning_rl.minibatches=7",
            "^--set: reasoning_rl: save_steps=40 would cut a rollout; expected a mult",
        ),
    ],
)
def test_names_that_nothing_has_are_refused_before_anything_runs(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_profile(ROOT / "configs" / "demo.yaml", [override], R1)


def test_a_reward_of_ones_own_and_those_of_the_reward_models_are_accepted() -> None:
    override = "all_scenario_rl.reward_weights={mine.rewards:brevity: 0.5, helpful: 1, safety: 1}"
    profile = load_profile(ROOT / "configs" / "demo.yaml", [override], R1)
    assert len(profile.resolved["all_scenario_rl"]["reward_weights"]) == 3


def test_missing_file_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; expected a profile"):
        load_profile(tmp_path / "none.yaml", (), STEPS)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds list; expected a mapping"):
        load_profile(tmp_path / "list.yaml", (), STEPS)
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"is not YAML: .*line 2"):
        load_profile(tmp_path / "broken.yaml", (), STEPS)


def test_profile_is_frozen_and_missing_project_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="project is missing"):
        load_profile(tmp_path / "empty.yaml", (), STEPS)


def test_schema_has_the_docstrings(tmp_path: Path) -> None:
    schema = profile_model(STEPS).model_json_schema()
    assert schema["additionalProperties"] is False
    assert {"project", "runtime", "seed", "source", "weigh", "evaluation"} <= schema["properties"].keys()
    assert schema["$defs"]["WeighConfig"]["properties"]["scale"]["description"] == "Factor of every weight."
