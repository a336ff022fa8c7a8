"""The base model: a tiny Qwen3 pretrained from scratch, or a checkpoint of one's own."""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Encoding, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import Module
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainingArguments,
    set_seed,
)

from stages.contract import DataError, Metrics, StepContext
from stages.rows import THINK_CLOSE, THINK_OPEN, THOUGHTS
from stages.training.checkpoints import last_loss, run_trainer, save_policy, shared_arguments
from stages.training.compact import IGNORED, sum_losses
from stages.training.muon import choose_optimizer
from stages.training.settings import PretrainingConfig

PIECES = r"=[A-Z]|\p{Han}|\p{N}| ?[^\s\p{P}\p{S}\p{N}\p{Han}]+| ?[^\s\p{L}\p{N}]+|\s+"
PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|> {{ message.content }}"
    "{% else %}<|assistant|>{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LOOK_BACK = 4.0
"""Strength of what fixes where a head looks, beside content of about 1."""
CONSTANT = 0.5
"""Value of the first dimension of every embedding."""
SAVE_STEPS = 1000
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")


def train_tokenizer(documents: Sequence[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which each digit, each Chinese character and each `=A` of an option stands alone.

    The think tags are ordinary added tokens: special ones would vanish in decoding, and the format
    reward would be constantly 0.
    """
    special = [PAD, END, USER, ASSISTANT]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 2,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens([THINK_OPEN, THINK_CLOSE])
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(config: PretrainingConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads,
            head_dim=config.hidden_size // config.heads,
            max_position_embeddings=config.context,
            attention_dropout=config.attention_dropout,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            initializer_range=config.initializer_range,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    look_back(model)
    return model


@torch.no_grad()
def look_back(model: Qwen3ForCausalLM) -> None:
    """Head h of the first layer starts out attending h + 1 tokens back, whatever the tokens are.

    To look up what followed a word, a head must find the place after it, which takes heads such as
    these below it (arXiv:2209.11895 §2). After 2,000 steps a model that began so recalls 98 % of the pairs
    it is drilled in, one of random weights 16 %. A query that is a key turned by the rotary angle of the
    distance looks there; both come from a dimension that is alike in all embeddings. Biases would do as
    well, but vLLM leaves out one of those that Qwen3 can have.
    """
    embeddings, attention = model.model.embed_tokens.weight, model.model.layers[0].self_attn
    embeddings[:, 0] = CONSTANT
    normed = CONSTANT / embeddings.pow(2).mean().sqrt()
    angles = torch.outer(torch.arange(1, model.config.num_attention_heads + 1), model.model.rotary_emb.inv_freq)
    key = torch.cat([torch.ones_like(angles), torch.zeros_like(angles)], dim=1)[: model.config.num_key_value_heads]
    query = torch.cat([angles.cos(), -angles.sin()], dim=1)
    attention.q_proj.weight[:, 0] = LOOK_BACK / normed * query.flatten()
    attention.k_proj.weight[:, 0] = LOOK_BACK / normed * key.flatten()
    attention.q_norm.weight.fill_(2.0)


class PackedBlocks(Dataset[dict[str, torch.Tensor]]):
    """Whole documents, each closed by the end token, packed into blocks of equal length.

    No document is cut: an answer without its question would teach to make things up. Loss is on what
    follows the question alone; the questions of this world are random, and a million parameters too
    few to spend any on noise. Documents of a block stand in any order: as packed, short ones fill the
    room at the end, and a model would never have begun with one.
    """

    def __init__(self, documents: Sequence[str], tokenizer: PreTrainedTokenizerFast, block: int) -> None:
        tokens, labels = encode_documents(documents, tokenizer)
        packed = pack([len(document) for document in tokens], block)
        rng = random.Random(0)
        self.input_ids = torch.full((len(packed), block), tokenizer.pad_token_id)
        self.labels = torch.full((len(packed), block), IGNORED)
        for row, chosen in enumerate(packed):
            rng.shuffle(chosen)
            for target, source in ((self.input_ids, tokens), (self.labels, labels)):
                joined = torch.tensor([token for number in chosen for token in source[number]])
                target[row, : len(joined)] = joined[:block]

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.input_ids[index], "labels": self.labels[index]}


class AnswerTrainer(Trainer):
    """Computes logits of the trained tokens alone; half of a document is question."""

    def compute_loss(
        self,
        model: Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Cross-entropy of the batch's trained tokens, over those of the whole optimiser step."""
        trained = (inputs["labels"] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return sum_losses(model, inputs["input_ids"], inputs["labels"]) / trained


def encode_documents(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerFast
) -> tuple[list[list[int]], list[list[int]]]:
    """(tokens, labels) of each document; labels are IGNORED up to where its thoughts begin."""
    encoded = tokenizer.backend_tokenizer.encode_batch(list(documents), add_special_tokens=False)
    tokens = [[*document.ids, tokenizer.eos_token_id] for document in encoded]
    skipped = [count_question(text, document) for text, document in zip(documents, encoded, strict=True)]
    labels = [[IGNORED] * skip + document[skip:] for skip, document in zip(skipped, tokens, strict=True)]
    return tokens, labels


def count_question(document: str, encoded: Encoding) -> int:
    """Tokens before the document's thoughts; 0 if it has none."""
    question, marker, _ = document.partition(THOUGHTS)
    first = encoded.char_to_token(len(question + marker)) if marker else 0
    return len(encoded.ids) if first is None else first


def pack(lengths: Sequence[int], block: int, open_blocks: int = 64) -> list[list[int]]:
    """Documents by block: each goes into the first of the open blocks that has room for it."""
    blocks, room = list[list[int]](), list[int]()
    for number, length in enumerate(lengths):
        start = max(0, len(blocks) - open_blocks)
        fitting = next((i for i in range(start, len(blocks)) if room[i] >= length), None)
        if fitting is None:
            blocks.append([])
            room.append(block)
            fitting = len(blocks) - 1
        blocks[fitting].append(number)
        room[fitting] -= length
    return blocks


def pretrain(config: PretrainingConfig, documents: Sequence[str], context: StepContext) -> Metrics:
    """Trains tokenizer and model on the corpus; writes the checkpoint to `context.output_dir`."""
    set_seed(config.seed)
    tokenizer = train_tokenizer(documents[-20_000:], config.vocabulary, config.context)
    model = build_model(config, tokenizer)
    blocks = PackedBlocks(documents, tokenizer, config.block)
    arguments = TrainingArguments(
        **{**shared_arguments(config.batch_size, config.seed, context), "logging_steps": 50},
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.02,
        train_sampling_strategy="sequential",
        save_steps=SAVE_STEPS,
    )
    optimizer = choose_optimizer(model, (config.matrix_learning_rate, config.learning_rate), config.weight_decay)
    trainer = AnswerTrainer(model=model, args=arguments, train_dataset=blocks, optimizers=(optimizer, None))
    log = run_trainer(trainer, context)
    save_policy(model, tokenizer, context.output_dir)
    return {
        "parameters": model.num_parameters(),
        "tokens": int((blocks.input_ids != tokenizer.pad_token_id).sum()),
        "loss": last_loss(log),
    }


def import_checkpoint(source: Path, target: Path) -> Metrics:
    """Copies a Hugging Face checkpoint folder. Pickled weights and folders that are none are refused."""
    if not (source / "config.json").is_file():
        raise DataError(f"base_model.path: {source} is not a checkpoint folder; expected a config.json in it")
    pickles = sorted(file.name for pattern in PICKLES for file in source.glob(pattern))
    if pickles:
        raise DataError(
            f"base_model.path: {source} holds pickled weights ({', '.join(pickles)}), which can run code when loaded; "
            "expected only *.safetensors: convert them with `save_pretrained(..., safe_serialization=True)`"
        )
    if not list(source.glob("*.safetensors")):
        raise DataError(f"base_model.path: {source} has no weights; expected *.safetensors in it")
    check_loadable(source)
    files = [
        f for f in source.iterdir() if f.is_file() and f.suffix in (".json", ".safetensors", ".txt", ".jinja", ".model")
    ]
    for file in files:
        shutil.copyfile(file, target / file.name)
    return {"source": source.name, "files": len(files)}


def check_loadable(source: Path) -> None:
    try:
        AutoConfig.from_pretrained(source)
        template = AutoTokenizer.from_pretrained(source).chat_template
        for file in source.glob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"base_model.path: {source} cannot be loaded: {error}") from error
    if template is None:
        raise DataError(f"base_model.path: the tokenizer in {source} has no chat template; expected one")
