"""Where shards are made: one file per executor, `<id>_executor.py`.

An executor module has `make_shards(load, shards, runtime, progress)`. All run the same function on the same shards and
hand back the bytes of their files; the step alone publishes them, so workers need no folder of their own.
"""

import importlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol, cast

from stages.contract import Progress, Runtime


class Maker(Protocol):
    """Everything that one process needs to make shards, loaded."""

    def make_file(self, number: int, shard: Any, progress: Progress) -> bytes:
        """The file of one shard, a pure function of its number and its prompts (an Arrow table)."""
        ...


Load = Callable[[], Maker]
"""Called once in each process that makes shards, and sent there, so it can be pickled."""
Files = Generator[tuple[int, bytes], None, None]
"""(number, file) of each shard once, as they are done. Closing it ends the workers."""


class Executor(Protocol):
    """What a module in this folder offers."""

    def make_shards(self, load: Load, shards: Mapping[int, Any], runtime: Runtime, progress: Progress) -> Files:
        """Raises what a worker raised of the errors in stages/contract.py, StepError if a worker is lost for good."""
        ...


def load_executor(name: str) -> Executor:
    return cast(Executor, importlib.import_module(f"{__name__}.{name}_executor"))
