"""Sampling of the tiny base model's kind on a CPU, several times as fast as `generate` there.

Greedy answers are those of the `transformers` engine; drawn ones follow the same distribution with other
random numbers.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from stages.contract import ConfigError, Runtime
from stages.engines import Completion, Sampling
from stages.engines.decoder import Decoder, Draw, can_decode, draw_uniforms
from stages.engines.transformers_engine import TransformersEngine


def load(model_dir: Path, runtime: Runtime) -> "CPUEngine":
    return CPUEngine(model_dir, runtime)


class CPUEngine(TransformersEngine):
    """The `transformers` engine with a decoder of its own. Raises ConfigError for another kind of model."""

    def __init__(self, model_dir: Path, runtime: Runtime) -> None:
        super().__init__(model_dir, runtime.model_copy(update={"device": "cpu"}))
        if not can_decode(self.model):
            kind = type(self.model).__name__
            message = f"engine 'cpu' decodes Qwen3 without sliding windows, {model_dir} is {kind}"
            raise ConfigError(f"{message}; use engine: transformers")
        self.decoder = Decoder(self.model)

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], sampling: Sampling, seed: int
    ) -> list[list[Completion]]:
        room = self.model.config.max_position_embeddings - max(map(len, prompts))
        limit = min(room, sampling.max_completion_length)
        draw = Draw(sampling.temperature, sampling.top_p, draw_uniforms(seed, names, sampling.n, limit))
        decoded = self.decoder.decode(prompts, sampling.n, limit, draw, [self.tokenizer.eos_token_id])
        completions = [self._decode(completion.tokens) for completion in decoded]
        return [completions[i : i + sampling.n] for i in range(0, len(completions), sampling.n)]
