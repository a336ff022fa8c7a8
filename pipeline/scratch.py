"""Restartable state of steps: where it lies, and when a finished run can go on from it."""

from pathlib import Path

from pipeline.fingerprint import Identity
from pipeline.store import Artifact, Ref, Store
from stages.contract import ArtifactError, Step

PUBLISHED = ".published"
"""Suffix of a file that exists once scratch state led to an artifact, and names it."""


def scratch_folder(store: Store, step: Step, identity: Identity) -> Path:
    """Of one identity, but for the field that may grow: longer and shorter runs share their state."""
    return (store.folder / ".scratch" / f"{step.name}-{identity.hash_without(step.extendable)[:12]}").resolve()


def find_extendable(store: Store, step: Step, identity: Identity) -> Artifact | None:
    """The whole artifact that a shorter run with the same identity made, if its last state is still there."""
    scratch = scratch_folder(store, step, identity)
    marker = scratch.with_name(scratch.name + PUBLISHED)
    if not (step.extendable and marker.exists() and scratch.exists()):
        return None
    try:
        artifact = store.get(Ref.parse(marker.read_text(encoding="utf-8")))
    except ArtifactError:
        return None
    shorter = artifact.record.config[step.extendable] < identity.config[step.extendable]
    return artifact if shorter and not store.check(artifact) else None
