"""What makes two runs of a step the same run.

A fingerprint covers the step, its revision, its identity config and the content digests of its
inputs: never paths, hosts, times or how the step is run.
"""

import hashlib
from collections.abc import Mapping
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
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()


def identify(step: Step, config: StepConfig, digests: Mapping[str, str]) -> Identity:
    """Identity of `step` run with `config` on inputs with these content digests, by role."""
    return Identity(step.name, step.revision, config.model_dump(mode="json"), dict(digests))


def explain(old: Identity, new: Identity, section: str = "") -> list[str]:
    """What differs, one phrase each; fields are named as `section.field`, by default the step's name."""
    reasons = []
    if old.revision != new.revision:
        reasons.append(f"revision of {new.step} {old.revision} -> {new.revision}")
    reasons += compare_configs(old.config, new.config, section or new.step)
    reasons += compare_inputs(old.inputs, new.inputs)
    return reasons


def compare_configs(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> list[str]:
    before, after = flatten(old, prefix), flatten(new, prefix)
    return [
        f"{path} {show(before, path)} -> {show(after, path)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path) or (path in before) != (path in after)
    ]


def compare_inputs(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [
        f"input {role} changed: {old.get(role, 'none')[:8]} -> {new.get(role, 'none')[:8]}"
        for role in sorted(old.keys() | new.keys())
        if old.get(role) != new.get(role)
    ]


def flatten(value: Any, path: str) -> dict[str, Any]:
    """Leaves of nested mappings by dotted path; a list is a leaf."""
    if not isinstance(value, Mapping) or not value:
        return {path: value}
    return {leaf: item for key in value for leaf, item in flatten(value[key], f"{path}.{key}").items()}


def show(leaves: Mapping[str, Any], path: str) -> str:
    if path not in leaves:
        return "(absent)"
    text = canonical_json(leaves[path])
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."
