"""Rounds, shards, and what is left of a run that was killed or met a bad engine, judge, file or disk."""

import errno
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages import sampling_rounds
from stages.contract import DataError, Progress, StepError, no_progress
from stages.engines import Completion, Sampling
from stages.rows import Prompt, read_rows, write_rows
from stages.shards import find_shard, publish_shard
from tests.sampled_set import CONFIG, RoundsEngine, read_output, run_set, write_prompts

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def prompts(tmp_path: Path) -> dict[str, Prompt]:
    return write_prompts(tmp_path / "prompts")


def test_only_unsolved_prompts_are_sampled_again_until_the_budget_is_spent(
    tmp_path: Path, prompts: dict[str, Prompt]
) -> None:
    engine = RoundsEngine(prompts)
    _, metrics = run_set(tmp_path, engine)
    rates = {row["id"]: row for row in pq.read_table(tmp_path / "out" / "solve_rates.parquet").to_pylist()}
    asked = {id: row["sampled"] for id, row in rates.items()}
    assert asked == engine.given
    assert [asked[f"math-train-{number:05d}"] for number in (0, 1, 4, 5, 8)] == [6, 2, 6, 2, 6]
    assert rates["math-train-00004"]["right"] == 2 and rates["math-train-00000"]["right"] == 0
    assert metrics["prompts"] == {"logic": {"asked": 20, "solved": 17}, "math": {"asked": 20, "solved": 17}}
    assert metrics["funnel"][0]["left"] == sum(asked.values())
    row = next(row for row in read_rows(tmp_path / "out", "train") if row["prompt_id"] == "math-train-00004")
    assert (row["id"], row["solve_rate"], row["judge"]) == ("math-train-00004/4", pytest.approx(1 / 3), "rule")
    assert row["rewards"] == {"accuracy": 1.0, "think_format": 1.0} and row["engine"] == "transformers"
    assert len(set(engine.seeds)) == len(engine.seeds)


def test_prompts_share_a_shard_by_their_ids_alone(tmp_path: Path, prompts: dict[str, Prompt]) -> None:
    table = sampling_rounds.read_prompt_table(tmp_path / "prompts", "train")
    order = table.num_rows - 1
    turned = table.take(list(range(order, -1, -1)))
    for size in (7, 1, 100):
        shards = [shard["id"].to_pylist() for shard in sampling_rounds.cut_shards(table, size)]
        assert shards == [shard["id"].to_pylist() for shard in sampling_rounds.cut_shards(turned, size)]
        ids = pa.concat_tables(sampling_rounds.cut_shards(table, 3))["id"].to_pylist()
        assert [id for shard in shards for id in shard] == ids
        assert all(len(shard) == size for shard in shards[:-1])


def test_the_set_does_not_depend_on_the_size_of_shards(tmp_path: Path) -> None:
    digests = set()
    for size in (1, 5, 1000):
        folder = tmp_path / str(size)
        engine = RoundsEngine(write_prompts(folder / "prompts"))
        digest, metrics = run_set(folder, engine, CONFIG.model_copy(update={"shard_prompts": size}))
        rejected = pq.read_table(folder / "out" / "rejected").to_pylist()
        digests.add((digest, str(metrics["funnel"]), str(sorted(rejected, key=lambda row: row["id"]))))
    assert len(digests) == 1


def test_killed_at_random_moments_it_makes_the_same_set(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run_set(whole, RoundsEngine(write_prompts(whole / "prompts")))
    broken, moments = tmp_path / "broken", random.Random(0)
    for dies_at in (7, 4, 5):
        assert start(broken, dies_at, f"killed {dies_at}").wait() == -signal.SIGKILL
    for number in range(3):
        run = start(broken, 0, f"random {number}", seconds=0.05)
        time.sleep(0.5 + 2 * moments.random())
        run.kill()
        run.wait()
    known = len(list((broken / "shards").glob("samples-*")))
    engine = RoundsEngine(write_prompts(broken / "prompts"))
    run_set(broken, engine)
    assert read_output(broken / "out") == read_output(whole / "out")
    assert known >= 4 and len(list((broken / "shards").iterdir())) == 8
    assert len(engine.given) == 40 - 5 * known


def start(folder: Path, dies_at: int, name: str, seconds: float = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.sampled_set", str(folder), str(dies_at), str(seconds), name]
    return subprocess.Popen(command, cwd=ROOT)


def test_a_damaged_shard_is_made_again(tmp_path: Path, prompts: dict[str, Prompt]) -> None:
    digest, _ = run_set(tmp_path, RoundsEngine(prompts))
    shard = find_shard(tmp_path / "shards", "samples-00003")
    assert shard
    shard.write_bytes(shard.read_bytes()[:-7] + b"damaged")
    engine = RoundsEngine(prompts)
    assert run_set(tmp_path, engine, name="again")[0] == digest
    assert len(engine.given) == 5


class ShortEngine(RoundsEngine):
    """Loses an answer in its fourth call."""

    def sample(
        self, questions: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        groups = super().sample(questions, sampling, seed, progress)
        return [*groups[:-1], groups[-1][:-1]] if self.calls == 4 else groups


def test_an_engine_that_loses_answers_stops_the_step_and_loses_nothing_else(
    tmp_path: Path, prompts: dict[str, Prompt]
) -> None:
    with pytest.raises(
        StepError, match=r"the engine gave 1 completions for prompt '.*', expected 2; the shards before"
    ):
        run_set(tmp_path, ShortEngine(prompts), name="short")
    kept = len(list((tmp_path / "shards").glob("samples-*")))
    engine = RoundsEngine(prompts)
    digest, metrics = run_set(tmp_path, engine)
    assert kept and len(engine.given) == 40 - 5 * kept
    other = tmp_path / "other"
    assert (digest, metrics) == run_set(other, RoundsEngine(write_prompts(other / "prompts")))


def test_a_full_disk_in_the_middle_of_a_shard_leaves_what_was_finished(
    tmp_path: Path, prompts: dict[str, Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Path.write_bytes, list[int]()

    def fill_disk(path: Path, data: bytes) -> None:
        calls.append(1)
        write(path, data if len(calls) < 3 else data[:100])
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(StepError, match=r"samples-00002 could not .* No space left on device; .* run again"),
    ):
        patch.setattr(Path, "write_bytes", fill_disk)
        run_set(tmp_path, RoundsEngine(prompts), name="full")
    assert sorted(path.name[:13] for path in (tmp_path / "shards").iterdir()) == ["samples-00000", "samples-00001"]
    other = tmp_path / "other"
    expected = run_set(other, RoundsEngine(write_prompts(other / "prompts")))
    assert run_set(tmp_path, RoundsEngine(prompts)) == expected


def test_what_a_killed_run_was_writing_is_removed_and_never_read(tmp_path: Path, prompts: dict[str, Prompt]) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / ".partial-0123").write_bytes(b"half")
    run_set(tmp_path, RoundsEngine(prompts))
    assert not list((tmp_path / "shards").glob(".partial-*"))
    path = publish_shard(tmp_path / "new", "piece", Path.touch)
    assert find_shard(tmp_path / "new", "piece") == path and find_shard(tmp_path / "new", "other") is None


def test_ids_that_occur_twice_are_refused(tmp_path: Path, prompts: dict[str, Prompt]) -> None:
    rows = [prompt.to_row() for prompt in prompts.values()]
    write_rows([*rows, rows[3]], tmp_path / "prompts", "train")
    with pytest.raises(DataError, match=r"has 1 ids more than once, as 'math-train-00003'; expected each once"):
        run_set(tmp_path, RoundsEngine(prompts))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text.replace("</think>", " \ufffd</think>"), "broken text"),
        (lambda text: text.replace("<think>", "<think>" + "so it is " * 900), "long paragraph"),
        (lambda text: text.replace("<think>", "<think>```python\npass\n```\n"), "code block"),
        (
            lambda text: text.replace("<think>", "<think>" + 9 * "We go on with the same old words again and so on.\n"),
            "repetition",
        ),
    ],
)
def test_texts_that_teach_nothing_are_rejected_by_name(
    tmp_path: Path, prompts: dict[str, Prompt], spoil: Callable[[str], str], reason: str
) -> None:
    english = {question: prompt for question, prompt in prompts.items() if prompt.language == "en"}
    write_rows([prompt.to_row() for prompt in english.values()], tmp_path / "prompts", "train")
    engine = RoundsEngine(english)
    engine.answer = lambda question, number: (
        spoil(english[question].demonstration) if number else english[question].demonstration
    )
    _, metrics = run_set(tmp_path, engine, CONFIG.model_copy(update={"budget": 2}))
    dropped = {step["filter"]: step["dropped"] for step in metrics["funnel"] if step["dropped"]}
    sampled = metrics["funnel"][0]["left"] // 2
    assert dropped.pop("over quota", 0) < sampled and dropped == {reason: sampled}
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    assert sum(row["reason"] == reason for row in rejected) == 3
