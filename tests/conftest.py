"""Fixtures and settings shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Tests never reach a model hub and never report anything to anyone.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# All of Ray listens on loopback then, which it calls having no clusters.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with GSM8K, MGSM and HumanEval, which are no part of the project."""
    folder = Path(os.environ.get("R1_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; R1_DATA names the folder with gsm8k/, mgsm/ and humaneval/")
    return folder


@pytest.fixture(scope="session")
def micro_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy folder: the tiny base model, pretrained for a second or two."""
    from tests.micro_model import make_base

    return make_base(tmp_path_factory.mktemp("micro_base"))


@pytest.fixture(scope="session")
def servable_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy folder of the same kind that vLLM can serve."""
    from tests.micro_model import make_servable_base

    return make_servable_base(tmp_path_factory.mktemp("servable_base"))
