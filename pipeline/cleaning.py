"""What may be deleted: folders of writers that died, and scratch state of published steps."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import Store
from stages.contract import StepError

SCRATCH_SUFFIXES = (".spec", ".progress", ".result", ".published")


@dataclass(frozen=True)
class Garbage:
    """Something no reader and no running step needs."""

    path: Path
    why: str
    size: int
    """Bytes."""


def collect_garbage(store: Store, delete: bool = False) -> list[Garbage]:
    """Garbage of every step that is not being run now; deleted, each step under its lock, if asked to."""
    return [item for step in store.step_names() for item in collect_step(store, step, delete)]


def collect_step(store: Store, step: str, delete: bool) -> list[Garbage]:
    """A step whose lock is held is left alone: its folders are in use."""
    try:
        with store.lock(step):
            garbage = [*list_abandoned(store, step), *list_scratch(store, step)]
            for item in garbage if delete else ():
                delete_path(item.path)
            return garbage
    except StepError:
        return []


def list_abandoned(store: Store, step: str) -> list[Garbage]:
    paths = sorted((store.folder / step).glob(".partial-*"))
    return [Garbage(path, "abandoned by a writer that died", measure(path)) for path in paths]


def list_scratch(store: Store, step: str) -> list[Garbage]:
    """State of runs that led to a version; logs are kept."""
    owners = {artifact.record.fingerprint[:12]: artifact.ref for artifact in store.history(step)}
    garbage = []
    for digest, ref in owners.items():
        folder = store.folder / ".scratch" / f"{step}-{digest}"
        paths = [folder, *(folder.with_name(folder.name + suffix) for suffix in SCRATCH_SUFFIXES)]
        garbage += [Garbage(path, f"scratch of {ref}", measure(path)) for path in paths if path.exists()]
    return garbage


def measure(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())


def delete_path(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
