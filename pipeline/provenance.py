"""Where an artifact came from, for its record: source, host, times. Nothing here enters a digest."""

import hashlib
import os
import platform
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from stages.contract import Runtime

SOURCE_ROOT = Path(__file__).resolve().parents[1]


class Host(BaseModel):
    """The class of machine, without its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    machine: str
    processor: str
    cores: int
    gpus: tuple[str, ...]


class Provenance(BaseModel):
    """How and when a version was made."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    git_commit: str
    """Empty outside a git checkout."""
    git_dirty: bool
    source: str
    """sha256 over the Python files below stages/."""
    packages: dict[str, str]
    """Versions in the environment that ran the step."""
    started: str
    """ISO 8601, UTC."""
    finished: str
    host: Host
    runtime: Runtime


def read_git(root: Path = SOURCE_ROOT) -> tuple[str, bool]:
    """(commit, uncommitted changes); an empty commit where there is no git or no checkout."""
    questions = (["rev-parse", "HEAD"], ["status", "--porcelain"])
    try:
        commit, changes = (subprocess.check_output(["git", *q], cwd=root, stderr=subprocess.DEVNULL) for q in questions)
    except (OSError, subprocess.CalledProcessError):
        return "", False
    return commit.decode().strip(), bool(changes)


def digest_source(root: Path = SOURCE_ROOT) -> str:
    digest = hashlib.sha256()
    for path in sorted((root / "stages").rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def describe_host() -> Host:
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return Host(
        system=platform.system(),
        machine=platform.machine(),
        processor=read_field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        cores=os.cpu_count() or 1,
        gpus=tuple(read_field(path, "Model") for path in gpus),
    )


def read_field(path: Path, name: str) -> str:
    """Value of the first `name : value` line of a /proc file; empty if there is none."""
    if not path.exists():
        return ""
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
