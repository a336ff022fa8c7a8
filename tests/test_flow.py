"""The recipe as a Prefect flow: the graph it shows, what it makes, what it refuses."""

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import TaskRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from pipeline import flow
from pipeline.planner import Selection
from pipeline.store import Store
from stages.contract import ConfigError, DataError
from tests import toy_stage

ROOT = Path(__file__).resolve().parent.parent
EVENTS_SECONDS = 30
PROFILE = "configs/toy.yaml"


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=60):
        yield


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the toy recipe's profile, as a flow would find it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flow, "R1", toy_stage.STEPS)
    (tmp_path / "configs").mkdir()
    toy_stage.write_profile(tmp_path / "configs")
    return tmp_path


def digests(folder: Path) -> dict[str, str]:
    store = Store(folder / "artifacts", "toy")
    return {step: made[-1].record.digest for step in store.step_names() if (made := store.history(step))}


def read_task_runs(count: int) -> list[TaskRun]:
    """The task runs the server knows; it learns of them from events, a little later."""
    deadline = time.monotonic() + EVENTS_SECONDS
    with get_client(sync_client=True) as client:
        while len(runs := client.read_task_runs()) < count and time.monotonic() < deadline:
            time.sleep(0.2)
    return runs


def test_flow_draws_the_recipe_and_makes_what_local_makes(
    server: None, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    flow.run_with_prefect(PROFILE, Selection(), ())
    runs = read_task_runs(len(toy_stage.STEPS))
    names: dict[UUID, str] = {run.id: run.name for run in runs}
    edges = {
        (names[source.id], run.name)
        for run in runs
        for source in run.task_inputs["inputs"]
        if source.input_type == "task_run"
    }
    assert edges == {(parent, step.name) for step in toy_stage.STEPS for parent in step.inputs.values()}

    local = tmp_path_factory.mktemp("local")
    toy_stage.write_profile(local)
    toy_stage.run_toy(local)
    assert digests(checkout) == digests(local)
    assert flow.r1_pipeline(PROFILE) == {step.name: f"{step.name}@v1" for step in toy_stage.STEPS}


def test_failing_step_raises_its_own_error_once(
    server: None, checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="row 3 has no answer"):
        flow.run_with_prefect(PROFILE, Selection(), ("weigh.fail=data",))
    assert "Traceback" not in capfd.readouterr().err
    assert set(digests(checkout)) == {"source"}


def test_server_that_does_not_answer(checkout: Path) -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ConfigError, match=r"does not answer.*--local"),
    ):
        flow.run_with_prefect(PROFILE, Selection(), ())


@pytest.mark.parametrize("profile", ["/configs/toy.yaml", "configs/../toy.yaml", "toy.yaml", ""])
def test_deployment_takes_profiles_of_the_checkout_only(checkout: Path, profile: str) -> None:
    with pytest.raises(ConfigError, match="relative path below configs/"):
        flow.check_parameters(profile, ())


@pytest.mark.parametrize(
    "override",
    [
        "runtime.interpreter=sh",
        "runtime.launcher=[sh, -c]",
        "runtime.steps.weigh={threads: 2}",
        "runtime={threads: 2}",
        "weigh.marker=os:system",
        "weigh={marker: os:system}",
        "weigh.marker=/etc/passwd",
        "weigh.marker=~/x",
        "weigh.marker=a/../../x",
        'weigh.marker="/tmp/x\\ny"',
    ],
)
def test_deployment_refuses_how_and_where_to_run(checkout: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="worker"):
        flow.check_parameters(PROFILE, (override,))


def test_deployment_takes_identity(checkout: Path) -> None:
    flow.check_parameters(PROFILE, ("weigh.scale=2", "source.label=b", "project=other"))


def test_every_deployment_names_a_flow() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    flows = [getattr(flow, deployment["entrypoint"].removeprefix("pipeline/flow.py:")) for deployment in deployments]
    stages = ["r1-zero", "cold-start", "reasoning-rl", "rejection-sampling", "all-scenario-rl", "evaluation"]
    assert [found.name for found in flows] == ["r1-pipeline", *stages]
    assert {deployment["name"] for deployment in deployments} == {"demo"}
