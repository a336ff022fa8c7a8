"""Finished pieces of a step's work, kept in its scratch folder: each is there whole or not at all.

The name of a piece ends in the hash of its bytes, so that one rename publishes it and reading can tell damage.
"""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from stages.contract import StepError

HASH_LENGTH = 32
TEMPORARY = ".partial-"


def publish_shard(folder: Path, name: str, write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a temporary file and gives it its name, durably.

    Raises StepError where the disk does not take it, and leaves nothing half written.
    """
    temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(temporary)
        digest = sync_file(temporary)
        path = folder / f"{name}-{digest[:HASH_LENGTH]}.parquet"
        temporary.replace(path)
        sync_folder(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StepError(
            f"{name} could not be written to {folder}: {error.strerror or error}; "
            "what was finished before is kept: make room and run again"
        ) from error
    return path


def find_shard(folder: Path, name: str) -> Path | None:
    """The published piece called `name`; one that is damaged is removed, so that it is made again."""
    for path in sorted(folder.glob(f"{name}-*.parquet")):
        if path.stem.rpartition("-")[2] == hash_file(path)[:HASH_LENGTH]:
            return path
        path.unlink()
    return None


def drop_partial(folder: Path) -> None:
    """Removes what a killed run was writing."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink()


def sync_file(path: Path) -> str:
    """Makes a file durable; its hash."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return hash_file(path)


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
