"""Sampling with `generate` of transformers: the embedded default, on CPU or one GPU.

Batches are a pure function of the prompts and the sampling settings, and each draws from its own seed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from stages.contract import Progress, Runtime, no_progress
from stages.engines import Completion, Sampling, name_draws, seed_draw
from stages.engines.prompting import TOO_LONG, PromptingEngine


def load(model_dir: Path, runtime: Runtime) -> "TransformersEngine":
    return TransformersEngine(model_dir, runtime)


class TransformersEngine(PromptingEngine):
    """A policy and its tokenizer, loaded from safetensors in float32 on CPU, as saved on a GPU."""

    def __init__(self, model_dir: Path, runtime: Runtime) -> None:
        super().__init__(model_dir)
        cuda = runtime.device == "cuda" or (runtime.device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if cuda else "cpu")
        dtype = "auto" if cuda else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, use_safetensors=True)
        self.model = model.to(self.device).eval()

    def extend(
        self, texts: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        encoded, fitting = self._encode(texts)
        names = name_draws(texts)
        results: list[list[Completion]] = [[TOO_LONG] * sampling.n for _ in texts]
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

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], sampling: Sampling, seed: int
    ) -> list[list[Completion]]:
        """Completions of tokenised prompts; `names` are those of their random draws."""
        torch.manual_seed(seed_draw(seed, names[0]))
        batch = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self.device)
        width = batch["input_ids"].shape[1]
        room = self.context - width
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
