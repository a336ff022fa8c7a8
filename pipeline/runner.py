"""Runs steps: each as a child process of its own, published only when it is whole.

A child, because GPU memory is released only when a process ends, because a crash must not take the
pipeline along, and because a step may need another environment or a distributed launcher.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.cards import write_card
from pipeline.config import Profile
from pipeline.fingerprint import Identity, identify
from pipeline.planner import PlannedStep
from pipeline.progress import ProgressReader, Report, show_progress
from pipeline.provenance import SOURCE_ROOT, Provenance, describe_host, digest_source, read_git
from pipeline.scratch import PUBLISHED, find_extendable, scratch_folder
from pipeline.store import Artifact, Record, Source, Store, make_folder, refuse_damage
from pipeline.supervisor import GRACE_SECONDS, start_supervised
from stages.contract import ArtifactError, ConfigError, DataError, Runtime, Step, StepError, find_step

POLL_SECONDS = 0.1
LOG_LINES = 12
PREEMPTED = 4
"""Exit code of a child that was asked to stop, as stages/__main__.py documents."""
KEEP_MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=268435456"
ERRORS = {error.__name__: error for error in (ConfigError, DataError, ArtifactError, StepError)}


@dataclass(frozen=True)
class Job:
    """One run of a step, and where it keeps what is not published, side by side in .scratch."""

    step: Step
    identity: Identity
    runtime: Runtime
    inputs: Mapping[str, Artifact]
    scratch: Path
    """Folder of the step's restartable state."""

    def beside(self, suffix: str) -> Path:
        return self.scratch.with_name(self.scratch.name + suffix)


def run_plan(planned: Sequence[PlannedStep], steps: Sequence[Step], profile: Profile, store: Store) -> list[Artifact]:
    """Runs or reuses every planned step in order, in this process, and says so line by line."""
    made: dict[str, Artifact] = {}
    with show_progress() as report:
        for number, plan in enumerate(planned, 1):
            step = find_step(steps, plan.step)
            inputs = {role: made[name] for role, name in step.inputs.items() if name in made}
            made[plan.step] = run_planned(plan, f"[{number}/{len(planned)}]", step, profile, store, inputs, report)
    return list(made.values())


def run_planned(
    plan: PlannedStep,
    place: str,
    step: Step,
    profile: Profile,
    store: Store,
    inputs: Mapping[str, Artifact],
    report: Report,
) -> Artifact:
    """The artifact of one planned step, reused or made; `place` says which of how many it is."""
    if plan.artifact:
        print(f"{place} reuse {plan.artifact.ref}", flush=True)
        return plan.artifact
    print(f"{place} run {plan.step}: {plan.reason}", flush=True)
    known, began = store.versions(plan.step), time.monotonic()
    artifact = run_step(step, profile, store, inputs, force=plan.forced, report=report)
    seconds = f"{time.monotonic() - began:.1f} s"
    print(f"{place} {'reuse' if artifact.ref in known else 'made'} {artifact.ref} in {seconds}", flush=True)
    return artifact


def run_step(
    step: Step,
    profile: Profile,
    store: Store,
    inputs: Mapping[str, Artifact],
    *,
    force: bool = False,
    report: Report,
) -> Artifact:
    """Makes and publishes the artifact of `step`, or returns the one that has its fingerprint.

    Raises StepError if another process runs the step or the step fails or is stopped, ArtifactError
    for damaged inputs or a damaged version that would fit, DataError or ConfigError as the step reports them.
    """
    with store.lock(step.name) as lock:
        for artifact in inputs.values():
            store.verify_once(artifact)
        digests = {role: artifact.record.digest for role, artifact in inputs.items()}
        identity = identify(step, profile.configs[step.name], digests)
        if not force:
            if found := store.find(step.name, identity.fingerprint):
                return found
            for damaged in store.matches(step.name, identity.fingerprint):
                refuse_damage(damaged, store.check(damaged))
        scratch = scratch_folder(store, step, identity)
        if force or not find_extendable(store, step, identity):
            drop_published(scratch)
        return run_job(Job(step, identity, profile.runtime_of(step.name), inputs, scratch), store, lock, report)


def run_job(job: Job, store: Store, lock: int, report: Report) -> Artifact:
    """Runs the child and publishes what it made; a failed run leaves only its scratch state."""
    started = datetime.now(UTC)
    prepare_scratch(job)
    output = store.begin(job.step.name)
    try:
        write_spec(job, output)
        code = run_child(job, lock, report)
        result = read_result(job, code)
        artifact = store.publish(output, draft_record(job, store.project, result, started), write_card)
    finally:
        shutil.rmtree(output, ignore_errors=True)
    job.beside(PUBLISHED).write_text(str(artifact.ref), encoding="utf-8")
    return artifact


def drop_published(scratch: Path) -> None:
    """Drops state that already led to an artifact; that of an unfinished run is kept."""
    marker = scratch.with_name(scratch.name + PUBLISHED)
    if marker.exists():
        if scratch.exists():
            shutil.rmtree(scratch)
        marker.unlink()


def prepare_scratch(job: Job) -> None:
    make_folder(job.scratch)
    for suffix in (PUBLISHED, ".progress", ".result"):
        job.beside(suffix).unlink(missing_ok=True)


def write_spec(job: Job, output: Path) -> None:
    spec = {
        "module": job.step.run.__module__,
        "step": job.step.name,
        "config": job.identity.config,
        "runtime": job.runtime.model_dump(mode="json"),
        "inputs": {role: str(artifact.path.resolve()) for role, artifact in job.inputs.items()},
        "output_dir": str(output),
        "scratch_dir": str(job.scratch),
        "progress_path": str(job.beside(".progress")),
        "result_path": str(job.beside(".result")),
    }
    job.beside(".spec").write_text(json.dumps(spec, indent=1), encoding="utf-8")


def child_environment(runtime: Runtime) -> dict[str, str]:
    """What the child has beside this process's environment.

    OpenMP threads that wait must sleep: spinning ones made generation 20 times slower on a shared
    two-core machine. A short spin first, well under a millisecond, saves waking them for each of a small
    model's thousand operations: a quarter of a training step on an idle machine. Memory that malloc keeps
    does not have to be faulted in again for the next tensor: a tenth of such a step.
    """
    threads = str(runtime.threads or os.cpu_count() or 1)
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "5000",
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", KEEP_MEMORY),
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCE_ROOT), os.environ.get("PYTHONPATH", "")])),
    }


def run_child(job: Job, lock: int, report: Report) -> int:
    """Runs the step under the supervisor, reports its progress and returns its exit code."""
    # A launcher stands where the interpreter would: it starts `-m stages` itself.
    python = job.runtime.launcher or (job.runtime.interpreter or sys.executable,)
    command = [*python, "-m", "stages", job.step.name, "--spec", str(job.beside(".spec"))]
    added = child_environment(job.runtime)
    reader = ProgressReader(job.step.name, job.beside(".progress"))
    with job.beside(".log").open("a", encoding="utf-8") as log:
        log.write(f"\n{datetime.now(UTC).isoformat()} {' '.join(command)}\n")
        log.writelines(f"{name}={value}\n" for name, value in added.items())
        log.flush()
        child = start_supervised(command, log, added, (lock,))
        try:
            return follow_child(child, reader, report)
        finally:
            stop_child(child)


def follow_child(child: subprocess.Popen[bytes], reader: ProgressReader, report: Report) -> int:
    code: int | None = None
    while code is None:
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(POLL_SECONDS)
        for update in reader.read():
            report(update)
    return code


def stop_child(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and all it started; nothing to do if it has ended."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(GRACE_SECONDS + 5)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def read_result(job: Job, code: int) -> dict[str, Any]:
    """What the child returned. Raises the error it reported, or one made from its exit code."""
    path, log, name = job.beside(".result"), job.beside(".log"), job.step.name
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if code == 0 and "metrics" in result:
        return result
    if "error" in result:
        raise ERRORS.get(result["type"], StepError)(f"step '{name}': {result['error']} (log: {log})")
    if code == PREEMPTED:
        raise StepError(f"step '{name}' was asked to stop; run again to go on from its last checkpoint")
    raise StepError(f"step '{name}' {describe_code(code)}; log: {log}, which ends in\n{read_tail(log)}")


def describe_code(code: int) -> str:
    """`code` as the supervisor returns it, 128 + a signal, or as the supervisor itself ended, minus a signal."""
    number = -code if code < 0 else code - 128
    if number not in set(signal.Signals):
        return f"failed with exit code {code}" if code else "ended without a result"
    hint = ", often for want of memory" if number == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(number).name}{hint}"


def read_tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-LOG_LINES:])


def draft_record(job: Job, project: str, result: Mapping[str, Any], started: datetime) -> Record:
    step, (commit, dirty) = job.step, read_git()
    provenance = Provenance(
        git_commit=commit,
        git_dirty=dirty,
        source=digest_source(),
        packages=result["packages"],
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=describe_host(),
        runtime=job.runtime,
    )
    return Record(
        name=f"{project}-{step.name}",
        kind=step.kind,
        step=step.name,
        stage=step.stage,
        revision=step.revision,
        fingerprint=job.identity.fingerprint,
        config=dict(job.identity.config),
        inputs={role: Source(ref=str(made.ref), digest=made.record.digest) for role, made in job.inputs.items()},
        metrics=result["metrics"],
        provenance=provenance,
    )
