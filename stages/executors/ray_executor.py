"""Shards made by actors on a Ray cluster that is already running.

Ray Data hands shards to actors, makes those of a lost node again and spills what does not fit into memory. Nodes get
the code from here; the working directory, with artifacts/, must be mounted on all of them at the same path.
"""

import os
import pickle
import platform
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.contract import CORES, ConfigError, PipelineError, Progress, Runtime, no_progress
from stages.executors import Files, Load, Maker

PACKAGE = Path(__file__).resolve().parents[1]


class ShardActor:
    """What one actor holds; a row of the dataset is a shard. Errors travel as values, as Ray would wrap them."""

    def __init__(self, load: Load, folder: Path) -> None:
        self.load, self.folder = load, folder
        self.maker: Maker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            file, error = self.make_file(row["number"], pickle.loads(row["shard"])), b""
        except PipelineError as raised:
            file, error = b"", pickle.dumps(raised)
        return {"number": row["number"], "file": file, "error": error}

    def make_file(self, number: int, shard: Any) -> bytes:
        if self.maker is None:
            enter(self.folder)
            self.maker = self.load()
        return self.maker.make_file(number, shard, no_progress)


def enter(folder: Path) -> None:
    """Makes the step's working directory that of this process. Raises ConfigError where it is not mounted."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be entered on node {platform.node()} ({error.strerror}); expected the working directory "
            "of the run, with artifacts/, mounted at the same path on every node"
        ) from error


def make_shards(load: Load, shards: Mapping[int, Any], runtime: Runtime, progress: Progress) -> Files:
    """An actor has `threads` cores, one if that is 0, and a GPU if `device` is cuda.

    Raises ConfigError where Ray, its cluster or the working directory of a node is missing.
    """
    cores = runtime.threads or 1
    ray = connect(cores)
    try:
        rows = [{"number": number, "shard": pickle.dumps(shard)} for number, shard in shards.items()]
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            ShardActor,
            fn_constructor_args=(load, Path.cwd()),
            # A shard takes long: none may wait behind another while an actor is idle.
            compute=ray.data.ActorPoolStrategy(size=runtime.workers, max_tasks_in_flight_per_actor=1),
            num_cpus=cores,
            num_gpus=int(runtime.device == "cuda"),
        )
        # With prefetching, each file would wait for the next.
        for batch in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                if row["error"]:
                    raise pickle.loads(row["error"])
                yield row["number"], row["file"]
    finally:
        ray.shutdown()


def connect(cores: int) -> Any:
    """The package, connected to the cluster; `cores` are those of an actor."""
    try:
        import ray.data
    except ModuleNotFoundError as error:
        raise ConfigError(f"executor 'ray' cannot be imported: {error}; pip install '.[ray]'") from error
    variables = dict.fromkeys((CORES, "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
    environment = {"py_modules": [str(PACKAGE)], "env_vars": {**variables, "OMP_WAIT_POLICY": "PASSIVE"}}
    stop = signal.getsignal(signal.SIGTERM)
    ray.init(find_cluster(), runtime_env=environment)
    # Ray puts a handler of its own there, with which a step that is asked to stop would seem to have failed.
    signal.signal(signal.SIGTERM, stop)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def find_cluster() -> str:
    """The address of the cluster. Ray itself would try for minutes to reach one that is gone."""
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at RAY_ADDRESS='{address}' ({error}); expected HOST:PORT of a running one, as "
            "`ray start --head` prints it"
        ) from error
    return address
