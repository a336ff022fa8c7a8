"""Reward models: pairwise with `trl.RewardTrainer`, pointwise with binary cross-entropy; and their use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)
from trl import RewardConfig, RewardTrainer

from stages.contract import DataError, Metrics, StepContext
from stages.domains import domain_rng
from stages.rows import Row, assistant_turn, user_turn
from stages.training.checkpoints import choose_device, run_trainer, save_policy, shared_arguments
from stages.training.muon import Muon, choose_optimizer
from stages.training.settings import RewardModelConfig

CENTERING = 0.01
"""Keeps scores around 0, where the sigmoid that RL sees is steep."""


class RewardModel:
    """A published reward model that scores responses in (0, 1)."""

    def __init__(self, folder: Path, context: StepContext) -> None:
        self.device = choose_device(context)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32", use_safetensors=True)
        self.model = model.to(self.device).eval()

    def score(self, questions: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Sigmoid of the scalar head: bounded, so that one term cannot drown the others of the sum."""
        texts = [render(self.tokenizer, q, r) for q, r in zip(questions, responses, strict=True)]
        return torch.sigmoid(score_texts(self.model, self.tokenizer, texts)).tolist()

    def learn(self, pairs: Sequence[Row], config: RewardModelConfig) -> None:
        """Trains on in the order of the pairs. Not with a trainer: one inside of GRPO's would share its random numbers
        and accelerate's gradient state."""
        texts = list(zip(*(_texts(self.tokenizer, pairs, column) for column in ("chosen", "rejected")), strict=True))
        optimizer: torch.optim.Optimizer = choose_optimizer(
            self.model, (config.matrix_learning_rate, config.learning_rate)
        ) or torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, weight_decay=0.0)
        for _ in range(max(1, round(config.epochs))):
            for start in range(0, len(texts), config.batch_size):
                better, worse = (
                    read_texts(self.model, self.tokenizer, part)
                    for part in zip(*texts[start : start + config.batch_size], strict=True)
                )
                loss = -logsigmoid(better - worse).mean() + CENTERING * (better + worse).square().mean()
                torch.autograd.backward(loss)
                optimizer.step()
                optimizer.zero_grad()


def render(tokenizer: PreTrainedTokenizerBase, question: str, response: str) -> str:
    return str(tokenizer.apply_chat_template(user_turn(question) + assistant_turn(response), tokenize=False))


@torch.inference_mode()
def score_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_size: int = 256
) -> torch.Tensor:
    """Logits, one per text."""
    starts = range(0, len(texts), batch_size)
    return torch.cat([read_texts(model, tokenizer, texts[start : start + batch_size]).cpu() for start in starts])


def read_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> torch.Tensor:
    """Logits, one per text, in one pass."""
    batch = tokenizer(list(texts), padding=True, return_tensors="pt", add_special_tokens=False)
    logits: torch.Tensor = model(**batch.to(model.device)).logits[:, 0].float()
    return logits


def split_held_out(rows: Sequence[Row], config: RewardModelConfig) -> tuple[list[Row], list[Row]]:
    """(train, held out), cut by prompt so that no question stands on both sides."""
    questions = sorted({row["prompt"][-1]["content"] for row in rows})
    domain_rng(config.seed, "reward_model", "held_out").shuffle(questions)
    held_out = set(questions[: max(1, round(len(questions) * config.held_out))])
    train = [row for row in rows if row["prompt"][-1]["content"] not in held_out]
    if not train:
        raise DataError(f"{len(questions)} question is too few to hold some out; expected at least 2")
    return train, [row for row in rows if row["prompt"][-1]["content"] in held_out]


def drop_long(
    rows: Sequence[Row], columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, config: RewardModelConfig
) -> list[Row]:
    """Rows that fit into `max_length`. TRL drops the others without a word. Raises DataError if none fits."""
    fitting = keep_short(rows, columns, tokenizer, config.max_length)
    if not fitting:
        shortest = min(measure_rows(rows, columns, tokenizer))
        raise DataError(f"the shortest row has {shortest} tokens, expected at most max_length={config.max_length}")
    return fitting


def keep_short(
    rows: Sequence[Row], columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Row]:
    lengths = measure_rows(rows, columns, tokenizer)
    return [row for row, length in zip(rows, lengths, strict=True) if length <= max_length]


def measure_rows(rows: Sequence[Row], columns: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of the longest column of each row."""
    if not rows:
        return []
    lengths = (
        [len(ids) for ids in tokenizer(_texts(tokenizer, rows, column), add_special_tokens=False)["input_ids"]]
        for column in columns
    )
    return list(map(max, zip(*lengths, strict=True))) if len(columns) > 1 else list(next(lengths))


def load_classifier(policy: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy with a new scalar head instead of its language-model head."""
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="right")
    model = AutoModelForSequenceClassification.from_pretrained(
        policy, num_labels=1, dtype="float32", use_safetensors=True
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def train_pairwise(policy: Path, rows: Sequence[Row], config: RewardModelConfig, context: StepContext) -> Metrics:
    """Bradley-Terry loss on `chosen` and `rejected` summaries."""
    set_seed(config.seed)
    model, tokenizer = load_classifier(policy)
    fitting = drop_long(rows, ("chosen", "rejected"), tokenizer, config)
    train, held_out = split_held_out(fitting, config)
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            **_arguments(config, context),
            max_length=config.max_length,
            center_rewards_coefficient=CENTERING,
        ),
        train_dataset=Dataset.from_list([{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in train]),
        processing_class=tokenizer,
        optimizers=_optimizers(model, config),
    )
    run_trainer(trainer, context)
    save_policy(model, tokenizer, context.output_dir)
    agreement = agree_on_pairs(model, tokenizer, held_out)
    counts = {"pairs": len(train), "held_out": len(held_out), "too_long": len(rows) - len(fitting)}
    return {**counts, "agreement": agreement}


def train_pointwise(policy: Path, rows: Sequence[Row], config: RewardModelConfig, context: StepContext) -> Metrics:
    """Binary cross-entropy on the `safe` label of whole responses."""
    set_seed(config.seed)
    model, tokenizer = load_classifier(policy)
    model.config.problem_type = "multi_label_classification"
    fitting = drop_long(rows, ("completion",), tokenizer, config)
    train, held_out = split_held_out(fitting, config)
    encoded = tokenizer(_texts(tokenizer, train), add_special_tokens=False)
    columns = {**encoded, "labels": [[float(row["safe"])] for row in train]}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**_arguments(config, context)),
        train_dataset=Dataset.from_dict(columns),
        data_collator=DataCollatorWithPadding(tokenizer),
        optimizers=_optimizers(model, config),
    )
    # The model's loss is a mean over the micro-batch; without this Trainer adds those of a batch up.
    trainer.loss_is_scaled_for_ga = False
    run_trainer(trainer, context)
    save_policy(model, tokenizer, context.output_dir)
    logits = score_texts(model.eval(), tokenizer, _texts(tokenizer, held_out))
    labels = torch.tensor([row["safe"] for row in held_out])
    agreement = float(((logits > 0) == labels).float().mean())
    counts = {"responses": len(train), "held_out": len(held_out), "too_long": len(rows) - len(fitting)}
    return {**counts, "agreement": agreement}


def _arguments(config: RewardModelConfig, context: StepContext) -> dict[str, Any]:
    return {
        **shared_arguments(config.batch_size, config.seed, context),
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "save_steps": 50,
    }


def _optimizers(model: PreTrainedModel, config: RewardModelConfig) -> tuple[Muon | None, None]:
    return choose_optimizer(model, (config.matrix_learning_rate, config.learning_rate)), None


def _texts(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], column: str = "completion") -> list[str]:
    return [render(tokenizer, row["prompt"][-1]["content"], row[column][-1]["content"]) for row in rows]


def agree_on_pairs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> float:
    """Share of held-out pairs whose chosen answer scores higher."""
    chosen, rejected = (
        score_texts(model.eval(), tokenizer, _texts(tokenizer, rows, column)) for column in ("chosen", "rejected")
    )
    return float((chosen > rejected).float().mean())
