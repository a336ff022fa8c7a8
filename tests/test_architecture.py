"""The shape of the code: which way imports run, who may import what, what files are called."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for package in ("stages", "pipeline") for path in (ROOT / package).rglob("*.py"))

# A module may import its own layer and those above it in this list.
LAYERS = (
    (
        "stages.contract",
        "stages.rows",
        "stages.function_words",
        "stages.language",
        "stages.math_answers",
        "stages.math_values",
        "stages.math_verifier",
        "stages.math_worker",
        "stages.measures",
        "stages.notation",
        "stages.problem_files",
        "stages.sandbox",
        "stages.sandbox_backends",
        "stages.sandbox_filter",
        "stages.sandbox_harness",
        "stages.sandbox_service",
        "stages.decontamination",
        "stages.hub_rows",
        "stages.near_duplicates",
        "stages.ngrams",
        "stages.one_language",
        "stages.shards",
        "stages.vocabulary",
    ),
    ("stages.rewards", "stages.domains"),
    ("stages.engines", "stages.training"),
    ("stages",),
    (
        "pipeline.fingerprint",
        "pipeline.contents",
        "pipeline.provenance",
        "pipeline.cards",
        "pipeline.store",
        "pipeline.scratch",
    ),
    ("pipeline.config", "pipeline.recipe", "pipeline.planner"),
    ("pipeline.progress", "pipeline.supervisor", "pipeline.cleaning", "pipeline.results", "pipeline.plots"),
    ("pipeline.runner",),
    ("pipeline.embedded_server", "pipeline.flow", "pipeline.report"),
    ("pipeline.__main__",),
)
HEAVY = {"torch", "transformers", "trl", "vllm", "datasets", "accelerate"}
VAGUE = {"utils", "util", "common", "core", "manager", "helper", "helpers", "base", "misc"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int | None:
    """Index of the layer with the longest prefix of `module`; None for a module the list does not know."""
    matches = [
        (len(prefix), index)
        for index, layer in enumerate(LAYERS)
        for prefix in layer
        if f"{module}.".startswith(f"{prefix}.")
    ]
    return max(matches)[1] if matches else None


def imports(path: Path) -> Iterator[str]:
    """Dotted names a file imports anywhere in it; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    module = module_name(path)
    own = layer_of(module)
    assert own is not None or module == "pipeline", f"{module} has no place in LAYERS"
    for name in imports(path):
        target = layer_of(name)
        assert own is None or target is None or target <= own, f"{module} may not import {name}"
        assert target is not None or not name.startswith("pipeline."), f"{module} imports {name}, which LAYERS lacks"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_heavy_packages_stay_in_their_place(path: Path) -> None:
    found = {name.partition(".")[0] for name in imports(path)}
    if path.parent.name not in ("engines", "training"):
        assert not found & HEAVY - ({"datasets"} if module_name(path) == "stages.hub_rows" else set())
    if module_name(path) != "pipeline.flow":
        assert "prefect" not in found
    if module_name(path) != "stages.executors.ray_executor":
        assert "ray" not in found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_hides_another(path: Path) -> None:
    # Prefect loads the flow by path and puts pipeline/ first on sys.path: any name there wins over an installed one.
    installed = set(packages_distributions()) - {"pipeline", "stages"}
    if not path.stem.startswith("__"):
        assert path.stem not in sys.stdlib_module_names | installed | VAGUE


def test_the_flow_file_has_no_classes() -> None:
    # Loaded by path it is a second module: its classes would exist twice.
    tree = ast.parse((ROOT / "pipeline" / "flow.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def test_no_broad_except() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}"
                assert ast.unparse(node.type) not in ("Exception", "BaseException"), f"{path}:{node.lineno}"
