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

    @property
    def seconds_left(self) -> float | None:
        return self.seconds / self.done * (self.total - self.done) if self.done > 0 else None


Report = Callable[[Update], None]


@dataclass
class ProgressReader:
    """Reads the JSON lines that a child appends to its progress file."""

    step: str
    path: Path
    started: float = field(default_factory=time.time)
    offset: int = 0

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
        return Update(self.step, entry["done"], entry["total"], entry["metrics"], entry["time"] - self.started)


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
    left = "" if update.seconds_left is None else f", {format_seconds(update.seconds_left)} left"
    return f"  {update.step} {update.done}/{update.total}{left}{format_metrics(update.metrics)}"


def format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


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
