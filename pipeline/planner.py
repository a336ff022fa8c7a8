"""What a run would do, and why, from the recipe, a profile and the store. Changes nothing.

A step is reused when any of its versions has the fingerprint that the profile asks for. Inputs
enter by content, so a step that runs again to the same result stops the change there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config import Profile
from pipeline.fingerprint import Identity, explain, identify
from pipeline.scratch import find_extendable
from pipeline.store import Artifact, Ref, Store, refuse_damage
from stages.contract import ConfigError, Step, find_step

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
    reason: str
    fingerprint: str | None
    """None while an input is still to be made."""
    artifact: Artifact | None = None
    """What is reused; None if the step would run."""
    forced: bool = False

    @property
    def version(self) -> int | None:
        return self.artifact.ref.version if self.artifact else None


def plan_run(
    steps: Sequence[Step], profile: Profile, store: Store, selection: Selection | None = None
) -> list[PlannedStep]:
    """The selected steps in order. Raises ConfigError for a selection that names what is not there."""
    selection = selection or Selection()
    refuse_left_out(selection, profile)
    forced = expand_names(steps, selection.force)
    pinned = {ref.step: ref for ref in map(Ref.parse, selection.use)}
    selected = select_steps(steps, selection, pinned)
    check_names(steps, selected, selection, pinned)
    planned: dict[str, PlannedStep] = {}
    for step in selected:
        if step.name in pinned:
            artifact = store.get(pinned[step.name])
            refuse_damage(artifact, store.check(artifact))
            planned[step.name] = reuse(artifact, f"pinned by --use {artifact.ref}")
        else:
            planned[step.name] = plan_step(step, profile, store, planned, step.name in forced)
    return list(planned.values())


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


def refuse_left_out(selection: Selection, profile: Profile) -> None:
    """Raises ConfigError for a step or stage that is asked for and that the profile does without."""
    asked = {*selection.only, *selection.force, selection.from_step, selection.until}
    if both := sorted(asked & set(profile.leave_out)):
        raise ConfigError(f"{', '.join(both)}: left out by {profile.path}; take it from leave_out there to run it")


def expand_names(steps: Sequence[Step], names: Sequence[str]) -> set[str]:
    """Step names, with each stage replaced by its steps. Raises ConfigError for an unknown one."""
    found: set[str] = set()
    for name in names:
        found |= {step.name for step in steps if step.stage == name} or {find_step(steps, name).name}
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


def check_names(
    steps: Sequence[Step], selected: Sequence[Step], selection: Selection, pinned: Mapping[str, Ref]
) -> None:
    """Raises ConfigError for --use and --force that contradict each other, or that would change nothing."""
    names, forced = {step.name for step in selected}, expand_names(steps, selection.force)
    for name, ref in pinned.items():
        find_step(steps, name)
        if name in forced:
            raise ConfigError(f"--use {ref} and --force {name} contradict each other; expected one of them")
    idle = [f"--use {ref}" for ref in pinned.values() if ref.step not in names]
    idle += [f"--force {name}" for name in selection.force if not names & expand_names(steps, [name])]
    if idle:
        raise ConfigError(f"{', '.join(idle)}: not part of this run, which is about: {', '.join(sorted(names))}")


def plan_step(
    step: Step, profile: Profile, store: Store, planned: Mapping[str, PlannedStep], forced: bool
) -> PlannedStep:
    """What to do with one step, given the plans for those upstream."""
    inputs = {role: planned[name].artifact for role, name in step.inputs.items()}
    waiting = dict.fromkeys(step.inputs[role] for role, artifact in inputs.items() if not artifact)
    if waiting:
        reason = "forced" if forced else f"upstream {', '.join(waiting)} will run"
        return PlannedStep(step.name, step.stage, "run", reason, None, forced=forced)
    digests = {role: artifact.record.digest for role, artifact in inputs.items() if artifact}
    identity = identify(step, profile.configs[step.name], digests)
    if not forced and (found := store.find(step.name, identity.fingerprint)):
        return reuse(found, "same fingerprint")
    reason = "forced" if forced else explain_extension(step, identity, store) or explain_run(step, identity, store)
    return PlannedStep(step.name, step.stage, "run", reason, identity.fingerprint, forced=forced)


def reuse(artifact: Artifact, reason: str) -> PlannedStep:
    record = artifact.record
    return PlannedStep(record.step, record.stage, "reuse", reason, record.fingerprint, artifact)


def explain_extension(step: Step, identity: Identity, store: Store) -> str:
    """What would be extended, from which version; empty if nothing can be."""
    shorter = find_extendable(store, step, identity)
    if not shorter:
        return ""
    field, before = step.extendable, shorter.record.config[step.extendable]
    return f"extend {step.config_section}.{field} {before} -> {identity.config[field]} from {shorter.ref}"


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
