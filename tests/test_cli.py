"""The command line: output formats, exit codes, one clear line for every error."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.store import Store
from tests.toy_stage import STEPS, run_toy, write_profile

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "trl", "prefect", "pyarrow", "numpy", "rich")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the toy recipe has run once; tests only read it."""
    folder = tmp_path_factory.mktemp("made")
    write_profile(folder)
    run_toy(folder)
    return folder


@pytest.fixture
def inside(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path)
    return tmp_path


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy recipe has none of the steps that a report shows."""
    monkeypatch.setattr("pipeline.report.write_report", lambda profile, store: store.folder / "report.html")


def call(*arguments: str) -> int:
    return main([arguments[0], "toy.yaml", *arguments[1:]], STEPS)


def test_plan_json(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "--json", "--set", "refine.scale=2") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["project"] == "toy"
    assert list(plan["steps"][0]) == ["step", "stage", "action", "version", "reason", "fingerprint"]
    assert [(step["step"], step["action"], step["version"]) for step in plan["steps"]] == [
        ("source", "reuse", 1),
        ("weigh", "reuse", 1),
        ("refine", "run", None),
        ("evaluate_weigh", "reuse", 1),
        ("evaluate_refine", "run", None),
    ]


def test_show_json(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", "--json") == 0
    artifacts = json.loads(capsys.readouterr().out)["artifacts"]
    assert [artifact["ref"] for artifact in artifacts] == [f"{step.name}@v1" for step in STEPS]
    keys = ["ref", "step", "stage", "kind", "digest", "path", "inputs", "counts", "metrics", "created"]
    assert list(artifacts[0]) == keys
    assert artifacts[1]["inputs"] == {"data": "source@v1"}
    assert call("show", "weigh@v1", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["artifacts"]) == 1
    assert call("show", "weigh@v2") == 3
    assert call("show", "weight") == 2


def test_tables_are_for_people(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show") == 0
    assert "weigh@v1" in capsys.readouterr().out
    assert call("plan", "--set", "refine.scale=2") == 0
    assert "run    refine: refine.scale 1.0 -> 2.0" in capsys.readouterr().out


def test_run_with_nothing_to_do_says_so_per_step(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run") == 0
    assert capsys.readouterr().out.splitlines() == [f"reuse {step.name}@v1" for step in STEPS]


def test_changed_source_only_warns(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.__main__.digest_source", lambda: "other")
    assert call("run") == 0
    captured = capsys.readouterr()
    assert "note: stages/ has changed since 5 reused artifacts" in captured.err
    assert "reuse weigh@v1" in captured.out


def test_run_local_makes_and_lists(fresh: Path, no_report: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--local", "--only", "reasoning_rl") == 0
    output = capsys.readouterr().out
    assert "made refine@v1" in output and "report: artifacts/toy/report.html" in output
    assert Store(Path("artifacts"), "toy").versions("evaluate_weigh") == []


def test_the_table_shows_what_the_run_took(fresh: Path, no_report: None, capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(fresh)
    run_toy(fresh, "weigh.scale=2")
    assert call("run", "--local", "--only", "refine", "--use", "weigh@v1", "--set", "refine.scale=3") == 0
    table = capsys.readouterr().out.partition("stage")[2]
    assert "weigh@v1" in table and "refine@v3" in table and "weigh@v2" not in table


def test_config_and_schema(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("config", "--set", "weigh.scale=4") == 0
    assert yaml.safe_load(capsys.readouterr().out)["weigh"]["scale"] == 4.0
    assert call("config", "--schema") == 0
    assert "weigh" in json.loads(capsys.readouterr().out)["properties"]


def test_verify(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(fresh)
    assert call("verify") == 0
    (fresh / "artifacts/toy/weigh/v1/model.safetensors").write_bytes(b"x")
    (fresh / "artifacts/toy/refine/v1/record.json").write_text("{")
    capsys.readouterr()
    assert call("verify", "--json") == 4
    found = {item["ref"]: item["problems"] for item in json.loads(capsys.readouterr().out)["artifacts"]}
    assert found["source@v1"] == []
    assert "model.safetensors has 1 bytes" in found["weigh@v1"][0]
    assert "record.json" in found["refine@v1"][0]


def test_gc_is_a_dry_run_unless_told(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(fresh)
    abandoned = Store(Path("artifacts"), "toy").begin("weigh")
    assert call("gc") == 0
    assert "would delete" in capsys.readouterr().out and abandoned.exists()
    assert call("gc", "--delete") == 0
    assert not abandoned.exists()
    assert call("verify") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--only", "nothing"], 2, "step 'nothing' does not exist; expected one of: source"),
        (["plan", "--set", "weigh.scael=1"], 2, "did you mean scale"),
        (["run", "--use", "weigh@v7"], 3, "weigh@v7 is not in"),
        (["ask", "source", "?"], 2, "source is not made yet; expected a policy"),
        (["run", "--local", "--set", "weigh.fail=data"], 3, "step 'weigh': row 3 has no answer"),
        (["run", "--local", "--set", "weigh.fail=config"], 2, "step 'weigh': scale cannot be 7"),
        (["run", "--local", "--set", "weigh.fail=pickle"], 3, "pytorch_model.bin is a pickle"),
    ],
)
def test_errors_are_one_line_and_have_a_code(
    fresh: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert call(*arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1


def test_missing_profile_and_unwritable_store(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "none.yaml"], STEPS) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err
    (fresh / "artifacts").write_text("a file")
    assert call("run", "--local") == 3
    assert "cannot write artifacts/toy" in capsys.readouterr().err


def test_wrong_usage(fresh: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        call("run", "--no-such-option")
    assert caught.value.code == 2


def test_a_damaged_input_is_refused(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(fresh, "project=toy")
    for memo in (fresh / "artifacts/toy/.verified").iterdir():
        memo.unlink()
    weights = fresh / "artifacts/toy/weigh/v1/model.safetensors"
    status = weights.stat()
    weights.write_bytes(bytes(status.st_size))
    os.utime(weights, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert call("run", "--local", "--set", "refine.scale=5") == 3
    assert "weigh@v1 is damaged: model.safetensors" in capsys.readouterr().err


def test_interrupting_a_run_ends_its_child_and_keeps_what_is_done(fresh: Path) -> None:
    run = start_cli(fresh, "run", "--local", "--set", "weigh.seconds=60", "--set", "weigh.marker=marker")
    marker = fresh / "marker"
    wait_for(lambda: marker.exists() and len(marker.read_text().split()) == 2)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 130
    assert not any(is_alive(int(pid)) for pid in marker.read_text().split())
    assert [path.name for path in (fresh / "artifacts/toy/weigh").iterdir()] == []
    assert Store(Path("artifacts"), "toy").find("source", source_fingerprint()) is not None


def source_fingerprint() -> str:
    return Store(Path("artifacts"), "toy").history("source")[0].record.fingerprint


def test_planning_and_a_run_with_nothing_to_do_stay_light(inside: Path) -> None:
    code = f"""
import sys
from pipeline.recipe import R1
from tests.toy_stage import STEPS
from pipeline.__main__ import main
heavy = {HEAVY}
assert main(["plan", "toy.yaml"], STEPS) == 0
assert main(["run", "toy.yaml"], STEPS) == 0
print("loaded", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_the_module_runs(fresh: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "plan", "none.yaml"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: none.yaml does not exist")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start_cli(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    code = "import sys; from tests.toy_stage import STEPS; from pipeline.__main__ import main\n"
    code += "sys.exit(main([sys.argv[1], 'toy.yaml', *sys.argv[2:]], STEPS))"
    # Where the tests themselves run in the background, a shell has switched Ctrl-C off for all they start.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited 30 s in vain")


def is_alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
