"""Sampling with vLLM inside the step, on one device.

vLLM and Prefect cannot share an environment, so the step needs an interpreter of its own (`make vllm`). Larger
models run under `vllm serve`, behind the `openai` engine.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stages.contract import ConfigError, Progress, Runtime, no_progress
from stages.engines import Completion, Sampling
from stages.engines.prompting import TOO_LONG, PromptingEngine, check_servable, derive_seeds

PROMPTS_PER_CALL = 1024
"""From one report of progress to the next. At the end of each call vLLM has little left to decode side by side."""


def load(model_dir: Path, runtime: Runtime) -> "VLLMEngine":
    """Raises ConfigError where vLLM cannot be imported, DataError for a policy it cannot serve."""
    check_servable(model_dir)
    # Else vLLM reports each use to its project.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if not runs_on_cuda(runtime):
        # A process of its own for the scheduler would take longer to start than it saves.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        import vllm
    except ModuleNotFoundError as error:
        mend = "run `make vllm` and set runtime.steps.<step>.interpreter to .venv-vllm/bin/python"
        raise ConfigError(f"engine 'vllm' cannot be imported: {error}; {mend}") from error
    return VLLMEngine(vllm, model_dir, runtime)


class VLLMEngine(PromptingEngine):
    """A policy loaded by `vllm`, the package, in float32 on CPU, as saved on a GPU."""

    def __init__(self, vllm: Any, model_dir: Path, runtime: Runtime) -> None:
        super().__init__(model_dir)
        cuda = runs_on_cuda(runtime)
        self.params = vllm.SamplingParams
        self.model: Any = vllm.LLM(
            model=str(model_dir),
            dtype="auto" if cuda else "float32",
            max_model_len=self.context,
            load_format="safetensors",
            # Else the checkpoint's generation config would fill in what a request leaves out, as top-k.
            generation_config="vllm",
            # On a CPU compiling takes longer than it saves.
            enforce_eager=not cuda,
            # vLLM 0.30 cannot rewind a CPU's random numbers after part of a prompt, and dies.
            enable_chunked_prefill=cuda,
        )

    def extend(
        self, texts: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        encoded, fitting = self._encode(texts)
        seeds = derive_seeds(seed, texts)
        results = [[TOO_LONG] * sampling.n for _ in texts]
        for start in range(0, len(fitting), PROMPTS_PER_CALL):
            chosen = fitting[start : start + PROMPTS_PER_CALL]
            prompts = [{"prompt_token_ids": encoded[number]} for number in chosen]
            params = [self._configure(sampling, seeds[number]) for number in chosen]
            for number, output in zip(chosen, self.model.generate(prompts, params, use_tqdm=False), strict=True):
                results[number] = [self._decode(list(o.token_ids)) for o in output.outputs]
            progress(start + len(chosen), len(fitting))
        return results

    def _configure(self, sampling: Sampling, seed: int) -> Any:
        """vLLM draws sample `i` of a request with `seed + i`, and ends completions where the context does."""
        return self.params(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_completion_length,
            seed=seed,
        )


def runs_on_cuda(runtime: Runtime) -> bool:
    return runtime.device == "cuda" or (runtime.device == "auto" and torch.cuda.is_available())
