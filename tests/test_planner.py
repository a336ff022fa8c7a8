"""What a run would do, and the reason it gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cleaning import collect_garbage
from pipeline.config import load_profile
from pipeline.planner import PlannedStep, Selection, plan_run
from pipeline.recipe import R1, check_recipe, resolve_recipe
from pipeline.store import Store
from stages.contract import ArtifactError, ConfigError, Step
from tests.toy_stage import STEPS, run_toy, write_profile

ALL = [step.name for step in STEPS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the toy recipe has run once; tests of this module only read it."""
    folder = tmp_path_factory.mktemp("made")
    write_profile(folder)
    run_toy(folder)
    return folder


def plan(folder: Path, *overrides: str, steps: tuple[Step, ...] = STEPS, **selection: Any) -> dict[str, PlannedStep]:
    profile = load_profile(folder / "toy.yaml", overrides, steps)
    store = Store(folder / "artifacts", profile.project)
    return {p.step: p for p in plan_run(steps, profile, store, Selection(**selection))}


def to_run(planned: dict[str, PlannedStep]) -> list[str]:
    return [name for name, step in planned.items() if step.action == "run"]


def test_an_empty_store_runs_everything(tmp_path: Path) -> None:
    write_profile(tmp_path)
    planned = plan(tmp_path)
    assert to_run(planned) == ALL
    assert planned["source"].reason == "no version yet"
    assert planned["refine"].reason == "upstream weigh, source will run"
    assert planned["source"].fingerprint and planned["refine"].fingerprint is None
    assert not (tmp_path / "artifacts").exists()


def test_nothing_changed_reuses_everything(made: Path) -> None:
    planned = plan(made)
    assert to_run(planned) == []
    assert {step.reason for step in planned.values()} == {"same fingerprint"}
    assert planned["weigh"].version == 1


def test_one_setting_reruns_what_depends_on_it_and_is_named(made: Path) -> None:
    planned = plan(made, "refine.scale=2")
    assert to_run(planned) == ["refine", "evaluate_refine"]
    assert planned["refine"].reason == "refine.scale 1.0 -> 2.0"
    assert planned["evaluate_refine"].reason == "upstream refine will run"


def test_a_longer_run_is_an_extension_while_the_state_of_the_shorter_one_is_there(tmp_path: Path) -> None:
    write_profile(tmp_path)
    steps = tuple(replace(step, extendable="scale") if step.name == "refine" else step for step in STEPS)
    run_toy(tmp_path, steps=steps)
    reasons = [plan(tmp_path, f"refine.scale={n}", steps=steps)["refine"].reason for n in (2, 0.5)]
    assert reasons == ["extend refine.scale 1.0 -> 2.0 from refine@v1", "refine.scale 1.0 -> 0.5"]
    forced = plan(tmp_path, "refine.scale=2", steps=steps, force=("refine",))
    assert forced["refine"].reason == "forced"
    other = plan(tmp_path, "refine.scale=2", "refine.seed=1", steps=steps)["refine"].reason
    assert "extend" not in other
    store = Store(tmp_path / "artifacts", "toy")
    collect_garbage(store, delete=True)
    assert plan(tmp_path, "refine.scale=2", steps=steps)["refine"].reason == "refine.scale 1.0 -> 2.0"


def test_runtime_changes_nothing(made: Path) -> None:
    assert to_run(plan(made, "runtime.threads=7", "runtime.per_device_batch_size=1")) == []


def test_a_revision_is_a_change(made: Path) -> None:
    steps = tuple(replace(step, revision=2) if step.name == "weigh" else step for step in STEPS)
    assert plan(made, steps=steps)["weigh"].reason == "revision of weigh 1 -> 2"


def test_same_content_upstream_stops_a_change(tmp_path: Path) -> None:
    write_profile(tmp_path)
    run_toy(tmp_path)
    run_toy(tmp_path, "source.label=b")
    planned = plan(tmp_path, "source.label=b")
    assert to_run(planned) == []
    assert planned["source"].version == 2
    assert planned["weigh"].version == 1
    assert plan(tmp_path)["source"].version == 1


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"only": ("weigh",)}, ["source", "weigh"]),
        ({"only": ("reasoning_rl",)}, ["source", "weigh", "refine"]),
        ({"only": ("evaluation",)}, ALL),
        ({"until": "refine"}, ["source", "weigh", "refine"]),
        ({"from_step": "refine"}, ["source", "weigh", "refine", "evaluate_refine"]),
        ({"from_step": "weigh", "until": "evaluate_weigh"}, ["source", "weigh", "evaluate_weigh"]),
        ({"only": ("evaluate_weigh",), "use": ("weigh@v1",)}, ["weigh", "evaluate_weigh"]),
    ],
)
def test_selections(made: Path, selection: dict[str, object], expected: list[str]) -> None:
    assert list(plan(made, **selection)) == expected


def test_force_takes_steps_and_stages(made: Path) -> None:
    planned = plan(made, force=("reasoning_rl",))
    assert to_run(planned) == ["refine", "evaluate_refine"]
    assert planned["refine"].reason == "forced" and planned["refine"].forced
    assert not planned["evaluate_refine"].forced
    assert to_run(plan(made, force=("evaluate_weigh",))) == ["evaluate_weigh"]


def test_use_pins_a_version_whatever_its_config(made: Path) -> None:
    planned = plan(made, "weigh.scale=9", use=("weigh@v1",))
    assert to_run(planned) == []
    assert planned["weigh"].reason == "pinned by --use weigh@v1"


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ({"only": ("weight",)}, ConfigError, "step 'weight' does not exist; expected one of: source"),
        ({"until": "x"}, ConfigError, "step 'x' does not exist"),
        ({"force": ("x",)}, ConfigError, "step 'x' does not exist"),
        ({"use": ("weigh",)}, ConfigError, "expected STEP@vN"),
        ({"use": ("x@v1",)}, ConfigError, "step 'x' does not exist"),
        ({"use": ("weigh@v9",)}, ArtifactError, "weigh@v9 is not in .*versions of weigh there: weigh@v1"),
        ({"use": ("weigh@v1",), "force": ("weigh",)}, ConfigError, "contradict"),
        ({"only": ("source",), "use": ("weigh@v1",)}, ConfigError, "--use weigh@v1: not part of this run.*: source"),
        ({"until": "weigh", "force": ("evaluation",)}, ConfigError, "--force evaluation: not part of this run"),
        ({"from_step": "refine", "until": "weigh"}, ConfigError, "leave no step"),
    ],
)
def test_wrong_selections(made: Path, selection: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan(made, **selection)


def test_damage_is_named_in_the_plan_and_refused_unless_forced(tmp_path: Path) -> None:
    write_profile(tmp_path)
    run_toy(tmp_path)
    (tmp_path / "artifacts/toy/weigh/v1/model.safetensors").unlink()
    planned = plan(tmp_path)
    assert planned["weigh"].reason == "damaged: model.safetensors is missing in weigh@v1"
    for refused in (lambda: plan(tmp_path, use=("weigh@v1",)), lambda: run_toy(tmp_path)):
        with pytest.raises(ArtifactError, match=r"weigh@v1 is damaged: model\.safetensors is missing.*--force weigh"):
            refused()
    assert not (tmp_path / "artifacts/toy/weigh/v2").exists()
    assert plan(tmp_path, force=("weigh",))["weigh"].reason == "forced"
    (tmp_path / "artifacts/toy/weigh/v1/record.json").write_text("{")
    assert plan(tmp_path)["weigh"].reason == "damaged: record.json of weigh@v1"


def named(name: str, **inputs: str) -> Step:
    return replace(STEPS[0], name=name, inputs=inputs)


def resolve(tmp_path: Path, text: str) -> dict[str, Step]:
    path = tmp_path / "profile.yaml"
    path.write_text(f"project: p\ndomains: {{math: {{train: 10}}}}\n{text}")
    steps, profile = resolve_recipe(R1, load_profile(path, (), R1))
    assert list(profile.configs) == [step.name for step in steps]
    return {step.name: step for step in steps}


def test_a_profile_chooses_inputs_and_leaves_steps_out(tmp_path: Path) -> None:
    plain = resolve(tmp_path, "")
    assert list(plain) == [step.name for step in R1] and "r1_zero" not in plain["cold_start_data"].inputs
    chosen = resolve(tmp_path, "cold_start_data: {method: r1_zero}")
    assert chosen["cold_start_data"].inputs["r1_zero"] == "r1_zero"
    assert set(plain) - set(resolve(tmp_path, "leave_out: [r1_zero]")) == {"r1_zero", "evaluate_r1_zero"}
    assert "sft_data" not in resolve(tmp_path, "leave_out: [reasoning_rl]")
    with pytest.raises(ConfigError, match="cold_start_data asks for r1_zero, which leave_out names"):
        resolve(tmp_path, "leave_out: [r1_zero]\ncold_start_data: {method: r1_zero}")
    with pytest.raises(ConfigError, match="leave_out names r2; expected steps or stages"):
        resolve(tmp_path, "leave_out: [r2]")


def test_what_is_left_out_cannot_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("project: p\ndomains: {math: {train: 10}}\nleave_out: [r1_zero]\n")
    steps, profile = resolve_recipe(R1, load_profile(path, (), R1))
    with pytest.raises(ConfigError, match=r"r1_zero: left out by .*profile.yaml; take it from leave_out"):
        plan_run(steps, profile, Store(tmp_path, "p"), Selection(only=("r1_zero",)))


def test_the_lineage_of_the_paper_is_kept() -> None:
    base, data = named("base_model"), named("sft_data", policy="reasoning_rl")
    rl, sft = named("reasoning_rl", policy="base_model"), named("sft", base="base_model", data="sft_data")
    check_recipe([base, rl, data, sft, named("all_scenario_rl", policy="sft")])
    with pytest.raises(ConfigError, match="'sft' takes its base from reasoning_rl; expected base_model: stage 3 res"):
        check_recipe([base, rl, data, named("sft", base="reasoning_rl", data="sft_data")])
    with pytest.raises(ConfigError, match="'all_scenario_rl' takes its policy from reasoning_rl; expected sft"):
        check_recipe([base, rl, data, sft, named("all_scenario_rl", policy="reasoning_rl")])
    with pytest.raises(ConfigError, match="'sft_data' takes its policy from base_model; expected reasoning_rl"):
        check_recipe([base, rl, named("sft_data", policy="base_model")])


def test_a_recipe_is_in_order_and_names_each_step_once() -> None:
    check_recipe(STEPS)
    with pytest.raises(ConfigError, match="from 'b', which comes later"):
        check_recipe([named("a", data="b"), named("b")])
    with pytest.raises(ConfigError, match="from 'b', which does not exist"):
        check_recipe([named("a", data="b")])
    with pytest.raises(ConfigError, match="in the recipe twice"):
        check_recipe([named("a"), named("a")])
    with pytest.raises(ConfigError, match="two Config classes"):
        check_recipe([STEPS[0], replace(STEPS[1], section="source")])
