"""What makes two runs of a step the same run.

A fingerprint covers the step, its revision, its identity config and the content digests of its
inputs: never paths, hosts, times or how the step is run.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages.contract import Step, StepConfig
from stages.rows import canonical_json

SHOWN_CHARS = 60


@dataclass(frozen=True)
class Identity:
    """Everything that can change the result of a step."""

    step: str
    revision: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Content digest by role."""

    @property
    def fingerprint(self) -> str:
        return hash_json(asdict(self))

    def hash_without(self, field: str) -> str:
        """The fingerprint, blind to one field of the config."""
        config = {name: value for name, value in self.config.items() if name != field}
        return hash_json({**asdict(self), "config": config})


def hash_json(value: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def identify(step: Step, config: StepConfig, digests: Mapping[str, str]) -> Identity:
    """Identity of `step` run with `config` on inputs with these content digests, by role."""
    return Identity(step.name, step.revision, config.model_dump(mode="json"), dict(digests))


def explain(old: Identity, new: Identity, section: str = "") -> list[str]:
    """What differs, one phrase each; fields are named as `section.field`, by default the step's name."""
    before, after = (list_parts(identity, section or new.step) for identity in (old, new))
    return [
        f"{name} {before.get(name, '(absent)')} -> {after.get(name, '(absent)')}"
        for name in dict.fromkeys([*after, *before])
        if before.get(name) != after.get(name)
    ]


def list_parts(identity: Identity, section: str) -> dict[str, str]:
    """What enters a fingerprint as text, by the name people know it by: what they can change comes first."""
    fields = {name: shorten(canonical_json(value)) for name, value in sorted(flatten(identity.config, section))}
    inputs = {f"input {role}": digest[:8] for role, digest in sorted(identity.inputs.items())}
    return {f"revision of {identity.step}": str(identity.revision), **fields, **inputs}


def flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of the leaves of nested mappings; a list is a leaf."""
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for key in value:
        yield from flatten(value[key], f"{path}.{key}")


def shorten(text: str) -> str:
    """Long text cut, with a hash so that two that differ later still look different."""
    if len(text) <= SHOWN_CHARS:
        return text
    return f"{text[:SHOWN_CHARS]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
