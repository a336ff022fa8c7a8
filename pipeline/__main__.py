"""The command line: `python -m pipeline COMMAND CONFIG ...`.

Exit codes: 0 done, 2 wrong usage or config, 3 a step failed or an artifact cannot be used, 4 verify
found damage, 130 interrupted. Planning and a run with nothing to do import neither Prefect nor torch.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from pipeline.cleaning import collect_garbage
from pipeline.config import Profile, load_profile, profile_model
from pipeline.planner import PlannedStep, Selection, plan_run
from pipeline.provenance import digest_source
from pipeline.recipe import R1, check_recipe, resolve_recipe
from pipeline.store import Artifact, Ref, Store, refuse_damage
from stages.contract import ArtifactError, ConfigError, PipelineError, Step, StepError, find_step

ARTIFACTS = Path("artifacts")
DONE, DAMAGED, INTERRUPTED = 0, 4, 130
MAIN_METRICS = 4


def main(arguments: Sequence[str], steps: Sequence[Step] = R1) -> int:
    """Runs one command and returns its exit code."""
    given = build_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        check_recipe(steps)
        kept, profile = resolve_recipe(steps, load_profile(given.config, given.set, steps))
        code: int = given.command(given, profile, Store(ARTIFACTS, profile.project), kept)
        return code
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return PipelineError.exit_code
    except KeyboardInterrupt:
        print("interrupted; finished steps are kept. The same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="The DeepSeek-R1 recipe, step by step.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plan = add_command(commands, "plan", plan_steps, "what a run would do, and why")
    run = add_command(commands, "run", run_steps, "make what is missing")
    run.add_argument("--local", action="store_true", help="a plain loop in this process, without Prefect")
    for command in (plan, run):
        add_selection(command)
    show = add_command(commands, "show", show_artifacts, "artifacts and their metrics")
    show.add_argument("artifact", nargs="?", metavar="STEP[@vN]", help="default: all")
    verify = add_command(commands, "verify", verify_artifacts, "hash every file of every artifact")
    for command in (plan, show, verify):
        command.add_argument("--json", action="store_true", help="print JSON")
    add_command(commands, "report", report_results, "write report.html")
    config = add_command(commands, "config", print_config, "the profile with every default filled in")
    config.add_argument("--schema", action="store_true", help="print the JSON schema of a profile instead")
    ask = add_command(commands, "ask", ask_policy, "put a question to a checkpoint")
    ask.add_argument("artifact", metavar="STEP[@vN]", help="a policy; without @vN the newest")
    ask.add_argument("question")
    collect = add_command(commands, "gc", clean_store, "list abandoned folders and scratch of published steps")
    collect.add_argument("--delete", action="store_true", help="delete them")
    return parser


def add_command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("config", type=Path, help="profile, as configs/demo.yaml")
    command.add_argument("--set", action="append", default=[], metavar="STEP.FIELD=VALUE", help="override a field")
    command.set_defaults(command=function)
    return command


def add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("--only", action="append", default=[], metavar="STEP_OR_STAGE", help="and what it needs")
    command.add_argument("--from", dest="from_step", default="", metavar="STEP", help="and all downstream of it")
    command.add_argument("--until", default="", metavar="STEP", help="and what it needs")
    command.add_argument("--force", action="append", default=[], metavar="STEP_OR_STAGE", help="make a new version")
    command.add_argument("--use", action="append", default=[], metavar="STEP@vN", help="take this version of a step")


def read_selection(given: argparse.Namespace) -> Selection:
    return Selection(tuple(given.only), given.from_step, given.until, tuple(given.force), tuple(given.use))


def plan_steps(given: argparse.Namespace, profile: Profile, store: Store, steps: Sequence[Step]) -> int:
    planned = plan_run(steps, profile, store, read_selection(given))
    if given.json:
        names = ("step", "stage", "action", "version", "reason", "fingerprint")
        print_json({"project": store.project, "steps": [{n: getattr(p, n) for n in names} for p in planned]})
    else:
        for plan in planned:
            print(f"{plan.action:<6} {plan.artifact.ref if plan.artifact else plan.step}: {plan.reason}")
    warn_of_changed_source(planned)
    return DONE


def run_steps(given: argparse.Namespace, profile: Profile, store: Store, steps: Sequence[Step]) -> int:
    selection = read_selection(given)
    planned = plan_run(steps, profile, store, selection)
    warn_of_changed_source(planned)
    if all(plan.artifact for plan in planned):
        for plan in planned:
            print(f"reuse {plan.artifact.ref if plan.artifact else plan.step}")
        return DONE
    if given.local:
        from pipeline.runner import run_plan

        artifacts = run_plan(planned, steps, profile, store)
    else:
        from pipeline.flow import run_with_prefect

        refs = run_with_prefect(str(given.config), selection, given.set)
        artifacts = [store.get(Ref.parse(ref)) for ref in refs.values()]
    print_table(artifacts)
    return report_results(given, profile, store, steps)


def warn_of_changed_source(planned: Sequence[PlannedStep]) -> None:
    """Source code is not part of a fingerprint: a step's `revision` says when its meaning changes."""
    source = digest_source()
    stale = [plan.step for plan in planned if plan.artifact and plan.artifact.record.provenance.source != source]
    if stale:
        remedy = "--force makes a step again, a new `revision` makes it new for everyone"
        print(f"note: stages/ has changed since {len(stale)} reused artifacts were made; {remedy}", file=sys.stderr)


def show_artifacts(given: argparse.Namespace, profile: Profile, store: Store, steps: Sequence[Step]) -> int:
    artifacts = list_artifacts(store, steps, given.artifact or "")
    if given.json:
        print_json({"artifacts": [describe_artifact(artifact) for artifact in artifacts]})
    elif artifacts:
        print_table(artifacts)
    else:
        print(f"{store.folder} holds no artifacts yet; make them with: python -m pipeline run {given.config}")
    return DONE


def list_artifacts(store: Store, steps: Sequence[Step], text: str) -> list[Artifact]:
    """All artifacts in the recipe's order, those of one step, or the one that `text` names."""
    if "@" in text:
        return [store.get(Ref.parse(text))]
    names = [find_step(steps, text).name] if text else [step.name for step in steps]
    return [artifact for name in names for artifact in store.history(name)]


def describe_artifact(artifact: Artifact) -> dict[str, Any]:
    record = artifact.record
    return {
        "ref": str(artifact.ref),
        "step": record.step,
        "stage": record.stage,
        "kind": record.kind,
        "digest": record.digest,
        "path": str(artifact.path),
        "inputs": {role: source.ref for role, source in record.inputs.items()},
        "counts": record.counts,
        "metrics": record.metrics,
        "created": record.provenance.finished,
    }


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(artifacts: Sequence[Artifact]) -> None:
    """Artifacts stage by stage."""
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "artifact", "digest", "made from", "counts", "metrics")
    stage = ""
    for artifact in artifacts:
        record = artifact.record
        if stage and record.stage != stage:
            table.add_section()
        made_from = ", ".join(source.ref for source in record.inputs.values())
        counts = ", ".join(f"{count:,} {name}" for name, count in record.counts.items())
        first = record.stage if record.stage != stage else ""
        table.add_row(first, str(artifact.ref), record.digest[:8], made_from, counts, shorten_metrics(record.metrics))
        stage = record.stage
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def shorten_metrics(metrics: dict[str, Any]) -> str:
    """The first few numbers; an estimate with its interval counts as one."""
    estimates = {name: value.get("mean") if isinstance(value, dict) else value for name, value in metrics.items()}
    numbers = {name: value for name, value in estimates.items() if isinstance(value, (int, float))}
    return ", ".join(f"{name} {numbers[name]:.4g}" for name in list(numbers)[:MAIN_METRICS])


def verify_artifacts(given: argparse.Namespace, profile: Profile, store: Store, steps: Sequence[Step]) -> int:
    found = {ref: examine(store, ref) for name in store.step_names() for ref in store.versions(name)}
    if given.json:
        listed = [{"ref": str(ref), "problems": problems} for ref, problems in found.items()]
        print_json({"project": store.project, "artifacts": listed})
    else:
        for ref, problems in found.items():
            print(f"{ref}: {'; '.join(problems) or 'sound'}")
    return DAMAGED if any(found.values()) else DONE


def examine(store: Store, ref: Ref) -> list[str]:
    try:
        return store.verify(store.get(ref))
    except ArtifactError as error:
        return [str(error)]


def report_results(given: argparse.Namespace, profile: Profile, store: Store, steps: Sequence[Step]) -> int:
    from pipeline.report import write_report

    print(f"report: {write_report(profile, store)}")
    return DONE


def print_config(given: argparse.Namespace, profile: Profile, store: Store, steps: Sequence[Step]) -> int:
    if given.schema:
        print_json(profile_model(steps).model_json_schema())
    else:
        print(yaml.safe_dump(dict(profile.resolved), sort_keys=False, allow_unicode=True), end="")
    return DONE


def ask_policy(given: argparse.Namespace, profile: Profile, store: Store, steps: Sequence[Step]) -> int:
    from pipeline.runner import child_environment

    found = list_artifacts(store, steps, given.artifact)
    if not found or found[-1].record.kind != "policy":
        is_what = f"a {found[-1].record.kind}" if found else "not made yet"
        raise ConfigError(f"{given.artifact} is {is_what}; expected a policy, as all_scenario_rl")
    artifact = found[-1]
    refuse_damage(artifact, store.check(artifact))
    runtime = profile.runtime_of(artifact.ref.step)
    command = [runtime.interpreter or sys.executable, "-m", "stages", "ask"]
    command += ["--model", str(artifact.path.resolve()), "--question", given.question]
    code = subprocess.run(command, env={**os.environ, **child_environment(runtime)}, check=False).returncode
    return DONE if code == 0 else StepError.exit_code


def clean_store(given: argparse.Namespace, profile: Profile, store: Store, steps: Sequence[Step]) -> int:
    garbage = collect_garbage(store, given.delete)
    for item in garbage:
        print(f"{'deleted' if given.delete else 'would delete'} {item.path} ({item.size:,} bytes): {item.why}")
    print(f"{len(garbage)} paths, {sum(item.size for item in garbage):,} bytes")
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
