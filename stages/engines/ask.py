"""One question to one policy."""

from pathlib import Path

from transformers.utils import logging

from stages.contract import Runtime
from stages.engines import Sampling, load_engine
from stages.rows import split_completion


def ask(model_dir: Path, question: str, runtime: Runtime | None = None) -> tuple[str, str]:
    """(thoughts, summary) of the greedy answer, up to 2,048 tokens."""
    logging.disable_progress_bar()
    engine = load_engine("transformers", model_dir, runtime or Runtime())
    sampling = Sampling(n=1, temperature=0.0, max_completion_length=2048)
    return split_completion(engine.sample([question], sampling, seed=0)[0][0].text)
