"""What a run would do, and why, from the recipe, a profile and the store. Changes nothing.

A step is reused when any of its versions has the fingerprint that the profile asks for. Inputs
enter by content, so a step that runs again to the same result stops the change there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config import Profile
from pipeline.fingerprint import Identity, explain, identify
from pipeline.store import Artifact, Ref, Store
from stages.contract import ArtifactError, ConfigError, Step, find_step

MOST_REASONS = 3


@dataclass(frozen=True)
class Selection:
    """Which part of the recipe a run is about; empty = all of it."""

    only: tuple[str, ...] = ()
    """Steps or stages; what they need upstream is run where it is missing."""
    from_step: str = ""
    """This step and everything downstream of it."""
    until: str = ""
    """Nothing but this step and what it needs."""
    force: tuple[str, ...] = ()
    """Steps or stages that get a new version even if theirs fits."""
    use: tuple[str, ...] = ()
    """`step@vN`: the version to take for that step, whatever its fingerprint."""


@dataclass(frozen=True)
class PlannedStep:
    """What a run would do with one step."""

    step: str
    stage: str
    action: Literal["reuse", "run"]
    version: int | None
    """The version reused; None if the step would run."""
    reason: str
    fingerprint: str | None
    """None while an input is still to be made."""
    forced: bool = False

    @property
    def ref(self) -> Ref:
        """What is reused. Raises ConfigError for a step that would run."""
        if self.version is None:
            raise ConfigError(f"step '{self.step}' has no version yet")
        return Ref(self.step, self.version)


def plan_run(
    steps: Sequence[Step], profile: Profile, store: Store, selection: Selection | None = None
) -> list[PlannedStep]:
    """The selected steps in order. Raises ConfigError for a selection that names what is not there."""
    selection = selection or Selection()
    forced = expand_names(steps, selection.force)
    pinned = {ref.step: ref for ref in map(Ref.parse, selection.use)}
    check_pins(steps, pinned, forced)
    planned: list[PlannedStep] = []
    made: dict[str, Artifact | None] = {}
    for step in select_steps(steps, selection, pinned):
        if step.name in pinned:
            done, made[step.name] = plan_pinned(step, pinned[step.name], store)
        else:
            done, made[step.name] = plan_step(step, profile, store, made, step.name in forced)
        planned.append(done)
    return planned


def select_steps(steps: Sequence[Step], selection: Selection, pinned: Mapping[str, Ref]) -> list[Step]:
    """The steps a selection is about with all they need, in the recipe's order."""
    targets = expand_names(steps, selection.only) or {step.name for step in steps}
    if selection.from_step:
        targets &= list_downstream(steps, find_step(steps, selection.from_step).name)
    if selection.until:
        targets &= list_upstream(steps, {find_step(steps, selection.until).name}, {})
    if not targets:
        raise ConfigError("--only, --from and --until leave no step to run; expected that they overlap")
    wanted = list_upstream(steps, targets, pinned)
    return [step for step in steps if step.name in wanted]


def expand_names(steps: Sequence[Step], names: Sequence[str]) -> set[str]:
    """Step names, with each stage replaced by its steps. Raises ConfigError for an unknown one."""
    stages = {step.stage for step in steps}
    found: set[str] = set()
    for name in names:
        found |= {step.name for step in steps if step.stage == name}
        if name not in stages or any(step.name == name for step in steps):
            found.add(find_step(steps, name).name)
    return found


def list_upstream(steps: Sequence[Step], names: set[str], pinned: Mapping[str, Ref]) -> set[str]:
    """`names` and all they are made from; a pinned step needs nothing."""
    wanted = set(names)
    for step in reversed(steps):
        if step.name in wanted and step.name not in pinned:
            wanted |= set(step.inputs.values())
    return wanted


def list_downstream(steps: Sequence[Step], name: str) -> set[str]:
    """`name` and all that is made from it."""
    found = {name}
    for step in steps:
        if found & set(step.inputs.values()):
            found.add(step.name)
    return found


def check_pins(steps: Sequence[Step], pinned: Mapping[str, Ref], forced: set[str]) -> None:
    for name, ref in pinned.items():
        find_step(steps, name)
        if name in forced:
            raise ConfigError(f"--use {ref} and --force {name} contradict each other; expected one of them")


def plan_pinned(step: Step, ref: Ref, store: Store) -> tuple[PlannedStep, Artifact]:
    artifact = store.get(ref)
    if problems := store.check(artifact):
        raise ArtifactError(f"{ref} is damaged: {'; '.join(problems)} (in {artifact.path}); use another version")
    return reuse(step, artifact, f"pinned by --use {ref}"), artifact


def plan_step(
    step: Step, profile: Profile, store: Store, made: Mapping[str, Artifact | None], forced: bool
) -> tuple[PlannedStep, Artifact | None]:
    """What to do with one step, given the artifacts upstream (None = will run)."""
    inputs = {role: made[name] for role, name in step.inputs.items()}
    digests = {role: artifact.record.digest for role, artifact in inputs.items() if artifact}
    waiting = [step.inputs[role] for role, artifact in inputs.items() if not artifact]
    if waiting:
        reason = "forced" if forced else f"upstream {', '.join(dict.fromkeys(waiting))} will run"
        return PlannedStep(step.name, step.stage, "run", None, reason, None, forced), None
    identity = identify(step, profile.configs[step.name], digests)
    found = None if forced else store.find(step.name, identity.fingerprint)
    if found:
        return reuse(step, found, "same fingerprint"), found
    reason = "forced" if forced else explain_run(step, identity, store)
    return PlannedStep(step.name, step.stage, "run", None, reason, identity.fingerprint, forced), None


def reuse(step: Step, artifact: Artifact, reason: str) -> PlannedStep:
    return PlannedStep(step.name, step.stage, "reuse", artifact.ref.version, reason, artifact.record.fingerprint)


def explain_run(step: Step, identity: Identity, store: Store) -> str:
    """Why no version of `step` fits, against its newest one."""
    if damaged := store.matches(step.name, identity.fingerprint):
        return f"damaged: {'; '.join(store.check(damaged[0]))} in {damaged[0].ref}"
    if history := store.history(step.name):
        reasons = explain(history[-1].record.identity, identity, step.config_section)
        more = len(reasons) - MOST_REASONS
        return "; ".join(reasons[:MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")
    versions = store.versions(step.name)
    return f"damaged: record.json of {versions[-1]}" if versions else "no version yet"
