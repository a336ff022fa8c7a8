"""The DeepSeek-R1 recipe: every step of the DAG in the order it may run (arXiv 2501.12948)."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.config import Profile
from stages import (
    all_scenario_rl,
    base_model,
    cold_start,
    evaluation,
    prompts,
    r1_zero,
    reasoning_rl,
    rejection_sampling,
)
from stages.contract import ConfigError, Step

R1: tuple[Step, ...] = (
    *base_model.STEPS,
    *prompts.STEPS,
    *r1_zero.STEPS,
    *cold_start.STEPS,
    *reasoning_rl.STEPS,
    *rejection_sampling.STEPS,
    *all_scenario_rl.STEPS,
    *evaluation.STEPS,
)

PARENTS = (
    ("sft", "base", "base_model", "stage 3 restarts from the base model; only its data come from the RL checkpoint"),
    ("sft", "data", "sft_data", "stage 3 trains on the rejection-sampled set"),
    ("sft_data", "policy", "reasoning_rl", "stage 3 samples from the stage-2 checkpoint"),
    ("all_scenario_rl", "policy", "sft", "stage 4 starts from the stage-3 SFT checkpoint"),
)
"""(step, role, the only step that may fill it, why)."""


def check_recipe(steps: Sequence[Step]) -> None:
    """Raises ConfigError unless the steps form a DAG in order that keeps the paper's lineage."""
    check_order(steps)
    check_sections(steps)
    by_name = {step.name: step for step in steps}
    for name, role, parent, why in PARENTS:
        given = by_name[name].inputs.get(role, "nothing") if name in by_name else parent
        if given != parent:
            raise ConfigError(f"step '{name}' takes its {role} from {given}; expected {parent}: {why}")


def resolve_recipe(steps: Sequence[Step], profile: Profile) -> tuple[tuple[Step, ...], Profile]:
    """The steps as a profile asks for them, with the inputs that configs choose and without what it leaves out, and the
    profile of these steps alone.

    What is made from a step that is left out goes with it. Raises ConfigError where a config asks for it all the same.
    """
    left_out = {step.name for step in steps if {step.name, step.stage} & set(profile.leave_out)}
    if unknown := set(profile.leave_out) - {name for step in steps for name in (step.name, step.stage)}:
        raise ConfigError(f"leave_out names {', '.join(sorted(unknown))}; expected steps or stages of the recipe")
    kept = list[Step]()
    for step in steps:
        chosen = dict(step.choose_inputs(profile.configs[step.name])) if step.choose_inputs else {}
        if missing := left_out & set(chosen.values()):
            raise ConfigError(f"{step.config_section} asks for {', '.join(missing)}, which leave_out names")
        if step.name in left_out or left_out & set(step.inputs.values()):
            left_out.add(step.name)
        else:
            kept.append(replace(step, inputs={**step.inputs, **chosen}))
    return tuple(kept), replace(profile, configs={step.name: profile.configs[step.name] for step in kept})


def check_order(steps: Sequence[Step]) -> None:
    seen: set[str] = set()
    names = {step.name for step in steps}
    for step in steps:
        if step.name in seen:
            raise ConfigError(f"step '{step.name}' is in the recipe twice; expected each name once")
        for role, parent in step.inputs.items():
            if parent not in seen:
                state = "comes later" if parent in names else "does not exist"
                raise ConfigError(f"step '{step.name}' takes its {role} from '{parent}', which {state}")
        seen.add(step.name)


def check_sections(steps: Sequence[Step]) -> None:
    configs = {step.config_section: step.Config for step in steps}
    for step in steps:
        if configs[step.config_section] is not step.Config:
            raise ConfigError(f"section '{step.config_section}' has two Config classes; expected one")
