"""Sampling with `generate` of transformers: the embedded default, on CPU or one GPU.

Batches are a pure function of the prompts and the sampling settings, and each draws from its own seed.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from stages.contract import Progress, Runtime, no_progress
from stages.engines import Completion, Sampling, name_draws, seed_draw
from stages.rows import read_completion, user_turn

TOO_LONG = Completion("", 0, "prompt_too_long")


def load(model_dir: Path, runtime: Runtime) -> "TransformersEngine":
    return TransformersEngine(model_dir, runtime)


class TransformersEngine:
    """A policy and its tokenizer, loaded from safetensors in float32 on CPU, as saved on a GPU."""

    def __init__(self, model_dir: Path, runtime: Runtime) -> None:
        cuda = runtime.device == "cuda" or (runtime.device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if cuda else "cpu")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
        dtype = "auto" if cuda else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, use_safetensors=True)
        self.model = model.to(self.device).eval()

    def sample(
        self, questions: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        texts = [self._render(question) for question in questions]
        groups = self.extend(texts, sampling, seed, progress)
        return [
            [replace(completion, text=read_completion(text, completion.text)) for completion in group]
            for text, group in zip(texts, groups, strict=True)
        ]

    def extend(
        self, texts: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        # A tokenizer takes no empty list.
        encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        names = name_draws(texts)
        results: list[list[Completion]] = [[TOO_LONG] * sampling.n for _ in texts]
        fitting = [n for n, tokens in enumerate(encoded) if len(tokens) < self.model.config.max_position_embeddings]
        # Neighbours of equal length waste no padding; ties by position keep the order defined.
        fitting.sort(key=lambda n: (len(encoded[n]), n))
        per_batch = max(1, sampling.batch_size // sampling.n)
        for start in range(0, len(fitting), per_batch):
            chosen = fitting[start : start + per_batch]
            completions = self._generate([encoded[n] for n in chosen], [names[n] for n in chosen], sampling, seed)
            for number, group in zip(chosen, completions, strict=True):
                results[number] = group
            progress(start + len(chosen), len(fitting))
        return results

    def _render(self, question: str) -> str:
        return str(self.tokenizer.apply_chat_template(user_turn(question), add_generation_prompt=True, tokenize=False))

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], sampling: Sampling, seed: int
    ) -> list[list[Completion]]:
        """Completions of tokenised prompts; `names` are those of their random draws."""
        torch.manual_seed(seed_draw(seed, names[0]))
        batch = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self.device)
        width = batch["input_ids"].shape[1]
        room = self.model.config.max_position_embeddings - width
        output = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=self._configure(sampling, min(room, sampling.max_completion_length)),
        )
        completions = [self._decode(tokens) for tokens in output[:, width:].tolist()]
        return [completions[i : i + sampling.n] for i in range(0, len(completions), sampling.n)]

    def _configure(self, sampling: Sampling, max_new_tokens: int) -> GenerationConfig:
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            num_return_sequences=sampling.n,
            do_sample=sampling.temperature > 0,
            **(drawn if sampling.temperature > 0 else {}),
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def _decode(self, tokens: list[int]) -> Completion:
        end = self.tokenizer.eos_token_id
        if end in tokens:
            cut = tokens.index(end)
            return Completion(self.tokenizer.decode(tokens[:cut], skip_special_tokens=True), cut + 1, "stop")
        return Completion(self.tokenizer.decode(tokens, skip_special_tokens=True), len(tokens), "length")
