"""Scratch checkpoints that can be trusted, training logs, and the arguments all trainers share."""

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from stages.contract import DataError, Progress, StepContext, StepError
from stages.shards import hash_file

LogLine = Mapping[str, float | None]
COMPLETE = "COMPLETE.json"
LOG_STEPS = 5


class MarkComplete(TrainerCallback):
    """Writes a manifest once a scratch checkpoint is whole; transformers writes it in place and unsynced."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.distributed_state:
            args.distributed_state.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = find_checkpoint(args, state.global_step)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != COMPLETE]
        manifest = {str(path.relative_to(folder)): hash_file(path) for path in files}
        partial = folder / f"{COMPLETE}.partial"
        with partial.open("w") as file:
            json.dump(manifest, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / COMPLETE)


def is_complete(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / COMPLETE).read_text())
        return all(hash_file(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


def find_checkpoint(args: TrainingArguments, step: int) -> Path:
    """Where transformers writes the checkpoint of a step."""
    return Path(str(args.output_dir)) / f"checkpoint-{step}"


def newest_checkpoint(scratch_dir: Path, usable: Callable[[int], bool] = lambda step: True) -> Path | None:
    """The newest whole checkpoint of a usable step; newer ones are removed so that none is ever resumed from."""
    folders = sorted(((int(p.name.rpartition("-")[2]), p) for p in scratch_dir.glob("checkpoint-*")), reverse=True)
    for step, folder in folders:
        if usable(step) and is_complete(folder):
            return folder
        shutil.rmtree(folder)
    return None


class KeepModel(TrainerCallback):
    """Keeps another model than the policy with each checkpoint; the trainer would start again from the first one.

    Whole weights in one process: not for a model that is cut into shards.
    """

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        self.model, self.name = model, name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step:
            load_model(self.model, self.path(args, state))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            save_model(self.model, str(self.path(args, state)))

    def path(self, args: TrainingArguments, state: TrainerState) -> Path:
        return find_checkpoint(args, state.global_step) / f"{self.name}.safetensors"


class LogMetrics(TrainerCallback):
    """Keeps the trainer's log as JSON lines and reports progress."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path, self.progress = path, progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Rewritten from the restored history, so that a resumed log has no line twice."""
        if state.is_world_process_zero:
            self.path.write_text("".join(map(write_line, state.log_history)))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        line = state.log_history[-1]
        if "train_runtime" in line or not state.is_world_process_zero:
            # A summary of this process alone, after a resume not of the training; or another process's copy.
            return
        with self.path.open("a") as file:
            file.write(write_line(line))
        shown = {k: v for k, v in line.items() if k in ("loss", "reward") and isinstance(v, float)}
        self.progress(state.global_step, state.max_steps, **shown)


def write_line(line: LogLine) -> str:
    # TRL's trainers count tokens from the start of the process.
    return json.dumps({name: value for name, value in line.items() if name != "num_tokens"}) + "\n"


def read_log(path: Path) -> list[LogLine]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def last_loss(log: Sequence[LogLine]) -> float | None:
    """The last loss logged; None of a run shorter than the logging interval."""
    return next((line["loss"] for line in reversed(log) if "loss" in line), None)


def choose_device(context: StepContext) -> str:
    if context.runtime.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return context.runtime.device


def split_batch(batch_size: int, context: StepContext) -> tuple[int, int]:
    """(per-device batch, gradient accumulation) of a global batch; the product is always the global batch."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_process, rest = divmod(batch_size, processes)
    if rest:
        raise DataError(f"a global batch of {batch_size} does not divide over {processes} processes")
    device_batch = min(context.runtime.per_device_batch_size, per_process)
    while per_process % device_batch:
        device_batch -= 1
    return device_batch, per_process // device_batch


def shared_arguments(batch_size: int, seed: int, context: StepContext) -> dict[str, Any]:
    """Arguments common to all trainers."""
    on_cpu = choose_device(context) == "cpu"
    device_batch, accumulation = split_batch(batch_size, context)
    return {
        "output_dir": str(context.scratch_dir),
        "per_device_train_batch_size": device_batch,
        "gradient_accumulation_steps": accumulation,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": on_cpu,
        # TRL turns both on by default: bf16 is emulated and slow on most CPUs, and a tiny model has no
        # activations worth recomputing.
        "bf16": not on_cpu,
        "gradient_checkpointing": not on_cpu,
        "logging_steps": LOG_STEPS,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    }


def run_trainer(
    trainer: Any, context: StepContext, rollout_steps: int = 1, may_end: Callable[[], bool] = lambda: False
) -> list[LogLine]:
    """Trains to the last planned step, from the newest whole checkpoint if there is one; returns the log.

    A checkpoint inside a rollout, as the last one of a run may be, is none to go on from, nor is one of a longer run.
    Raises StepError if training ends early and `may_end` does not say so.
    """
    log = context.output_dir / "training_log.jsonl"
    trainer.add_callback(MarkComplete())
    trainer.add_callback(LogMetrics(log, context.progress))
    last = trainer.args.max_steps if trainer.args.max_steps > 0 else math.inf
    checkpoint = newest_checkpoint(context.scratch_dir, lambda step: step % rollout_steps == 0 and step <= last)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    done, planned = trainer.state.global_step, trainer.state.max_steps
    if done < planned and not may_end():
        raise StepError(f"training ended after {done} of {planned} steps")
    return read_log(log)


def save_policy(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Weights as safetensors, tokenizer and generation config: what `from_pretrained` and vLLM load."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
