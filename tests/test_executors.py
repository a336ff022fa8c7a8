"""Stage 3 in several processes and on a Ray cluster makes the shards of one process, whatever dies on the way."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pipeline.contents import read_splits
from pipeline.supervisor import list_children
from stages.contract import ConfigError, DataError, Metrics, Progress, Runtime, StepContext, StepError, no_progress
from stages.engines import Sampling, load_engine
from stages.executors import load_executor
from stages.executors.ray_executor import ShardActor
from stages.rejection_sampling import SFTDataConfig, make_sft_data
from tests.sampled_set import CONFIG, write_prompts

ROOT = Path(__file__).resolve().parent.parent
REAL = CONFIG.model_copy(
    update={
        "engine": "cpu",
        "sampling": Sampling(n=4, max_completion_length=128),
        "budget": 8,
        "rejected_per_reason": 1000,
    }
)
"""Every sample of the micro model is in the shards, right or not."""
LOCAL, TWO, RAY = (Runtime(threads=1, workers=n, executor=name) for n, name in ((1, "local"), (2, "local"), (2, "ray")))


@dataclass(frozen=True)
class Outcome:
    """What two runs must have in common; the name of a shard holds the hash of its bytes."""

    shards: list[str]
    digest: str
    metrics: Metrics


def run(
    folder: Path, policy: Path, runtime: Runtime, progress: Progress = no_progress, config: SFTDataConfig = REAL
) -> Outcome:
    """One run over `folder`, which keeps the shards."""
    output = folder / "out"
    output.mkdir(parents=True, exist_ok=True)
    write_prompts(folder / "prompts")
    inputs = {"policy": policy, "prompts": folder / "prompts"}
    metrics = make_sft_data(config, StepContext(inputs, output, folder, runtime, progress))
    return Outcome(sorted(path.name for path in (folder / "shards").iterdir()), read_splits(output)[0], metrics)


class Stopped(Exception):
    """Raised by a test in the middle of a run."""


def stop_after(shards: int) -> Progress:
    def report(done: int, total: int, **metrics: float | str) -> None:
        if done == shards:
            raise Stopped

    return report


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, micro_base: Path) -> Outcome:
    """What one process makes that nobody disturbs."""
    outcome = run(tmp_path_factory.mktemp("whole"), micro_base, LOCAL)
    assert len(outcome.shards) == 8 and outcome.metrics["funnel"][0]["left"] == 40 * 8
    return outcome


def list_workers(parent: int) -> list[int]:
    return [pid for pid in list_children(parent) if "stages.executors.local_worker" in read_command(pid)]


def read_command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


def test_two_processes_make_the_shards_of_one_and_a_killed_one_loses_nothing(
    tmp_path: Path, micro_base: Path, whole: Outcome
) -> None:
    killed = list[int]()

    def kill_one(done: int, total: int, **metrics: float | str) -> None:
        if not killed and done == 3:
            workers = list_workers(os.getpid())
            assert len(workers) == 2
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    assert run(tmp_path, micro_base, TWO, kill_one) == whole
    assert killed and not list_workers(os.getpid())


def test_a_stopped_run_leaves_no_process_and_any_executor_goes_on_with_it(
    tmp_path: Path, micro_base: Path, whole: Outcome
) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, micro_base, TWO, stop_after(3))
    assert not list_workers(os.getpid())
    kept = {path.name for path in (tmp_path / "shards").glob("samples-*")}
    assert len(kept) == 3 and kept < set(whole.shards)
    made = list[int]()
    assert run(tmp_path, micro_base, LOCAL, lambda done, total, **metrics: made.append(done)) == whole
    assert min(made) == 3


@dataclass(frozen=True)
class Toy:
    """A maker that does something at shard 2."""

    act: Callable[[], Any]

    def make_file(self, number: int, shard: Any, progress: Progress) -> bytes:
        if number == 2:
            self.act()
        return bytes(shard)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise ConfigError("no sandbox found")


def divide() -> None:
    print(1 // 0)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (kill_myself, StepError, "shard 2 was lost 2 times, its process killed by SIGKILL.*lower runtime.workers"),
        (refuse, ConfigError, "^no sandbox found$"),
        (divide, StepError, "ended with exit code 1; its traceback is in the log"),
    ],
)
def test_what_stops_a_process_stops_the_step(act: Callable[[], None], error: type[Exception], message: str) -> None:
    shards = {number: b"%d" % number for number in range(4)}
    files = load_executor("local").make_shards(partial(Toy, act), shards, TWO, no_progress)
    with pytest.raises(error, match=message):
        list(files)
    assert not list_workers(os.getpid())


ENDLESS = """
import signal
import time
from functools import partial
from stages.contract import no_progress
from stages.executors import load_executor
from tests.test_executors import TWO, Toy

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell begins by ignoring it
load, shards = partial(Toy, partial(time.sleep, 600)), dict.fromkeys(range(3), b"")
for number, _ in load_executor("local").make_shards(load, shards, TWO, no_progress):
    print(number, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_go_when_their_step_goes(number: int) -> None:
    step = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with step:
        assert step.stdout and {step.stdout.readline(), step.stdout.readline()} == {b"0\n", b"1\n"}
        workers = list_workers(step.pid)
        step.send_signal(number)
        step.wait(30)
    assert workers
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in workers):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.parametrize(
    ("address", "fault"),
    [("", "invalid literal"), ("127.0.0.1:1", "refused"), ("auto", "invalid literal"), (":1:1:", "invalid literal")],
)
def test_without_a_cluster_ray_does_not_start_one(address: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    files = load_executor("ray").make_shards(partial(Toy, refuse), {0: b""}, RAY, no_progress)
    message = f"no Ray cluster answers at RAY_ADDRESS='{address}' .*{fault}.*expected HOST:PORT"
    with pytest.raises(ConfigError, match=message):
        next(files)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    files = load_executor("ray").make_shards(partial(Toy, refuse), {0: b""}, RAY, no_progress)
    with pytest.raises(ConfigError, match=r"executor 'ray' cannot be imported: .*; pip install '\.\[ray\]'"):
        next(files)


def test_a_node_without_the_working_directory_or_the_policy_says_so(tmp_path: Path) -> None:
    def make(actor: ShardActor) -> None:
        row = actor({"number": 0, "shard": pickle.dumps(b"")})
        assert not row["file"]
        raise pickle.loads(row["error"])

    with pytest.raises(ConfigError, match=r"nowhere cannot be entered on node .*; expected the working directory"):
        make(ShardActor(partial(Toy, refuse), tmp_path / "nowhere"))
    load: Any = partial(load_engine, "cpu", tmp_path / "nowhere", RAY)
    with pytest.raises(DataError, match=r"nowhere does not exist on .*; expected a policy, on every node"):
        make(ShardActor(load, Path.cwd()))


@dataclass
class TwoNodes:
    """A Ray cluster of two nodes on this machine, each with room for one actor."""

    cluster: Any
    second: Any

    def find_actor(self) -> int | None:
        """The actor of the second node that is making a shard."""
        (raylet,) = self.second.all_processes["raylet"]
        busy = (pid for pid in list_children(raylet.process.pid) if ".submit" in read_command(pid))
        return next(busy, None)

    def kill_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoNodes]:
    # A short path: sockets lie below it.
    with TemporaryDirectory(prefix="ray-") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        # Else Ray's workers are 15 nicer than others, and get next to nothing of a busy machine.
        monkeypatch.setenv("RAY_worker_niceness", "0")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "node_ip_address": "127.0.0.1"})
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield TwoNodes(cluster, cluster.add_node(**node, node_ip_address="127.0.0.1"))
        cluster.shutdown()


def test_a_ray_cluster_makes_the_same_set_although_a_node_is_lost(
    tmp_path: Path, micro_base: Path, whole: Outcome, two_nodes: TwoNodes
) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, micro_base, LOCAL, stop_after(2))
    made, killed = list[int](), list[int]()

    def kill_node(done: int, total: int, **metrics: float | str) -> None:
        made.append(done)
        if not killed and (actor := two_nodes.find_actor()):
            killed.append(actor)
            two_nodes.kill_second()

    assert run(tmp_path, micro_base, RAY, kill_node) == whole
    assert killed and made == [3, 4, 5, 6, 7, 8]
