import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline import plots, report, results
from pipeline.config import Profile, RuntimeSection
from pipeline.provenance import Host, Provenance
from pipeline.store import Artifact, Record, Source, Store
from stages import evaluation
from stages.contract import Kind, Runtime, StepConfig, StepContext, no_progress
from stages.domains import load_domain
from stages.engines import Completion, Sampling
from stages.rows import Prompt, join_completion, split_completion, write_rows

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\u0000 <img src=https://example.com/x>"
ORDER = ("cold_start_sft", "reasoning_rl", "sft", "all_scenario_rl")
PARENTS = {
    "base_model": {},
    "prompts": {},
    "r1_zero": {"policy": "base_model", "prompts": "prompts"},
    "cold_start_data": {"base": "base_model", "prompts": "prompts"},
    "cold_start_sft": {"base": "base_model", "data": "cold_start_data"},
    "reasoning_rl": {"policy": "cold_start_sft", "prompts": "prompts"},
    "sft_data": {"policy": "reasoning_rl", "prompts": "prompts"},
    "sft": {"base": "base_model", "data": "sft_data"},
    "helpful_pairs": {"policy": "sft", "prompts": "prompts"},
    "safety_labels": {"policy": "sft", "prompts": "prompts"},
    "helpful_reward_model": {"policy": "sft", "data": "helpful_pairs"},
    "safety_reward_model": {"policy": "sft", "data": "safety_labels"},
    "all_scenario_rl": {
        "policy": "sft",
        "prompts": "prompts",
        "helpful": "helpful_reward_model",
        "safety": "safety_reward_model",
    },
}
METRICS = {
    "base_model": {"parameters": 921_600, "tokens": 5_600_000, "loss": 0.81},
    "sft_data": {
        "funnel": [
            {"filter": "sampled", "dropped": 0, "left": 11520},
            {"filter": "wrong", "dropped": 3120, "left": 8400},
            {"filter": "unreadable", "dropped": 410, "left": 7990},
            {"filter": "mixed_language", "dropped": 96, "left": 7894},
            {"filter": "duplicate", "dropped": 1893, "left": 6001},
        ],
        "composition": {"math": 3953, "code": 2111, "stem": 104, "logic": 101, "writing": 801, "factual_qa": 402},
    },
}


@dataclass(frozen=True)
class Habits:
    """How often a simulated checkpoint is right, keeps to one language and is kind."""

    right: float
    pure: float
    general: float

    def sample(
        self, questions: Sequence[str], sampling: Sampling, seed: int, progress: object = no_progress
    ) -> list[list[Completion]]:
        rng = random.Random(f"{seed}/{self}/{sampling.temperature}")
        return [[self.answer(PROMPTS[question], rng) for _ in range(sampling.n)] for question in questions]

    def answer(self, prompt: Prompt, rng: random.Random) -> Completion:
        thoughts, summary = split_completion(prompt.demonstration)
        level = self.general if prompt.domain in ("greetings", "safety") else self.right
        if rng.random() > level * (0.6 + 0.8 * (hash_text(prompt.id) % 100) / 100):
            summary = summary.replace(prompt.answer, "17") if prompt.domain == "math" else "I do not know. " + HOSTILE
        if rng.random() > self.pure and thoughts:
            thoughts += "所以我们再看一次。"
        return Completion(join_completion(thoughts, summary), 40 + len(summary) % 9, "stop")


def hash_text(text: str) -> int:
    return sum(map(ord, text))


def make_prompts(count: int) -> list[Prompt]:
    rng = random.Random(0)
    names = ("math", "stem", "greetings", "safety")
    return [prompt for name in names for prompt in load_domain(name).generate("test", count, rng)]


PROMPTS: dict[str, Prompt] = {prompt.question: prompt for prompt in make_prompts(12)}
HABITS = {
    "r1_zero": Habits(0.80, 0.75, 0.10),
    "cold_start_sft": Habits(0.45, 0.70, 0.30),
    "reasoning_rl": Habits(0.88, 0.98, 0.28),
    "sft": Habits(0.87, 0.98, 0.66),
    "all_scenario_rl": Habits(0.90, 0.99, 0.95),
}


def make_provenance() -> Provenance:
    host = Host(system="Linux", machine="x86_64", processor="Example CPU", cores=2, gpus=())
    return Provenance(
        git_commit="0123456789abcdef",
        git_dirty=False,
        source="0" * 64,
        packages={"trl": "1.0"},
        started="2026-01-02T03:00:00+00:00",
        finished="2026-01-02T03:04:05+00:00",
        host=host,
        runtime=Runtime(),
    )


def kind_of(step: str) -> Kind:
    if step.startswith("evaluate_"):
        return "metrics"
    if step.endswith("reward_model"):
        return "reward_model"
    return "policy" if step in (*ORDER, "base_model") else "dataset"


def fill_folder(folder: Path, step: str) -> None:
    if kind_of(step) == "dataset":
        write_rows([{"id": step, "prompt": "p"}], folder, "train")
        return
    save_file({"weight": np.full(10_000, hash_text(step), dtype=np.float32)}, folder / "model.safetensors")
    (folder / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in make_log(step)))


def make_log(step: str) -> list[dict[str, float]]:
    rng = random.Random(step)
    if not step.endswith("_rl"):
        return [{"step": n, "loss": 2.5 * math.exp(-n / 60) + 0.5 + rng.gauss(0, 0.05)} for n in range(0, 300, 5)]
    lines = []
    for n in range(5, 205, 5):
        rise = 1 - math.exp(-n / 60)
        parts = {
            "accuracy": 0.3 + 0.55 * rise,
            "think_format": 0.78 + 0.2 * rise,
            "language_consistency": 0.7 + 0.27 * rise,
        }
        noisy = {f"rewards/{name}/mean": value + rng.gauss(0, 0.03) for name, value in parts.items()}
        length = 53 + 11 * rise + rng.gauss(0, 1)
        lines.append(
            {"step": n, "reward": sum(noisy.values()), **noisy, "completions/mean_length": length, "kl": n / 4e3}
        )
    return [*lines, {"step": 205, "reward": math.nan}, {"step": 210, "reward": None}]


def publish(store: Store, step: str, parents: dict[str, Artifact], config: StepConfig, **metrics: object) -> Artifact:
    folder = store.begin(step)
    inputs = {role: Source(ref=str(a.ref), digest=a.record.digest) for role, a in parents.items()}
    if not step.startswith("evaluate_"):
        fill_folder(folder, step)
    else:
        paths = {role: artifact.path for role, artifact in parents.items()}
        metrics = evaluation.evaluate(config, StepContext(paths, folder, folder))
    draft = Record(
        name=f"{store.project}-{step}",
        kind=kind_of(step),
        step=step,
        stage="evaluation" if step.startswith("evaluate_") else "setup",
        revision=1,
        fingerprint="f" * 64,
        config=config.model_dump(mode="json"),
        inputs=inputs,
        metrics=metrics,
        provenance=make_provenance(),
    )
    return store.publish(folder, draft, lambda record, path: path.joinpath("README.md").write_text("card") and None)


def build_project(
    root: Path, monkeypatch: pytest.MonkeyPatch, last: str = "", samples: int = 2
) -> tuple[Profile, Store]:
    """A project whose checkpoints are simulated; ends after step `last`."""
    store, made = Store(root, "tiny"), dict[str, Artifact]()
    evaluate = evaluation.EvaluationConfig(samples=samples, bootstrap_samples=100)
    steps = {**PARENTS, **{step.name: dict(step.inputs) for step in evaluation.STEPS}}
    configs = {step: evaluate if step.startswith("evaluate_") else StepConfig() for step in steps}
    monkeypatch.setattr(evaluation, "load_engine", lambda name, folder, runtime: HABITS[folder.parent.name])
    monkeypatch.setattr(evaluation, "read_prompts", lambda folder, split: list(PROMPTS.values()))
    rows: dict[str, int] = {}
    for prompt in PROMPTS.values():
        rows[prompt.domain] = rows.get(prompt.domain, 0) + 1
    sources = {f"{name}/test": "gsm8k_test.jsonl" if name == "math" else "tiny world" for name in rows}
    metrics = {**METRICS, "prompts": {"rows": {"test": rows}, "sources": sources}}
    for step, roles in steps.items():
        parents = {role: made[parent] for role, parent in roles.items()}
        made[step] = publish(store, step, parents, configs[step], **metrics.get(step, {}))
        if step == last:
            break
    return Profile(Path("configs/tiny.yaml"), "tiny", configs, (), RuntimeSection(), {}), store


class Structure(HTMLParser):
    """Tags that are open at the end of a page, tags that were closed out of order, and addresses."""

    VOID = ("meta", "line", "rect", "circle", "polyline", "path")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return report.write_report(*build_project(tmp_path, monkeypatch)).read_text(encoding="utf-8")


def test_page_is_well_formed_and_self_contained(page: str) -> None:
    structure = Structure(page)
    assert (structure.open, structure.wrong) == ([], [])
    assert not {"script", "img", "link", "iframe"} & set(structure.tags)
    assert all(address.startswith("#s") for address in structure.addresses)


def test_model_text_is_harmless(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not {"\u202e", "\u0000"} & set(page)


def test_every_section_has_content(page: str) -> None:
    assert "Nothing yet" not in page and "Not made yet" not in page and "Made with other" not in page
    for text in (
        "gsm8k_test.jsonl: math 12",
        "0.01 M parameters",
        "T=0.6",
        "mixed language",
        "−1,893",
        "all_scenario_rl@v1",
    ):
        assert text in page


def test_results_show_the_recorded_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, store = build_project(tmp_path, monkeypatch)
    found = store.history("evaluate_reasoning_rl")[-1].record.metrics["settings"]["T=1.0"]["groups"]["reasoning"][
        "pass@1"
    ]
    text = report.write_report(profile, store).read_text()
    assert f"{100 * found['mean']:.1f}<small>{100 * found['low']:.1f}–{100 * found['high']:.1f}</small>" in text


def test_a_part_of_the_steps_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = report.write_report(*build_project(tmp_path, monkeypatch, last="cold_start_data")).read_text()
    assert "Not made yet, or damaged: cold_start_sft, reasoning_rl" in text
    assert Structure(text).open == []


def test_nothing_made_is_said(tmp_path: Path) -> None:
    profile = Profile(Path("p.yaml"), "tiny", {"sft": StepConfig()}, (), RuntimeSection(), {})
    assert "Not made yet, or damaged: sft." in report.write_report(profile, Store(tmp_path, "tiny")).read_text()


def test_hacked_reward_models_are_said(tmp_path: Path) -> None:
    store = Store(tmp_path, "tiny")
    publish(store, "base_model", {}, StepConfig(seed=1), monitor={"hacked_at": 150, "rolled_back_to": 50})
    page = report.write_report(make_profile(1), store).read_text()
    assert "The reward models of base_model@v1 were hacked at step 150; it is the checkpoint of step 50." in page


def test_version_that_fits_the_profile_is_shown(tmp_path: Path) -> None:
    store = Store(tmp_path, "tiny")
    publish(store, "base_model", {}, StepConfig(seed=1))
    publish(store, "base_model", {}, StepConfig(seed=2))
    shown = {seed: report.choose_artifacts(make_profile(seed), store)["base_model"].ref.version for seed in (1, 2, 3)}
    assert shown == {1: 1, 2: 2, 3: 2}
    assert "now asks for: base_model@v2" in report.write_report(make_profile(3), store).read_text()
    assert "now asks for" not in report.write_report(make_profile(1), store).read_text()


def test_a_damaged_version_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, store = build_project(tmp_path, monkeypatch)
    (shard,) = (store.history("evaluate_sft")[-1].path / "data").iterdir()
    shard.write_bytes(b"cut short")
    text = report.write_report(profile, store).read_text()
    assert "Not made yet, or damaged: evaluate_sft." in text and "evaluate_sft@v1" not in text


def make_profile(seed: int) -> Profile:
    return Profile(Path("p.yaml"), "tiny", {"base_model": StepConfig(seed=seed)}, (), RuntimeSection(), {})


def test_long_text_is_cut_and_counted() -> None:
    assert report.clean_text("a" * 1300, 1000) == "a" * 1000 + " … (300 more characters)"
    assert report.clean_text("一\u200b二\u2066\x1b[31m\n") == "一二[31m\n"


def test_change_is_paired_and_marked() -> None:
    before = [{"question": str(n), "group": "reasoning", "correct": 0.0} for n in range(20)]
    after = [{**row, "correct": float(n % 4 > 0)} for n, row in enumerate(before)]
    assert results.render_change(before, after, "reasoning", "correct").startswith('<span class="clear">+75.0</span>')
    assert results.render_change(before, before, "reasoning", "correct").startswith('<span class="">+0.0</span>')
    assert results.render_change(before, after, "general", "correct") == results.MISSING


def test_ticks_are_round_and_inside() -> None:
    assert plots.choose_ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert plots.choose_ticks(0, 70) == [0, 20, 40, 60]
    assert len(plots.choose_ticks(3, 3)) >= 1


def test_labels_of_plots_are_escaped() -> None:
    assert "<b>" not in plots.draw_bars("<b>", [("<b>", 1, "<b>")]) + plots.draw_curves(
        "<b>", {"<b>": [(0, 1), (1, 2)]}
    )
