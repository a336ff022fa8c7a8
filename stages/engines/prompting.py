"""What engines share before a model comes in: the policy's template, its tokens, its context, and seeds."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from stages.contract import DataError, Progress, no_progress
from stages.engines import Completion, Sampling, name_draws, seed_draw
from stages.rows import read_completion, user_turn

TOO_LONG = Completion("", 0, "prompt_too_long")


class PromptingEngine(ABC):
    """An engine that renders and tokenizes prompts itself, so that all ask a policy in the same tokens."""

    def __init__(self, model_dir: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
        self.context: int = AutoConfig.from_pretrained(model_dir).get_text_config().max_position_embeddings

    @abstractmethod
    def extend(
        self, texts: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        """As `Engine.extend`."""

    def sample(
        self, questions: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        texts = [self._render(question) for question in questions]
        groups = self.extend(texts, sampling, seed, progress)
        return [
            [replace(completion, text=read_completion(text, completion.text)) for completion in group]
            for text, group in zip(texts, groups, strict=True)
        ]

    def _render(self, question: str) -> str:
        return str(self.tokenizer.apply_chat_template(user_turn(question), add_generation_prompt=True, tokenize=False))

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """(tokens of each text, numbers of those that leave room in the context)."""
        # A tokenizer takes no empty list.
        encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return encoded, [number for number, tokens in enumerate(encoded) if len(tokens) < self.context]

    def _decode(self, tokens: list[int]) -> Completion:
        """What a completion's tokens say up to the end token; without one, the completion was cut."""
        end = self.tokenizer.eos_token_id
        if end in tokens:
            cut = tokens.index(end)
            return Completion(self.tokenizer.decode(tokens[:cut], skip_special_tokens=True), cut + 1, "stop")
        return Completion(self.tokenizer.decode(tokens, skip_special_tokens=True), len(tokens), "length")


def check_servable(model_dir: Path) -> None:
    """Raises DataError for a policy that vLLM would load without a part of it, and so sample from another one.

    vLLM 0.30 skips, without a word, the biases that transformers gives Qwen3's attention output.
    """
    config = AutoConfig.from_pretrained(model_dir)
    if config.model_type.startswith("qwen3") and getattr(config, "attention_bias", False):
        what = f"{model_dir} has attention output biases (o_proj.bias), which vLLM leaves out for {config.model_type}"
        raise DataError(f"{what}: its samples would be another model's; use engine transformers or cpu")


def derive_seeds(seed: int, texts: Sequence[str]) -> list[int]:
    """A seed for each text, below 2**30; sample `i` of a text has this seed plus `i`."""
    return [seed_draw(seed, name) >> 34 for name in name_draws(texts)]
