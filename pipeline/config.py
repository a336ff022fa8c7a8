"""A profile: one YAML file that says what every step does and how it is run.

Its sections are those of the recipe, so there is no second list of them. Beside them stand
`project`, `runtime` and the shared keys: a step whose Config has a field of that name takes the
shared value unless its own section sets it.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from stages.contract import ConfigError, Runtime, Step, StepConfig

SHARED_KEYS = ("seed", "domains", "engine")
MOST_ERRORS = 5
Location = tuple[int | str, ...]


class RuntimeSection(Runtime):
    """`runtime` of a profile: for all steps, and overrides for single ones."""

    steps: dict[str, Runtime] = Field(default_factory=dict)
    """Settings of single steps, by step name."""


class ProfileSections(BaseModel):
    """What every profile has beside the sections of its steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    project: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder below artifacts/ that everything is published in."""
    leave_out: tuple[str, ...] = ()
    """Steps or stages that this profile does without, and with them what is made from them."""
    runtime: RuntimeSection = RuntimeSection()
    """How steps are run; never changes a result."""


@dataclass(frozen=True)
class Profile:
    """A validated profile."""

    path: Path
    project: str
    configs: Mapping[str, StepConfig]
    """Config by step name."""
    leave_out: tuple[str, ...]
    runtime: RuntimeSection
    resolved: Mapping[str, Any]
    """The whole profile with every default filled in, as plain values."""

    def runtime_of(self, step: str) -> Runtime:
        """Runtime of one step: the common one with the step's own settings over it."""
        common = {name: getattr(self.runtime, name) for name in Runtime.model_fields}
        own = self.runtime.steps.get(step, Runtime())
        return Runtime(**{**common, **{name: getattr(own, name) for name in own.model_fields_set}})


def load_profile(path: Path, overrides: Sequence[str], steps: Sequence[Step]) -> Profile:
    """Reads `path`, lays the `step.field=value` overrides over it and validates.

    Raises ConfigError naming file, field, what is and what was expected.
    """
    raw = read_yaml(path)
    overridden = {apply_override(raw, override) for override in overrides}
    sections, inherited = spread_shared(raw, steps)
    model = profile_model(steps)
    try:
        profile: Any = model.model_validate(sections)
    except ValidationError as error:
        found = [e for e in error.errors() if e["loc"][:2] not in inherited]
        lines = [describe_error(e, path, overridden, model) for e in found or error.errors()]
        more = [f"and {len(lines) - MOST_ERRORS} more"] if len(lines) > MOST_ERRORS else []
        raise ConfigError("; ".join([*lines[:MOST_ERRORS], *more])) from error
    names = [step.name for step in steps]
    for name in profile.runtime.steps:
        if name not in names:
            raise ConfigError(f"{path}: runtime.steps.{name}: no such step{suggest(name, names)}")
    configs = {step.name: getattr(profile, step.config_section) for step in steps}
    return Profile(path, profile.project, configs, profile.leave_out, profile.runtime, profile.model_dump(mode="json"))


def profile_model(steps: Sequence[Step]) -> type[BaseModel]:
    """The pydantic model of a profile of these steps; its JSON schema serves editors."""
    fields: dict[str, Any] = {}
    for key in SHARED_KEYS:
        owner = next((step.Config for step in steps if key in step.Config.model_fields), None)
        if owner is not None:
            fields[key] = (owner.model_fields[key].annotation, owner.model_fields[key])
    for step in steps:
        fields[step.config_section] = (step.Config, Field(default_factory=step.Config, description=step.Config.__doc__))
    return create_model("Profile", __base__=ProfileSections, **fields)


def read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        nearby = ", ".join(sorted(str(p) for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path} does not exist; expected a profile. Profiles in {path.parent}: {nearby}")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}; expected a mapping of sections")
    return value


def apply_override(raw: dict[str, Any], override: str) -> Location:
    """Sets one dotted key in `raw` and returns its location. Raises ConfigError if it is malformed."""
    dotted, equals, text = override.partition("=")
    location = tuple(dotted.split("."))
    if not equals or not all(location):
        raise ConfigError(f"--set {override}: expected step.field=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML") from error
    target = raw
    for key in location[:-1]:
        if target.get(key) is None:
            target[key] = {}
        target = target[key]
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override}: '{key}' is {target!r}; expected a mapping that holds other keys")
    target[location[-1]] = value
    return location


def spread_shared(raw: Mapping[str, Any], steps: Sequence[Step]) -> tuple[dict[str, Any], set[Location]]:
    """`raw` with the shared values in every section that has such a field, and where it was left to them."""
    sections, inherited = dict(raw), set[Location]()
    for step in steps:
        name, given = step.config_section, sections.get(step.config_section)
        section = {} if given is None else given
        if isinstance(section, dict):
            shared = [key for key in SHARED_KEYS if key in step.Config.model_fields and key not in section]
            inherited |= {(name, key) for key in shared}
            sections[name] = {**section, **{key: raw[key] for key in shared if key in raw}}
    return sections, inherited


def describe_error(error: ErrorDetails, path: Path, overridden: set[Location], model: type[BaseModel]) -> str:
    location = error["loc"]
    given = any(location[: len(other)] == other or other[: len(location)] == location for other in overridden)
    where = "--set" if location and given else str(path)
    field = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        return f"{where}: {field} is not a known key{suggest(str(location[-1]), known_keys(model, location[:-1]))}"
    if error["type"] == "missing":
        return f"{where}: {field} is missing; expected a value"
    what = "" if isinstance(error["input"], Mapping | BaseModel) else f" is {error['input']!r}"
    message = (
        error["msg"]
        .removeprefix("Value error, ")
        .replace("Input should be", "expected")
        .replace("a valid tuple", "a list")
    )
    return f"{where}: {field}{what}{';' if what else ':'} {message}"


def suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else f"; expected one of: {', '.join(known)}"


def known_keys(model: type[BaseModel], location: Location) -> list[str]:
    """Keys that may stand at `location` of a profile."""
    current: Any = model
    for key in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(key)].annotation
        else:
            current = next((kind for kind in get_args(current) if isinstance(kind, type) and kind is not str), None)
    is_model = isinstance(current, type) and issubclass(current, BaseModel)
    return list(current.model_fields) if is_model else []
