"""How far a running step is: read from the child, shown to people."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LINE_SECONDS = 15.0
LINE_SHARE = 0.1


@dataclass(frozen=True)
class Update:
    """One report of a step."""

    step: str
    done: int
    total: int
    metrics: Mapping[str, float | str]
    seconds: float
    """Since the step began."""
    seconds_left: float | None = None
    """At the speed since the first report, which in a resumed step does not begin at 0."""


Report = Callable[[Update], None]


@dataclass
class ProgressReader:
    """Reads the JSON lines that a child appends to its progress file."""

    step: str
    path: Path
    started: float = field(default_factory=time.time)
    offset: int = 0
    first: tuple[int, float] | None = None
    """(done, time) of the first report."""

    def read(self) -> list[Update]:
        """What was written since the last call; a line still being written waits."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [self.parse(line) for line in whole.splitlines()]

    def parse(self, line: bytes) -> Update:
        entry = json.loads(line)
        done, total, now = entry["done"], entry["total"], entry["time"]
        self.first = self.first or (done, now)
        gained, seconds = done - self.first[0], now - self.first[1]
        left = seconds / gained * (total - done) if gained > 0 else None
        return Update(self.step, done, total, entry["metrics"], now - self.started, left)


@dataclass
class PlainReport:
    """Prints a line for every tenth of a step, and at least one in 15 s while it moves."""

    shown: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __call__(self, update: Update) -> None:
        share = update.done / max(update.total, 1)
        last_share, last_seconds = self.shown.get(update.step, (0.0, 0.0))
        due = share - last_share >= LINE_SHARE or update.seconds - last_seconds >= LINE_SECONDS
        if due or (share == 1 and last_share < 1):
            self.shown[update.step] = (share, update.seconds)
            print(describe_update(update), flush=True)


def describe_update(update: Update) -> str:
    left = ""
    if update.seconds_left is not None:
        minutes, seconds = divmod(round(update.seconds_left), 60)
        left = f", {minutes}:{seconds:02d} left"
    return f"  {update.step} {update.done}/{update.total}{left}{format_metrics(update.metrics)}"


def format_metrics(metrics: Mapping[str, float | str]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in metrics.items()}
    return "".join(f"  {name} {text}" for name, text in shown.items())


@contextmanager
def show_progress() -> Iterator[Report]:
    """A bar with time left on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        yield PlainReport()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[metrics]}"), transient=True) as bars:
        bar = bars.add_task("", visible=False, metrics="")

        def report(update: Update) -> None:
            if bars.tasks[0].description != update.step:
                bars.reset(bar, description=update.step)
            shown = update.done < update.total
            text = format_metrics(update.metrics)
            bars.update(bar, completed=update.done, total=update.total, metrics=text, visible=shown)

        yield report
