"""The versioned artifacts of a project: complete or absent, never overwritten.

<root>/<project>/<step>/v<N>/   one artifact: its files, README.md, record.json
<root>/<project>/<step>/.partial-*   being written; a reader never looks here
<root>/<project>/.locks/        one lock per step, held by its writer and the writer's child
<root>/<project>/.scratch/      restartable state and logs of running steps
<root>/<project>/.verified/     which artifacts were hashed in full on which host
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.contents import PICKLE_SUFFIXES, read_contents
from pipeline.fingerprint import Identity, hash_json
from pipeline.provenance import Provenance
from stages.contract import ArtifactError, ConfigError, DataError, Kind, StepError
from stages.shards import sync_folder

RECORD, CARD = "record.json", "README.md"


@dataclass(frozen=True, order=True)
class Ref:
    """Address of an artifact; people write it `step@v3`."""

    step: str
    version: int

    def __str__(self) -> str:
        return f"{self.step}@v{self.version}"

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """Reads `step@v3`. Raises ConfigError if `text` is not one."""
        step, _, version = text.partition("@v")
        if not step or not (version.isascii() and version.isdigit()):
            raise ConfigError(f"'{text}' does not name an artifact; expected STEP@vN, as sft@v3")
        return cls(step, int(version))


class Entry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str
    mtime_ns: int


class Source(BaseModel):
    """One input of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: str
    digest: str


class Record(BaseModel):
    """`record.json`: what an artifact is and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal[1] = 1
    name: str
    """`<project>-<step>`."""
    version: int = 0
    kind: Kind
    step: str
    stage: str
    revision: int
    fingerprint: str
    config: dict[str, Any]
    """Resolved identity config."""
    inputs: dict[str, Source]
    files: dict[str, Entry] = Field(default_factory=dict)
    """All files but the record, by path."""
    digest: str = ""
    """Content digest."""
    counts: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, Any]
    provenance: Provenance

    @property
    def identity(self) -> Identity:
        digests = {role: source.digest for role, source in self.inputs.items()}
        return Identity(self.step, self.revision, self.config, digests)


@dataclass(frozen=True)
class Artifact:
    """A published version."""

    ref: Ref
    path: Path
    record: Record


@dataclass(frozen=True)
class Store:
    """Artifacts of one project below `root`."""

    root: Path
    project: str

    @property
    def folder(self) -> Path:
        return self.root / self.project

    def step_names(self) -> list[str]:
        """Steps that have a folder here."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def versions(self, step: str) -> list[Ref]:
        """Every version of `step` on disk, oldest first, sound or not."""
        names = [path.name for path in (self.folder / step).glob("v*")]
        return sorted(Ref(step, int(name[1:])) for name in names if name[1:].isdigit())

    def history(self, step: str) -> list[Artifact]:
        """Versions of `step` whose record can be read, oldest first."""
        found: list[Artifact] = []
        for ref in self.versions(step):
            with suppress(ArtifactError):
                found.append(self.get(ref))
        return found

    def path(self, ref: Ref) -> Path:
        return self.folder / ref.step / f"v{ref.version}"

    def get(self, ref: Ref) -> Artifact:
        """The artifact at `ref`. Raises ArtifactError if it is absent or its record is damaged."""
        if not self.path(ref).is_dir():
            known = ", ".join(map(str, self.versions(ref.step))) or "none"
            raise ArtifactError(f"{ref} is not in {self.folder}; versions of {ref.step} there: {known}")
        return Artifact(ref, self.path(ref), read_record(self.path(ref), ref))

    def matches(self, step: str, fingerprint: str) -> list[Artifact]:
        """Versions with this fingerprint, newest first, damaged ones included."""
        return [artifact for artifact in reversed(self.history(step)) if artifact.record.fingerprint == fingerprint]

    def find(self, step: str, fingerprint: str) -> Artifact | None:
        """The newest version with this fingerprint that passes `check`."""
        return next((found for found in self.matches(step, fingerprint) if not self.check(found)), None)

    def begin(self, step: str) -> Path:
        """A new temporary folder beside the versions of `step`."""
        folder = self.folder / step / f".partial-{uuid.uuid4().hex[:12]}"
        make_folder(folder)
        return folder.resolve()

    def publish(self, folder: Path, draft: Record, write_card: Callable[[Record, Path], None]) -> Artifact:
        """Turns a finished `begin` folder into the next version of `draft.step`, at once and durably.

        Raises DataError if the folder holds pickles, links, or not what `draft.kind` says.
        """
        refuse_unsafe_files(folder)
        digest, counts = read_contents(folder, draft.kind)
        files = {name: seal_file(folder / name) for name in list_files(folder) if name != CARD}
        while True:
            versions = self.versions(draft.step)
            ref = Ref(draft.step, versions[-1].version + 1 if versions else 1)
            record = draft.model_copy(update={"digest": digest, "counts": counts, "version": ref.version})
            write_card(record, folder)
            record = record.model_copy(update={"files": {**files, CARD: seal_file(folder / CARD)}})
            write_record(folder, record)
            if rename_folder(folder, self.path(ref)):
                # The version may have existed before and been deleted by hand.
                self.memo_path(ref).unlink(missing_ok=True)
                return Artifact(ref, self.path(ref), record)

    def check(self, artifact: Artifact) -> list[str]:
        """Problems seen from names, sizes and modification times; a file with another time is hashed."""
        recorded = {name: entry.mtime_ns for name, entry in artifact.record.files.items()}
        return list_damage(artifact, self.read_memo(artifact.ref) or recorded)

    def verify(self, artifact: Artifact) -> list[str]:
        """Problems found by hashing every file; forgets that a damaged artifact was once sound."""
        problems = list_damage(artifact, {})
        if problems:
            self.memo_path(artifact.ref).unlink(missing_ok=True)
        return problems

    def verify_once(self, artifact: Artifact) -> None:
        """Hashes `artifact` in full the first time on this host, else checks it.

        Raises ArtifactError naming the damaged files.
        """
        known = self.read_memo(artifact.ref)
        refuse_damage(artifact, self.check(artifact) if known else self.verify(artifact))
        if not known:
            times = {name: (artifact.path / name).stat().st_mtime_ns for name in artifact.record.files}
            make_folder(self.memo_path(artifact.ref).parent)
            write_atomically(self.memo_path(artifact.ref), json.dumps({"host": platform.node(), "times": times}))

    def memo_path(self, ref: Ref) -> Path:
        return self.folder / ".verified" / f"{ref}.json"

    def read_memo(self, ref: Ref) -> dict[str, int]:
        """Modification times by file at the last full hashing on this host; empty if there was none."""
        path = self.memo_path(ref)
        memo = json.loads(path.read_text()) if path.exists() else {}
        return dict(memo["times"]) if memo.get("host") == platform.node() else {}

    @contextmanager
    def lock(self, step: str) -> Iterator[int]:
        """Holds the right to write `step`; yields a file descriptor a child may inherit to hold it too.

        Raises StepError naming the process that holds it.
        """
        path = self.folder / ".locks" / f"{step}.lock"
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            take_lock(descriptor, step)
            yield descriptor
        finally:
            os.close(descriptor)


def take_lock(descriptor: int, step: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 200, 0).decode() or "another process"
        message = f"step '{step}' is being run by {owner}; wait until it ends, or stop it, and run again"
        raise StepError(message) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)


def make_folder(path: Path) -> None:
    """Raises ArtifactError where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        fault = None if os.access(path, os.W_OK) else "permission denied"
    except OSError as error:
        fault = error.strerror
    if fault:
        raise ArtifactError(f"cannot write {path}: {fault}; expected a folder this user may write to")


def list_files(folder: Path) -> list[str]:
    """Paths of all files below `folder` but the record, sorted."""
    paths = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(name for path in paths if (name := path.relative_to(folder).as_posix()) != RECORD)


def refuse_unsafe_files(folder: Path) -> None:
    names = list_files(folder)
    problems = [f"{name} is a pickle, which can run code" for name in names if Path(name).suffix in PICKLE_SUFFIXES]
    problems += [f"{name} is a link" for name in names if (folder / name).is_symlink()]
    if problems:
        message = f"refused to publish {folder.parent.name}: {'; '.join(problems)}"
        raise DataError(f"{message}; expected plain safetensors, parquet, JSON and text files")


def seal_file(path: Path) -> Entry:
    """Makes a file durable and hashes it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.fstat(file.fileno())
    return Entry(size=status.st_size, sha256=sha256, mtime_ns=status.st_mtime_ns)


def list_damage(artifact: Artifact, trusted: Mapping[str, int]) -> list[str]:
    """What differs from the record; a file is hashed unless its modification time is the trusted one."""
    files = artifact.record.files
    # Readers take what they find by pattern: a shard, weights or a pickle that somebody added would be used.
    added = [name for name in list_files(artifact.path) if name not in files and not Path(name).name.startswith(".")]
    problems = [f"{name} is not in its record" for name in added]
    found = (examine_file(artifact.path / name, entry, trusted.get(name)) for name, entry in files.items())
    return problems + [f"{name} {fault}" for name, fault in zip(files, found, strict=True) if fault]


def examine_file(path: Path, entry: Entry, trusted_mtime_ns: int | None) -> str:
    """What is wrong with a file, or nothing."""
    if not path.is_file():
        return "is missing"
    status = path.stat()
    if status.st_size != entry.size:
        return f"has {status.st_size} bytes, expected {entry.size}"
    if status.st_mtime_ns == trusted_mtime_ns:
        return ""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if sha256 == entry.sha256 else f"has sha256 {sha256[:12]}, expected {entry.sha256[:12]}"


def refuse_damage(artifact: Artifact, problems: Sequence[str]) -> None:
    """Raises ArtifactError that names the problems, if there are any."""
    if problems:
        remedy = f"restore it, or make a new version with --force {artifact.ref.step}"
        raise ArtifactError(f"{artifact.ref} is damaged: {'; '.join(problems)} (in {artifact.path}); {remedy}")


def write_record(folder: Path, record: Record) -> None:
    """Writes record.json, sealed by a hash over itself, after everything else is durable."""
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(path)
    value = record.model_dump(mode="json")
    write_atomically(folder / RECORD, json.dumps({**value, "seal": hash_json(value)}, indent=1, ensure_ascii=False))


def read_record(folder: Path, ref: Ref) -> Record:
    """The record of a version. Raises ArtifactError if it is missing, damaged or of another version."""
    try:
        value = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        seal = value.pop("seal")
        record = Record.model_validate(value)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise ArtifactError(f"{ref} is damaged: {RECORD} in {folder} cannot be read") from error
    if seal != hash_json(value) or (record.step, record.version) != (ref.step, ref.version):
        raise ArtifactError(f"{ref} is damaged: {RECORD} in {folder} has changed since it was published")
    return record


def write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


def rename_folder(source: Path, target: Path) -> bool:
    """Moves `source` to `target` durably; False if another writer took the name first."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    sync_folder(target.parent)
    return True
