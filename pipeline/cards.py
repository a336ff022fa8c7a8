"""The README.md of an artifact, generated from its record: Hugging Face front matter and a description.

Front matter follows the Hub's model card and dataset card metadata; an evaluation is carded as the
dataset of its samples. Cards never enter a content digest, so their wording may change freely.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.store import Record

LANGUAGES = ["en", "zh"]
PARENT_ROLES = ("policy", "base")
SIZE_BOUNDS = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
MOST_METRICS, LONGEST_CELL = 80, 200

STAGE_TEXT = {
    "setup": "the set-up that precedes the four stages",
    "r1_zero": "R1-Zero, reinforcement learning without supervised data",
    "cold_start": "stage 1, the cold start",
    "reasoning_rl": "stage 2, reasoning-oriented reinforcement learning",
    "rejection_sampling": "stage 3, rejection sampling and supervised fine-tuning",
    "all_scenario_rl": "stage 4, reinforcement learning for all scenarios",
    "distill": "distillation into a smaller model",
    "evaluation": "the evaluation of the checkpoints",
}
LOADING = {
    "policy": """from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "reward_model": """from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "dataset": """from datasets import load_dataset
rows = load_dataset("parquet", data_files={{"{split}": "{folder}/data/{split}-*.parquet"}})
print(rows["{split}"][0])""",
}


def write_card(record: Record, folder: Path) -> None:
    """Writes `folder`/README.md; the splits are read from the files in `folder`/data."""
    splits = find_splits(folder)
    header = yaml.safe_dump(front_matter(record, splits), sort_keys=False, allow_unicode=True)
    text = f"---\n{header}---\n\n{card_body(record, splits)}"
    (folder / "README.md").write_text(text, encoding="utf-8")


def find_splits(folder: Path) -> list[str]:
    """Names of the splits that have a parquet file below `folder`/data."""
    return sorted({path.name.split("-")[0] for path in (folder / "data").glob("*-*.parquet")})


def front_matter(record: Record, splits: Sequence[str]) -> dict[str, Any]:
    """Metadata of the card, in the Hub's words."""
    if record.kind in ("policy", "reward_model"):
        return model_metadata(record)
    return dataset_metadata(record, splits)


def model_metadata(record: Record) -> dict[str, Any]:
    task = "text-generation" if record.kind == "policy" else "text-classification"
    tags = ["r1-pipeline", "reasoning", record.stage, record.step]
    metadata = {"license": "apache-2.0", "language": LANGUAGES, "library_name": "transformers", "pipeline_tag": task}
    parents = [record.inputs[role].ref for role in PARENT_ROLES if role in record.inputs]
    parent = {"base_model": parents[0].replace("@", "-")} if parents else {}
    return {**metadata, **parent, "tags": tags}


def dataset_metadata(record: Record, splits: Sequence[str]) -> dict[str, Any]:
    rows = sum(int(record.counts.get(split, 0)) for split in splits)
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    return {
        "pretty_name": f"{record.step.replace('_', ' ')} v{record.version}",
        "license": "apache-2.0",
        "language": LANGUAGES,
        "size_categories": [size_category(rows)],
        **({"configs": [{"config_name": "default", "data_files": files}]} if files else {}),
        "tags": ["r1-pipeline", "reasoning", record.stage, record.step],
    }


def size_category(rows: int) -> str:
    """The Hub's name for the order of magnitude of `rows`."""
    return next((name for bound, name in SIZE_BOUNDS.items() if rows < bound), "n>10M")


def card_body(record: Record, splits: Sequence[str]) -> str:
    noun = {"policy": "Language model", "reward_model": "Reward model", "dataset": "Dataset", "metrics": "Evaluation"}
    made = f"{noun[record.kind]} made by step `{record.step}` of {STAGE_TEXT.get(record.stage, record.stage)}."
    inputs = [(role, f"`{source.ref}`", f"`{source.digest}`") for role, source in sorted(record.inputs.items())]
    sections = [
        f"# {record.step}@v{record.version}\n\n{made} The recipe is that of DeepSeek-R1 (arXiv 2501.12948).",
        render_section("Made from", render_table(("role", "artifact", "content digest"), inputs)),
        render_section("Counts", render_table(("what", "count"), list(record.counts.items()))),
        render_section("Metrics", render_table(("metric", "value"), shorten(list(flatten(record.metrics))))),
        render_section("Configuration", render_table(("field", "value"), list(flatten(record.config)))),
        render_section("Loading", render_loading(record, splits)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def render_section(title: str, content: str) -> str:
    return f"## {title}\n\n{content}" if content else ""


def render_loading(record: Record, splits: Sequence[str]) -> str:
    snippet = LOADING.get(record.kind, LOADING["dataset"] if splits else "")
    text = snippet.format(folder=f"{record.step}/v{record.version}", split=next(iter(splits), "train"))
    return f"```python\n{text}\n```" if snippet else ""


def render_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [header, ["---"] * len(header), *[[render_cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def render_cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]} ..."


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of every leaf; an estimate with its interval is one leaf."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield f"{prefix}{name}", json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
        elif {"mean", "low", "high"} <= value.keys():
            yield f"{prefix}{name}", f"{value['mean']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
        else:
            yield from flatten(value, f"{prefix}{name}.")


def shorten(rows: list[tuple[str, object]]) -> list[tuple[str, object]]:
    left = len(rows) - MOST_METRICS
    return rows if left <= 0 else [*rows[:MOST_METRICS], (f"... and {left} more", "see record.json")]
