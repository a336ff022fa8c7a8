"""Artifacts are whole or absent, found by content, and damage is named."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.cards import write_card
from pipeline.cleaning import collect_garbage
from pipeline.contents import read_contents
from pipeline.provenance import Host, Provenance
from pipeline.store import Artifact, Record, Ref, Store
from stages.contract import ArtifactError, ConfigError, DataError, Kind, Runtime, StepError
from stages.rows import Row, write_rows
from tests.toy_stage import write_safetensors

ROWS: list[Row] = [{"id": str(number), "text": f"row {number}", "score": None} for number in range(10)]
HOST = Host(system="Linux", machine="x86_64", processor="", cores=2, gpus=())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts", "toy")


def draft(kind: Kind, fingerprint: str = "f1") -> Record:
    provenance = Provenance(
        git_commit="",
        git_dirty=False,
        source="",
        packages={},
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:00:01+00:00",
        host=HOST,
        runtime=Runtime(),
    )
    return Record(
        name="toy-step",
        kind=kind,
        step="step",
        stage="setup",
        revision=1,
        fingerprint=fingerprint,
        config={"seed": 1},
        inputs={},
        metrics={"loss": 0.5},
        provenance=provenance,
    )


def publish_rows(store: Store, rows: list[Row] = ROWS, shard: int = 4, fingerprint: str = "f1") -> Artifact:
    folder = store.begin("step")
    write_rows(rows, folder, "train", rows_per_shard=shard)
    return store.publish(folder, draft("dataset", fingerprint), write_card)


def publish_policy(store: Store) -> Artifact:
    folder = store.begin("step")
    fill_policy(folder)
    return store.publish(folder, draft("policy"), write_card)


def fill_policy(folder: Path, weight: float = 1.0, version: str = "5.0", token: str = "a") -> None:
    write_safetensors(folder / "model.safetensors", {"b": [weight, 2.0], "a": [3.0]})
    (folder / "tokenizer.json").write_text(json.dumps({"vocab": [token]}))
    (folder / "generation_config.json").write_text(json.dumps({"top_p": 0.9, "transformers_version": version}))


def test_publish_and_read_back(store: Store) -> None:
    artifact = publish_rows(store)
    assert str(artifact.ref) == "step@v1"
    assert artifact.record.counts == {"train": 10}
    assert "README.md" in artifact.record.files
    assert store.get(Ref("step", 1)) == artifact
    assert store.verify(artifact) == []
    assert [path.name for path in (store.folder / "step").iterdir()] == ["v1"]


def test_versions_grow_and_the_newest_match_is_found(store: Store) -> None:
    publish_rows(store), publish_rows(store, fingerprint="f2"), publish_rows(store)
    found = store.find("step", "f1")
    assert found is not None and found.ref == Ref("step", 3)
    assert store.find("step", "f3") is None
    assert [artifact.ref.version for artifact in store.history("step")] == [1, 2, 3]


def test_dataset_digest_is_that_of_its_rows(store: Store) -> None:
    digest = publish_rows(store, shard=4).record.digest
    assert publish_rows(store, shard=3).record.digest == digest
    assert publish_rows(store, list(reversed(ROWS))).record.digest != digest
    assert publish_rows(store, ROWS[:-1]).record.digest != digest


def test_policy_digest_is_tensors_tokenizer_and_generation_config(tmp_path: Path) -> None:
    def digest(name: str, **changes: Any) -> str:
        (tmp_path / name).mkdir()
        fill_policy(tmp_path / name, **changes)
        return read_contents(tmp_path / name, "policy")

    same = digest("one")
    assert digest("other_library", version="6.0") == same
    assert digest("other_weight", weight=1.5) != same
    assert digest("other_token", token="b") != same


def test_policy_digest_does_not_depend_on_shards(tmp_path: Path) -> None:
    for name in ("whole", "sharded"):
        (tmp_path / name).mkdir()
    write_safetensors(tmp_path / "whole" / "model.safetensors", {"b": [1.0], "a": [2.0, 3.0]})
    write_safetensors(tmp_path / "sharded" / "model-1.safetensors", {"b": [1.0]})
    write_safetensors(tmp_path / "sharded" / "model-2.safetensors", {"a": [2.0, 3.0]})
    assert read_contents(tmp_path / "whole", "policy") == read_contents(tmp_path / "sharded", "policy")


def test_parameters_are_counted(store: Store) -> None:
    assert publish_policy(store).record.counts == {"parameters": 3}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a/optimizer.pt", "x.pkl", "x.pth", "x.pickle"])
def test_pickles_are_never_published(store: Store, name: str) -> None:
    folder = store.begin("step")
    fill_policy(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"{name} is a pickle"):
        store.publish(folder, draft("policy"), write_card)
    assert store.versions("step") == []


def test_a_pickle_slipped_into_an_artifact_is_seen(store: Store) -> None:
    artifact = publish_policy(store)
    (artifact.path / "pytorch_model.bin").write_bytes(b"x")
    assert store.check(artifact) == ["pytorch_model.bin is not in its record"]
    assert store.find("step", "f1") is None


def test_a_shard_slipped_into_an_artifact_is_damage(store: Store) -> None:
    artifact = publish_rows(store)
    shard = next((artifact.path / "data").iterdir())
    shutil.copyfile(shard, shard.with_name("train-00009-of-00003.parquet"))
    (artifact.path / ".DS_Store").write_text("no reader takes hidden files")
    problems = ["data/train-00009-of-00003.parquet is not in its record"]
    assert store.check(artifact) == store.verify(artifact) == problems


def test_links_and_empty_folders_are_refused(store: Store) -> None:
    folder = store.begin("step")
    with pytest.raises(DataError, match="not a checkpoint"):
        store.publish(folder, draft("policy"), write_card)
    with pytest.raises(DataError, match="holds no rows"):
        store.publish(folder, draft("dataset"), write_card)
    fill_policy(folder)
    (folder / "link").symlink_to("model.safetensors")
    with pytest.raises(DataError, match="link is a link"):
        store.publish(folder, draft("policy"), write_card)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "README.md"])
def test_a_flipped_byte_is_named(store: Store, name: str) -> None:
    artifact = publish_policy(store)
    flip_byte(artifact.path / name)
    assert store.check(artifact)[0].startswith(name)
    assert store.find("step", "f1") is None


def test_a_flip_that_keeps_the_time_is_found_by_full_hashing(store: Store) -> None:
    artifact = publish_policy(store)
    flip_byte(artifact.path / "model.safetensors", keep_time=True)
    assert store.check(artifact) == []
    with pytest.raises(ArtifactError, match=r"step@v1 is damaged: model\.safetensors has sha256"):
        store.verify_once(artifact)


def test_missing_and_cut_files_are_named(store: Store) -> None:
    artifact = publish_policy(store)
    (artifact.path / "tokenizer.json").unlink()
    with (artifact.path / "model.safetensors").open("r+b") as file:
        file.truncate(20)
    problems = store.verify(artifact)
    assert any("tokenizer.json is missing" in problem for problem in problems)
    assert any("model.safetensors has 20 bytes" in problem for problem in problems)


def test_a_changed_record_is_damage(store: Store) -> None:
    artifact = publish_rows(store)
    record = artifact.path / "record.json"
    record.write_text(record.read_text().replace('"loss": 0.5', '"loss": 0.4'))
    with pytest.raises(ArtifactError, match=r"record\.json .* has changed"):
        store.get(artifact.ref)
    record.write_text(record.read_text()[:100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        store.get(artifact.ref)
    assert store.history("step") == []
    assert publish_rows(store).ref.version == 2


def test_a_copied_store_is_sound_and_hashed_once(store: Store, tmp_path: Path) -> None:
    publish_rows(store)
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = Store(tmp_path / "copy", "toy")
    artifact = copy.get(Ref("step", 1))
    assert copy.check(artifact) == []
    copy.verify_once(artifact)
    assert copy.read_memo(artifact.ref).keys() == artifact.record.files.keys()


def test_verify_forgets_that_a_damaged_artifact_was_sound(store: Store) -> None:
    artifact = publish_policy(store)
    store.verify_once(artifact)
    flip_byte(artifact.path / "model.safetensors", keep_time=True)
    assert store.verify(artifact)
    with pytest.raises(ArtifactError):
        store.verify_once(artifact)


def test_a_version_made_again_after_deletion_is_hashed_afresh_once(store: Store) -> None:
    first = publish_policy(store)
    store.verify_once(first)
    shutil.rmtree(first.path)
    again = publish_policy(store)
    assert again.ref == first.ref and store.read_memo(again.ref) == {}
    store.verify_once(again)
    assert store.read_memo(again.ref) == {n: (again.path / n).stat().st_mtime_ns for n in again.record.files}


def test_lock_names_its_holder(store: Store) -> None:
    with store.lock("step"), pytest.raises(StepError, match=f"being run by process {os.getpid()}"), store.lock("step"):
        pass
    with store.lock("step"):
        pass


def test_writers_that_race_all_get_a_version(store: Store) -> None:
    # Not forked: a process forked after a test that ran Prefect's server in this one ends at once.
    writers = [multiprocessing.get_context("spawn").Process(target=publish_rows, args=(store,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert [artifact.ref.version for artifact in store.history("step")] == [1, 2, 3, 4]
    assert all(store.verify(artifact) == [] for artifact in store.history("step"))


def test_unwritable_root_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file")
    with pytest.raises(ArtifactError, match="cannot write"), Store(tmp_path / "artifacts", "toy").lock("step"):
        pass


@pytest.mark.parametrize("text", ["sft", "sft@3", "@v1", "sft@vx", "sft@v"])
def test_malformed_refs(text: str) -> None:
    with pytest.raises(ConfigError, match="expected STEP@vN"):
        Ref.parse(text)


def test_garbage_is_abandoned_folders_and_scratch_of_published_runs(store: Store) -> None:
    artifact = publish_rows(store, fingerprint="f" * 64)
    abandoned = store.begin("step")
    scratch, unfinished = (store.folder / ".scratch" / f"step-{digest * 12}" for digest in "ef")
    for folder in (scratch, unfinished):
        folder.mkdir(parents=True)
        folder.with_name(folder.name + ".log").write_text("log")
    marker = scratch.with_name(scratch.name + ".published")
    marker.write_text("step@v1")
    with store.lock("step"):
        assert collect_garbage(store) == []
        assert collect_garbage(store, delete=True) == []
    assert {item.path.resolve() for item in collect_garbage(store)} == {abandoned, scratch.resolve(), marker.resolve()}
    assert abandoned.exists()
    collect_garbage(store, delete=True)
    assert not abandoned.exists() and not scratch.exists() and not marker.exists()
    # State of a forced run that was interrupted, although a version with its fingerprint exists.
    assert unfinished.exists() and scratch.with_name(scratch.name + ".log").exists()
    assert store.verify(artifact) == []


def flip_byte(path: Path, keep_time: bool = False) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))
    # A later time than the one recorded, whatever the resolution of the clock.
    time_ns = status.st_mtime_ns if keep_time else status.st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(time_ns, time_ns))
