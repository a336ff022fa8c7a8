"""Sampling with `generate` of transformers: the embedded default, on CPU or one GPU.

Batches are a pure function of the prompts and the sampling settings, and each draws from its own seed.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
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
        done = 0
        for chosen in self._cut_batches(encoded, fitting, sampling):
            completions = self._generate([encoded[n] for n in chosen], [names[n] for n in chosen], sampling, seed)
            for number, group in zip(chosen, completions, strict=True):
                results[number] = group
            done += len(chosen)
            progress(done, len(fitting))
        return results

    def _cut_batches(
        self, encoded: Sequence[Sequence[int]], fitting: Sequence[int], sampling: Sampling
    ) -> Iterator[list[int]]:
        """Numbers of the prompts of each batch. Neighbours of equal length waste no padding; ties by position keep the
        order defined. Prompts that leave less room than is asked for are not put beside those that leave more."""
        size = max(1, sampling.batch_size // sampling.n)
        ordered = sorted(fitting, key=lambda n: (len(encoded[n]), n))
        for _, group in groupby(ordered, lambda n: min(self.context - len(encoded[n]), sampling.max_completion_length)):
            alike = list(group)
            yield from (alike[start : start + size] for start in range(0, len(alike), size))

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
