from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from pipeline.cards import size_category, write_card
from pipeline.provenance import Host, Provenance
from pipeline.store import Record, Source
from stages.contract import Kind, Runtime
from stages.domains import domain_names
from stages.rows import write_rows

DATA_CARDS = Path(__file__).resolve().parents[1] / "data_cards"


def make_record(kind: Kind, step: str, **changes: Any) -> Record:
    host = Host(system="Linux", machine="x86_64", processor="", cores=2, gpus=())
    provenance = Provenance(
        git_commit="", git_dirty=False, source="", packages={}, started="", finished="", host=host, runtime=Runtime()
    )
    values: dict[str, Any] = {
        "inputs": {"policy": Source(ref="cold_start_sft@v3", digest="ab12")},
        "config": {"seed": 0, "reward_weights": {"accuracy": 1.0}, "note": "a|b\nc"},
        "metrics": {"loss": 0.51234, "score": {"mean": 0.5, "low": 0.25, "high": 0.75, "problems": 4}},
        **changes,
    }
    return Record(
        name=f"tiny-{step}",
        version=2,
        kind=kind,
        step=step,
        stage="reasoning_rl",
        revision=1,
        fingerprint="",
        provenance=provenance,
        **values,
    )


def read_card(record: Record, folder: Path, card: type[ModelCard]) -> ModelCard:
    write_card(record, folder)
    loaded = card.load(folder / "README.md", ignore_metadata_errors=False)
    assert "# " + record.step in loaded.text
    return loaded


@pytest.mark.parametrize(("kind", "task"), [("policy", "text-generation"), ("reward_model", "text-classification")])
def test_model_card_parses_back(kind: Kind, task: str, tmp_path: Path) -> None:
    card = read_card(make_record(kind, "reasoning_rl"), tmp_path, ModelCard)
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == task
    assert card.data.base_model == "cold_start_sft-v3"
    assert "from_pretrained(" in card.text


def test_base_model_has_no_parent(tmp_path: Path) -> None:
    assert read_card(make_record("policy", "base_model", inputs={}), tmp_path, ModelCard).data.base_model is None


def test_dataset_card_names_its_splits(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write_rows([{"id": "1"}], tmp_path, split)
    record = make_record("dataset", "sft_data", counts={"train": 1500, "dev": 20})
    card = read_card(record, tmp_path, DatasetCard)
    assert card.data.size_categories == ["1K<n<10K"]
    files = card.data.configs[0]["data_files"]
    assert files == [{"split": s, "path": f"data/{s}-*.parquet"} for s in ("dev", "train")]
    for file in files:
        assert list(tmp_path.glob(file["path"]))


def test_evaluation_is_carded_as_its_samples(tmp_path: Path) -> None:
    write_rows([{"id": "1"}], tmp_path, "samples")
    card = read_card(make_record("metrics", "evaluate_sft", counts={"samples": 1}), tmp_path, DatasetCard)
    assert card.data.configs[0]["data_files"][0]["split"] == "samples"


def test_a_funnel_is_a_table_of_its_own(tmp_path: Path) -> None:
    steps = [
        {"filter": "format", "dropped": 1037, "left": 954_349},
        {"filter": "length", "dropped": 0, "left": 954_349},
    ]
    metrics = {"rows": 3, "funnel": steps, "monitor": {"readings": [{"step": n, "score": 0.5} for n in range(90)]}}
    text = read_card(make_record("dataset", "sft_data", metrics=metrics), tmp_path, DatasetCard).text
    assert "### funnel\n\n| filter | dropped | left |\n| --- | --- | --- |\n| format | 1037 | 954349 |" in text
    assert "### monitor.readings\n\n| step | score |" in text and "| ... and 10 more | see record.json |" in text
    assert "| rows | 3 |" in text and "[{" not in text


def test_body_shows_inputs_config_and_metrics(tmp_path: Path) -> None:
    text = read_card(make_record("policy", "reasoning_rl"), tmp_path, ModelCard).text
    for line in (
        "| policy | `cold_start_sft@v3` | `ab12` |",
        "| reward_weights.accuracy | 1 |",
        "| note | a\\|b c |",
        "| loss | 0.5123 |",
        "| score | 0.5 [0.25, 0.75] |",
    ):
        assert line in text


def test_long_metrics_are_cut_and_counted(tmp_path: Path) -> None:
    metrics = {f"m{n}": n for n in range(100)}
    text = read_card(make_record("policy", "sft", metrics=metrics), tmp_path, ModelCard).text
    assert "| ... and 20 more | see record.json |" in text


def test_size_categories_are_the_hubs() -> None:
    assert [size_category(n) for n in (0, 999, 1000, 804_745, 10**8)] == [
        "n<1K",
        "n<1K",
        "1K<n<10K",
        "100K<n<1M",
        "n>10M",
    ]


def test_every_domain_has_a_data_card() -> None:
    assert sorted(path.stem for path in DATA_CARDS.glob("*.md")) == domain_names()


@pytest.mark.parametrize("path", sorted(DATA_CARDS.glob("*.md")), ids=lambda path: path.stem)
def test_data_card_is_valid(path: Path) -> None:
    card = DatasetCard.load(path, ignore_metadata_errors=False)
    assert card.data.license == "apache-2.0" and card.data.pretty_name
    assert "## How a row is graded" in card.text
