"""The full set of a few toy prompts with a scripted engine, for tests that stop it halfway."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.contents import read_splits
from stages import rejection_sampling
from stages.contract import Metrics, Progress, StepContext, no_progress
from stages.domains import domain_rng, load_domain
from stages.engines import Completion, Sampling
from stages.rejection_sampling import SFTDataConfig, make_sft_data
from stages.rows import Prompt, write_rows
from tests.scripted_engine import ScriptedEngine

CONFIG = SFTDataConfig(
    targets={"math": 30, "logic": 15, "general": 10},
    general_shares={"self_cognition": 1.0},
    sampling=Sampling(n=2),
    budget=6,
    shard_prompts=5,
    rejected_per_reason=3,
)
HARD = 4
"""Of twice as many prompts one is right from its fifth answer on, and one never."""


def write_prompts(folder: Path) -> dict[str, Prompt]:
    domains = ("math", "logic", "self_cognition")
    made = [p for name in domains for p in load_domain(name).generate("train", 20, domain_rng(0, name, "train"))]
    write_rows([prompt.to_row() for prompt in made], folder, "train")
    return {prompt.question: prompt for prompt in made}


class RoundsEngine(ScriptedEngine):
    """Right at once for most prompts, later or never for some; counts how often each was asked."""

    def __init__(self, prompts: dict[str, Prompt], dies_at: int = 0, seconds: float = 0) -> None:
        super().__init__(self._answer)
        self.prompts, self.dies_at, self.seconds, self.calls = prompts, dies_at, seconds, 0
        self.seeds: list[int] = []
        self.given: dict[str, int] = {}

    def sample(
        self, questions: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        self.calls += 1
        self.seeds.append(seed)
        time.sleep(self.seconds)
        if self.calls == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(questions, sampling, seed, progress)

    def _answer(self, question: str, number: int) -> str:
        prompt = self.prompts[question]
        self.given[prompt.id] = self.given.get(prompt.id, 0) + 1
        place = int(prompt.id[-5:])
        right_from = {0: 99, HARD: 5}.get(place % (2 * HARD), 1)
        # Which answer of the prompt this is depends on the run so far: shards that were done are not asked again.
        return prompt.demonstration if self.given[prompt.id] >= right_from else "<think>We guess.</think>I do not know."


def run_set(
    folder: Path, engine: ScriptedEngine, config: SFTDataConfig = CONFIG, name: str = "out"
) -> tuple[str, Metrics]:
    """(content digest, metrics); the scratch folder is `folder`, so that a second run goes on with it."""
    output = folder / name
    output.mkdir()
    inputs = {"policy": folder / "policy", "prompts": folder / "prompts"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rejection_sampling, "load_engine", lambda name, model_dir, runtime: engine)
        metrics = make_sft_data(config, StepContext(inputs, output, folder))
    return read_splits(output)[0], metrics


def read_output(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    run_set(
        target, RoundsEngine(write_prompts(target / "prompts"), int(sys.argv[2]), float(sys.argv[3])), name=sys.argv[4]
    )
