"""What may be deleted: folders of writers that died, and scratch state of published steps."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import Store
from stages.contract import StepError

SCRATCH_SUFFIXES = ("", ".spec", ".progress", ".result", ".published")


@dataclass(frozen=True)
class Garbage:
    """Something no reader and no running step needs."""

    path: Path
    why: str
    size: int
    """Bytes."""


def collect_garbage(store: Store, delete: bool = False) -> list[Garbage]:
    """Garbage of every step, deleted if asked to; a step whose lock is held is left alone: its folders are in use."""
    garbage: list[Garbage] = []
    for step in store.step_names():
        try:
            with store.lock(step):
                found = [Garbage(path, why, measure(path)) for path, why in list_garbage(store, step)]
                for item in found if delete else ():
                    shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink()
                garbage += found
        except StepError:
            continue
    return garbage


def list_garbage(store: Store, step: str) -> Iterator[tuple[Path, str]]:
    """Paths and reasons. State of a run that has led to no version yet is kept, and so are logs."""
    for path in sorted((store.folder / step).glob(".partial-*")):
        yield path, "abandoned by a writer that died"
    for marker in sorted((store.folder / ".scratch").glob(f"{step}-*.published")):
        for suffix in SCRATCH_SUFFIXES:
            if (path := marker.with_suffix(suffix)).exists():
                yield path, f"scratch of {marker.read_text(encoding='utf-8')}"


def measure(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
