"""The whole recipe: how long it takes, how much memory it needs, where the time goes.

    python -m benchmarks.demo [CONFIG] [more arguments of `python -m pipeline run`]

Runs `python -m pipeline run CONFIG --local`. Steps that were made before are reused and not counted.
Reads memory from /proc, so Linux only.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measurement import print_figure
from pipeline.__main__ import ARTIFACTS
from pipeline.config import load_profile
from pipeline.recipe import R1
from pipeline.store import Store
from pipeline.supervisor import read_parent

POLL_SECONDS = 0.25
TIME_BAR, MEMORY_BAR = 15.0, 4.0
"""Minutes and GB."""


def main(arguments: Sequence[str]) -> int:
    config, *more = arguments or ["configs/demo.yaml"]
    started, began, peak = datetime.now(UTC).replace(microsecond=0), time.perf_counter(), 0
    run = subprocess.Popen([sys.executable, "-m", "pipeline", "run", config, "--local", *more])
    while run.poll() is None:
        peak = max(peak, sum(map(read_resident, list_tree(run.pid))))
        time.sleep(POLL_SECONDS)
    minutes = (time.perf_counter() - began) / 60
    for step, seconds in read_steps(Path(config), started).items():
        print_figure(f"step {step}", seconds, "s", {"run": [seconds]})
    print_figure("whole run", minutes, "min", {"run": [minutes]}, bar=TIME_BAR)
    print_figure("peak resident memory of all processes", peak / 1e9, "GB", {"run": [peak / 1e9]}, bar=MEMORY_BAR)
    return run.returncode


def list_tree(root: int) -> list[int]:
    """`root` and all processes below it."""
    parents = {int(path.parent.name): read_parent(path) for path in Path("/proc").glob("[0-9]*/stat")}
    tree = [root]
    for process in tree:
        tree += [child for child, parent in parents.items() if parent == process]
    return tree


def read_resident(process: int) -> int:
    """Resident bytes; pages that processes share count in each. 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def read_steps(config: Path, since: datetime) -> dict[str, float]:
    """Seconds of each step that was made since then, from the records."""
    store = Store(ARTIFACTS, load_profile(config, (), R1).project)
    newest = [store.history(step.name)[-1] for step in R1 if store.versions(step.name)]
    times = {artifact.ref.step: artifact.record.provenance for artifact in newest}
    spans = {n: (datetime.fromisoformat(t.started), datetime.fromisoformat(t.finished)) for n, t in times.items()}
    return {name: (end - start).total_seconds() for name, (start, end) in spans.items() if start >= since}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
