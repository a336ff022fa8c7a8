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

PARENT_ROLES = ("policy", "base")
SIZE_BOUNDS = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
MOST_METRICS, LONGEST_CELL = 80, 200
NOUNS = {"policy": "Language model", "reward_model": "Reward model", "dataset": "Dataset", "metrics": "Evaluation"}
TASKS = {
    "policy": ("text-generation", "AutoModelForCausalLM"),
    "reward_model": ("text-classification", "AutoModelForSequenceClassification"),
}
"""What the Hub calls the task of a model, and the class that loads it."""


def write_card(record: Record, folder: Path) -> None:
    """Writes `folder`/README.md; the splits are read from the files in `folder`/data."""
    splits = sorted({path.name.split("-")[0] for path in (folder / "data").glob("*-*.parquet")})
    metadata = model_metadata(record) if record.kind in TASKS else dataset_metadata(record, splits)
    tags = ["r1-pipeline", "reasoning", record.stage, record.step]
    values = {"license": "apache-2.0", "language": ["en", "zh"], **metadata, "tags": tags}
    header = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    (folder / "README.md").write_text(f"---\n{header}---\n\n{render_body(record, splits)}", encoding="utf-8")


def model_metadata(record: Record) -> dict[str, Any]:
    parents = [record.inputs[role].ref.replace("@", "-") for role in PARENT_ROLES if role in record.inputs]
    parent = {"base_model": parents[0]} if parents else {}
    return {"library_name": "transformers", "pipeline_tag": TASKS[record.kind][0], **parent}


def dataset_metadata(record: Record, splits: Sequence[str]) -> dict[str, Any]:
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    return {
        "pretty_name": f"{record.step.replace('_', ' ')} v{record.version}",
        "size_categories": [size_category(sum(record.counts.values()))],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def size_category(rows: int) -> str:
    """The Hub's name for the order of magnitude of `rows`."""
    return next((name for bound, name in SIZE_BOUNDS.items() if rows < bound), "n>10M")


def render_body(record: Record, splits: Sequence[str]) -> str:
    made = f"{NOUNS[record.kind]} made by step `{record.step}` of stage `{record.stage}`."
    inputs = [(role, f"`{source.ref}`", f"`{source.digest}`") for role, source in sorted(record.inputs.items())]
    folder = f"{record.step}/v{record.version}"
    loading = load_model(record.kind, folder) if record.kind in TASKS else load_rows(splits, folder)
    sections = {
        "Made from": render_table(("role", "artifact", "content digest"), inputs),
        "Counts": render_table(("what", "count"), list(record.counts.items())),
        "Metrics": render_metrics(record.metrics),
        "Configuration": render_table(("field", "value"), list(flatten(record.config))),
        "Loading": f"```python\n{loading}```",
    }
    shown = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections.items() if content)
    title = f"# {record.step}@v{record.version}"
    return f"{title}\n\n{made} The recipe is that of DeepSeek-R1 (arXiv 2501.12948).\n\n{shown}\n"


def load_model(kind: str, folder: str) -> str:
    name = TASKS[kind][1]
    return (
        f"from transformers import {name}, AutoTokenizer\n"
        f'model = {name}.from_pretrained("{folder}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
    )


def load_rows(splits: Sequence[str], folder: str) -> str:
    files = ", ".join(f'"{split}": "{folder}/data/{split}-*.parquet"' for split in splits)
    return f'from datasets import load_dataset\nrows = load_dataset("parquet", data_files={{{files}}})\n'


def render_metrics(metrics: Mapping[str, Any]) -> str:
    """Markdown tables: all single metrics, nested ones by dotted name, then each list of rows, as a funnel's steps."""
    leaves = list(flatten(metrics))
    tables = {name: value for name, value in leaves if is_table(value)}
    singles = render_table(("metric", "value"), cut_rows([leaf for leaf in leaves if leaf[0] not in tables]))
    listed = [
        f"### {name}\n\n{render_table(list(rows[0]), cut_rows([list(row.values()) for row in rows]))}"
        for name, rows in tables.items()
    ]
    return "\n\n".join([singles, *listed] if singles else listed)


def is_table(value: Any) -> bool:
    """Whether it is a list of rows with the same columns."""
    if not isinstance(value, list) or not value or not all(isinstance(row, Mapping) for row in value):
        return False
    return all(row.keys() == value[0].keys() for row in value)


def cut_rows(rows: Sequence[Sequence[object]]) -> list[Sequence[object]]:
    left = len(rows) - MOST_METRICS
    more = [(f"... and {left} more", "see record.json", *[""] * (len(rows[0]) - 2))] if left > 0 else []
    return [*rows[:MOST_METRICS], *more]


def render_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [header, ["---"] * len(header), *[[render_cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def render_cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else write_text(value)
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]} ..."


def write_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf; an estimate with its interval is one leaf."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield f"{prefix}{name}", value
        elif {"mean", "low", "high"} <= value.keys():
            yield f"{prefix}{name}", f"{value['mean']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
        else:
            yield from flatten(value, f"{prefix}{name}.")
