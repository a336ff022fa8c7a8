"""A training killed with -9 at random moments and resumed ends as one that nobody disturbed."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("kind", "kills"), [("grpo", 20), ("sft", 10), ("pairs", 5), ("labels", 5)])
def test_a_killed_training_ends_with_the_same_weights_and_log(
    micro_base: Path, tmp_path: Path, kind: str, kills: int
) -> None:
    """Steps of RL cross three replacements of the reference model and two refreshes of the reward model, those of the
    others ends of epochs."""
    command = [sys.executable, "-m", "tests.killed_training", kind, str(micro_base), str(tmp_path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    killed, resumed = map(int, done.stdout.splitlines()[-1].split())
    assert killed == kills and resumed >= kills // 3
