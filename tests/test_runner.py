"""A step in its child process: what it returns, how it fails, what it leaves behind."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import load_profile
from pipeline.planner import Selection, plan_run
from pipeline.progress import PlainReport, ProgressReader, Update
from pipeline.runner import child_environment, describe_code, run_plan, run_step
from pipeline.store import Artifact, Ref, Store
from stages.contract import ArtifactError, ConfigError, DataError, Runtime, StepError, find_step
from tests.toy_stage import STEPS, run_toy, write_profile


def make(
    folder: Path,
    name: str,
    *overrides: str,
    inputs: Mapping[str, Artifact] | None = None,
    force: bool = False,
    extendable: str = "",
) -> tuple[Artifact, list[Update]]:
    profile = load_profile(folder / "toy.yaml", overrides, STEPS)
    store = Store(folder / "artifacts", profile.project)
    updates: list[Update] = []
    step = replace(find_step(STEPS, name), extendable=extendable)
    artifact = run_step(step, profile, store, inputs or {}, force=force, report=updates.append)
    return artifact, updates


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_profile(tmp_path)
    return tmp_path


@pytest.fixture
def source(folder: Path) -> Artifact:
    return make(folder, "source")[0]


def test_a_step_is_made_once(folder: Path, source: Artifact) -> None:
    artifact, updates = make(folder, "weigh", inputs={"data": source})
    assert artifact.ref == Ref("weigh", 1)
    assert artifact.record.metrics == {"loss": 0.1, "unknown": None}
    assert artifact.record.inputs["data"].ref == "source@v1"
    assert artifact.record.provenance.packages["python"]
    assert [update.done for update in updates] == list(range(1, 11))
    again, updates = make(folder, "weigh", inputs={"data": source})
    assert again == artifact and updates == []


def test_force_makes_a_new_version_of_the_same_content_from_a_clean_state(folder: Path, source: Artifact) -> None:
    state = next((folder / "artifacts/toy/.scratch").glob("source-*[0-9a-f]"))
    (state / "left").write_text("state of the first run")
    artifact, _ = make(folder, "source", force=True)
    assert artifact.ref == Ref("source", 2)
    assert artifact.record.digest == source.record.digest
    assert not (state / "left").exists()


@pytest.mark.parametrize(
    ("fail", "error", "message"),
    [
        ("data", DataError, "step 'weigh': row 3 has no answer"),
        ("config", ConfigError, "step 'weigh': scale cannot be 7"),
        ("memory", StepError, "out of memory: .*3 GiB; lower runtime.per_device_batch_size"),
        ("bug", StepError, "exit code 1; log: .*\n(.*\n)*.*KeyError: 'oops'"),
        ("killed", StepError, "killed by SIGKILL, often for want of memory"),
        ("preempted", StepError, "was asked to stop; run again to go on"),
        ("pickle", DataError, "pytorch_model.bin is a pickle"),
    ],
)
def test_failures_are_one_error_and_publish_nothing(
    folder: Path, source: Artifact, fail: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(folder, "weigh", f"weigh.fail={fail}", inputs={"data": source})
    assert list((folder / "artifacts/toy/weigh").iterdir()) == []
    assert make(folder, "weigh", inputs={"data": source})[0].ref == Ref("weigh", 1)


def test_codes_are_told_as_what_they_are() -> None:
    codes = {0: "ended without a result", 1: "failed with exit code 1", 143: "was killed by SIGTERM"}
    killed = "was killed by SIGKILL, often for want of memory"
    assert {code: describe_code(code) for code in codes} == codes
    assert describe_code(137) == describe_code(-9) == killed
    assert describe_code(255) == "failed with exit code 255"


def test_state_of_a_failed_run_is_kept_for_the_next(folder: Path, source: Artifact) -> None:
    for _ in range(2):
        with pytest.raises(DataError):
            make(folder, "weigh", "weigh.fail=data", inputs={"data": source})
    state = next(path for path in (folder / "artifacts/toy/.scratch").glob("weigh-*") if path.is_dir())
    assert (state / "runs").read_text() == "xx"


def test_a_longer_run_goes_on_from_the_state_of_a_shorter_one_and_only_then(folder: Path, source: Artifact) -> None:
    runs = []
    for scale, force in ((1, False), (2, False), (3, False), (2.5, False), (4, True), (5, False)):
        changes = (f"weigh.scale={scale}",)
        artifact, _ = make(folder, "weigh", *changes, inputs={"data": source}, force=force, extendable="scale")
        state = next(path for path in (folder / "artifacts/toy/.scratch").glob("weigh-*") if path.is_dir())
        runs.append((artifact.ref.version, (state / "runs").read_text()))
    assert runs == [(1, "x"), (2, "xx"), (3, "xxx"), (4, "x"), (5, "x"), (6, "xx")]


def test_a_damaged_input_is_refused(folder: Path, source: Artifact) -> None:
    shard = next((source.path / "data").iterdir())
    status = shard.stat()
    shard.write_bytes(bytes(status.st_size))
    os.utime(shard, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with pytest.raises(ArtifactError, match=rf"source@v1 is damaged: data/{shard.name} .* --force source"):
        make(folder, "weigh", inputs={"data": source})


def test_launcher_and_interpreter(folder: Path, source: Artifact) -> None:
    with pytest.raises(StepError, match="failed with exit code 7"):
        make(folder, "weigh", "runtime.steps.weigh.launcher=[sh, -c, exit 7]", inputs={"data": source})
    with pytest.raises(StepError, match="no-such-python"):
        make(folder, "weigh", "runtime.interpreter=/no-such-python", inputs={"data": source})


def test_threads_are_set_and_logged(folder: Path, source: Artifact) -> None:
    log = next((folder / "artifacts/toy/.scratch").glob("source-*.log")).read_text()
    assert "OMP_NUM_THREADS=1\n" in log and "OMP_WAIT_POLICY=PASSIVE\n" in log
    assert child_environment(Runtime())["OMP_NUM_THREADS"] == str(os.cpu_count())


def test_run_plan_reports_runs_and_reuse(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(folder)
    first = capsys.readouterr().out
    assert "[2/5] run weigh: upstream source will run" in first and "made weigh@v1" in first
    assert "weigh 10/10" in first
    run_toy(folder, "source.label=b")
    second = capsys.readouterr().out
    assert "made source@v2" in second and "reuse weigh@v1" in second


def test_run_plan_uses_a_pinned_version(folder: Path) -> None:
    run_toy(folder)
    run_toy(folder, "weigh.scale=2")
    profile = load_profile(folder / "toy.yaml", ("refine.scale=3",), STEPS)
    store = Store(folder / "artifacts", "toy")
    run_plan(plan_run(STEPS, profile, store, Selection(use=("weigh@v2",))), STEPS, profile, store)
    assert store.history("refine")[-1].record.inputs["policy"].ref == "weigh@v2"


def test_progress_is_read_line_by_line(tmp_path: Path) -> None:
    reader = ProgressReader("weigh", tmp_path / "progress", started=100.0)
    assert reader.read() == []
    lines = [json.dumps({"done": n, "total": 12, "metrics": {"loss": 2.0}, "time": 99.0 + n}) for n in (8, 10)]
    (tmp_path / "progress").write_text(lines[0] + "\n" + lines[1][:10])
    assert reader.read() == [Update("weigh", 8, 12, {"loss": 2.0}, 7.0)]
    (tmp_path / "progress").write_text(lines[0] + "\n" + lines[1] + "\n")
    # 8 were done in the run before this one: only the two made since count for the time left.
    assert reader.read() == [Update("weigh", 10, 12, {"loss": 2.0}, 9.0, 2.0)]


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    report = PlainReport()
    for done in range(1, 1001):
        report(Update("weigh", done, 1000, {}, done / 1000))
    lines = capsys.readouterr().out.splitlines()
    assert 9 <= len(lines) <= 11
    assert lines[-1].strip().startswith("weigh 1000/1000")
