"""Supervised fine-tuning with `trl.SFTTrainer`; the loss is on the completion alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer

from stages.contract import DataError, Metrics, StepContext
from stages.engines.decoder import can_decode
from stages.rows import Row
from stages.training.checkpoints import last_loss, run_trainer, save_policy, shared_arguments
from stages.training.compact import IGNORED, group_by_length, sum_losses
from stages.training.muon import choose_optimizer
from stages.training.settings import SupervisedConfig


def train_sft(policy: Path, rows: Sequence[Row], config: SupervisedConfig, context: StepContext) -> Metrics:
    """Fine-tunes `policy` on conversational `prompt` + `completion` rows."""
    trainer = make_trainer(policy, rows, config, context)
    log = run_trainer(trainer, context)
    save_policy(trainer.model, AutoTokenizer.from_pretrained(policy), context.output_dir)
    return {"rows": len(rows), "steps": trainer.state.global_step, "loss": last_loss(log)}


class CompactSFTTrainer(SFTTrainer):
    """Computes rows of like length side by side on a CPU; the loss is TRL's."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if return_outputs or not can_decode(model):
            compute: Any = super().compute_loss
            return compute(model, inputs, return_outputs, num_items_in_batch)
        lengths, labels = inputs["attention_mask"].sum(dim=1), inputs["labels"]
        total = torch.zeros(())
        for rows in group_by_length(lengths):
            columns = slice(int(lengths[rows].max()))
            total = total + sum_losses(model, inputs["input_ids"][rows, columns], labels[rows, columns])
        return total / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


def make_trainer(policy: Path, rows: Sequence[Row], config: SupervisedConfig, context: StepContext) -> SFTTrainer:
    set_seed(config.seed)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    check_lengths(rows, tokenizer, config.max_length)
    arguments = SFTConfig(
        **shared_arguments(config.batch_size, config.seed, context),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.final_learning_rate / config.learning_rate},
        warmup_steps=config.warmup_steps,
        max_length=config.max_length,
        completion_only_loss=True,
        packing=False,
        save_steps=50,
    )
    model = AutoModelForCausalLM.from_pretrained(policy, dtype="float32", use_safetensors=True)
    return CompactSFTTrainer(
        model=model,
        args=arguments,
        optimizers=(choose_optimizer(model, (config.matrix_learning_rate, config.learning_rate)), None),
        train_dataset=Dataset.from_list([{key: row[key] for key in ("prompt", "completion")} for row in rows]),
        processing_class=tokenizer,
    )


def check_lengths(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Refuses rows that TRL would cut: a cut chain of thought teaches never to conclude."""
    texts = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in rows]
    longest = max(len(tokens) for tokens in tokenizer(texts, add_special_tokens=False)["input_ids"])
    if longest > max_length:
        raise DataError(f"the longest row has {longest} tokens, expected at most max_length={max_length}; raise it")
