"""The recipe as Prefect flows: one task per step, joined by the recipe's own edges.

Prefect schedules, shows and serves approvals; what is done is known by the store alone, so tasks
are never cached or retried here. Steps run one at a time in the main thread: they share one machine,
an interrupt reaches the running one, and its process lives and dies with this one.

A deployment's parameters come from whoever reaches the server. They may choose a profile of the
worker's checkout and change what a step is, never how, by which program or from which file it runs.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before Prefect is imported, because importing it is already an event that it reports.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from prefect import Flow, State, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipeline.cards import render_metrics
from pipeline.config import Profile, load_profile
from pipeline.embedded_server import serve_prefect
from pipeline.planner import PlannedStep, Selection, plan_run
from pipeline.progress import show_progress
from pipeline.recipe import R1, resolve_recipe
from pipeline.runner import run_planned
from pipeline.store import Artifact, Ref, Store
from stages.contract import ConfigError, Step, find_step

DEMO = "configs/demo.yaml"
NAMES_CODE_OR_FILE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*|[/~].*|(.*/)?\.\.(/.*)?", re.DOTALL)
Refs = dict[str, str]  # artifact by step, as {"sft": "sft@v2"}


@flow(name="r1-pipeline", log_prints=True)
def r1_pipeline(
    profile: str = DEMO,
    overrides: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    from_step: str = "",
    until: str = "",
    force: tuple[str, ...] = (),
    use: tuple[str, ...] = (),
) -> Refs:
    """The whole recipe, or the part of it that is selected; `overrides` are `step.field=value`."""
    check_parameters(profile, overrides)
    return run_steps(profile, overrides, Selection(only, from_step, until, force, use))


def make_stage_flow(stage: str) -> Flow[..., Refs]:
    """The flow of one stage, with what is missing upstream."""

    @flow(name=stage.replace("_", "-"), log_prints=True)
    def run_stage(profile: str = DEMO, overrides: tuple[str, ...] = (), force: bool = False) -> Refs:
        check_parameters(profile, overrides)
        return run_steps(profile, overrides, Selection(only=(stage,), force=(stage,) if force else ()))

    return run_stage


r1_zero = make_stage_flow("r1_zero")
cold_start = make_stage_flow("cold_start")
reasoning_rl = make_stage_flow("reasoning_rl")
rejection_sampling = make_stage_flow("rejection_sampling")
all_scenario_rl = make_stage_flow("all_scenario_rl")
evaluation = make_stage_flow("evaluation")


def run_with_prefect(profile_path: str, selection: Selection, overrides: Sequence[str]) -> Refs:
    """Runs the recipe as a flow, against the server in PREFECT_API_URL or one of its own.

    Raises what a failing step raises, and ConfigError if the server does not answer.
    """
    # A person at a terminal sees the steps' own lines; a failure reaches the caller as one error.
    logger = logging.getLogger("prefect")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    run = flow(name="r1-pipeline", validate_parameters=False)(run_steps)
    if PREFECT_API_URL.value():
        check_server()
        return run(profile_path, overrides, selection)
    log = open_profile(profile_path, overrides)[2].folder / ".scratch" / "prefect-server.log"
    with serve_prefect(log) as url, temporary_settings({PREFECT_API_URL: url}):
        try:
            return run(profile_path, overrides, selection)
        finally:
            # Left to Prefect, logs are sent when Python exits: to a server that is gone by then, for a minute.
            APILogHandler().flush()


def check_server() -> None:
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            message = f"PREFECT_API_URL={client.api_url} does not answer ({error}); start `prefect server start`"
            raise ConfigError(f"{message}, unset it, or run with --local")


def check_parameters(profile_path: str, overrides: Sequence[str]) -> None:
    """Raises ConfigError for parameters that reach beyond the checkout's profiles and identity fields."""
    path = Path(profile_path)
    if path.parts[:1] != ("configs",) or ".." in path.parts:
        raise ConfigError(f"profile '{profile_path}': expected a relative path below configs/, as {DEMO}")
    plain, changed = load_profile(path, (), R1), load_profile(path, overrides, R1)
    if changed.runtime != plain.runtime:
        raise ConfigError(f"overrides {list(overrides)} change `runtime`, the worker's own; expected identity fields")
    added = set(iterate_texts(changed.resolved)) - set(iterate_texts(plain.resolved))
    if refused := sorted(text for text in added if NAMES_CODE_OR_FILE.fullmatch(text)):
        message = f"overrides name code or files of the worker: {', '.join(refused)}"
        raise ConfigError(f"{message}; expected plain values, or a profile in configs/ that names them")


def iterate_texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in [*value, *(value.values() if isinstance(value, Mapping) else ())]:
            yield from iterate_texts(item)


def open_profile(profile_path: str, overrides: Sequence[str]) -> tuple[tuple[Step, ...], Profile, Store]:
    steps, profile = resolve_recipe(R1, load_profile(Path(profile_path), overrides, R1))
    return steps, profile, Store(Path("artifacts"), profile.project)


def run_steps(profile_path: str, overrides: Sequence[str], selection: Selection) -> Refs:
    """Plans, then runs each step as a task whose arguments are the states of those upstream."""
    steps, profile, store = open_profile(profile_path, overrides)
    planned = plan_run(steps, profile, store, selection)
    states: dict[str, State[str]] = {}
    for number, plan in enumerate(planned, 1):
        inputs = {role: states[name] for role, name in find_step(steps, plan.step).inputs.items() if name in states}
        step_task = run_step_task.with_options(name=plan.step, task_run_name=plan.step)
        place = f"[{number}/{len(planned)}]"
        states[plan.step] = step_task(plan, place, profile_path, overrides, inputs, return_state=True)
        states[plan.step].result()
    return {name: state.result() for name, state in states.items()}


@task(cache_policy=NO_CACHE)
def run_step_task(
    plan: PlannedStep, place: str, profile_path: str, overrides: Sequence[str], inputs: Mapping[str, str]
) -> str:
    """Runs or reuses one step and returns the address of its artifact."""
    steps, profile, store = open_profile(profile_path, overrides)
    upstream = {role: store.get(Ref.parse(ref)) for role, ref in inputs.items()}
    with show_progress() as report:
        artifact = run_planned(plan, place, find_step(steps, plan.step), profile, store, upstream, report)
    show_artifact(artifact, profile.project)
    return str(artifact.ref)


def show_artifact(artifact: Artifact, project: str) -> None:
    """Publishes what the UI shows of an artifact. A key keeps the history of all versions."""
    key = re.sub(r"[^a-z0-9]+", "-", f"{project}-{artifact.ref.step}".lower()).strip("-")
    where = f"[{artifact.path}]({artifact.path.resolve().as_uri()})"
    text = f"**{artifact.ref}** in {where}\n\n{render_metrics(artifact.record.metrics)}"
    create_markdown_artifact(text, key=key, description=str(artifact.ref))
