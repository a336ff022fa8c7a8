"""How judged rows become a set: what is dropped, in which order, and that a slow reference agrees."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.reference_assembly import PlainRow, assemble_slowly
from benchmarks.synthetic_rows import make_candidates, make_held_out
from stages import assembly
from stages.assembly import SetRules, choose_rows, read_columns, write_set
from stages.candidates import Measure, Origin, Scope
from stages.contract import StepError
from stages.decontamination import HeldOut
from stages.filters import Candidate
from stages.near_duplicates import find_near_duplicates, sign_texts
from stages.ngrams import hash_text, hash_words
from stages.rows import Prompt, read_rows
from stages.supervised import write_candidates

HELD_OUT = make_held_out()[:50]
QUOTAS = {"math": 300, "code": 120, "logic": 40, "writing": 90}


def make_rules(scope: Scope, **changes: object) -> SetRules:
    return SetRules(
        **{"quotas": QUOTAS, "scope": scope, "near_duplicates": 0.8, "per_prompt": 3, "rejected_per_reason": 5}
        | changes
    )


def assemble(folder: Path, candidates: Sequence[Candidate], rules: SetRules) -> list[str]:
    measure = Measure(HeldOut(HELD_OUT, 10), rules.scope, 0)
    paths = write_candidates(candidates, "rows", Origin("test", {}), measure, folder / "shards")
    columns = read_columns(paths)
    choose_rows(columns, rules)
    write_set(paths, columns, rules, folder)
    return [row["id"] for row in read_rows(folder, "train")]


@pytest.mark.parametrize("scope", ["prompt", "global"])
def test_a_slow_reference_keeps_the_same_rows(tmp_path: Path, scope: Scope) -> None:
    candidates = list(make_candidates(900, 3000, HELD_OUT))
    plain = [PlainRow(c.key, c.prompt.id, c.prompt.domain, c.prompt.question, c.text) for c in candidates]
    draw = {row.id: hash_text(f"0/{row.id}") for row in plain}
    expected = assemble_slowly(plain, [text for _, text in HELD_OUT], scope, 0.8, 3, QUOTAS, draw)
    kept = assemble(tmp_path, candidates, make_rules(scope))
    assert kept == expected and 300 < len(kept) <= 550


def test_shards_of_any_size_make_the_same_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = list(make_candidates(400, 300, HELD_OUT))
    whole = assemble(tmp_path / "whole", candidates, make_rules("global"))
    monkeypatch.setattr("stages.supervised.ROWS_PER_SHARD", 7)
    monkeypatch.setattr(assembly, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(assembly, "ROWS_AT_ONCE", 5)
    assert assemble(tmp_path / "cut", candidates, make_rules("global")) == whole
    files = sorted(path.name for path in (tmp_path / "cut" / "data").iterdir())
    assert len(files) > 3 and files[0] == f"train-00000-of-{len(files):05d}.parquet"
    rejected = [pq.read_table(tmp_path / run / "rejected").to_pylist() for run in ("whole", "cut")]
    assert rejected[0] == rejected[1]
    assert max(Counter(row["reason"] for row in rejected[0]).values()) == 5


def test_a_disk_that_takes_no_more_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assembly.pq, "ParquetWriter", refuse)
    with pytest.raises(StepError, match="No space left on device; the samples are kept: make room"):
        assemble(tmp_path, list(make_candidates(8, 100, HELD_OUT)), make_rules("prompt"))


def answer(prompt: str, sample: int, text: str, domain: str = "math") -> Candidate:
    return Candidate(Prompt(prompt, domain, "en", f"Question {prompt}?", "1"), text, sample)


def test_every_prompt_keeps_one_answer_before_any_keeps_two(tmp_path: Path) -> None:
    rows = [answer(prompt, sample, f"{sample} {prompt}") for prompt in "abcd" for sample in range(3)]
    kept = assemble(tmp_path / "6", rows, make_rules("prompt", quotas={"math": 6}, per_prompt=2))
    assert sorted(Counter(id[0] for id in kept).values()) == [1, 1, 2, 2]
    assert Counter(id[-1] for id in kept) == {"0": 4, "1": 2}


def test_equal_answers_to_different_prompts_are_duplicates_only_with_equal_questions(tmp_path: Path) -> None:
    rows = [answer("a", 0, "Hello."), answer("b", 0, "Hello."), answer("b", 1, "Hello.")]
    same = [Candidate(Prompt(id, "math", "en", "Hi?", "1"), "Hello.", 0) for id in "cd"]
    assert assemble(tmp_path / "prompt", rows + same, make_rules("prompt")) == ["a/0", "b/0", "c/0"]
    assert assemble(tmp_path / "global", rows + same, make_rules("global")) == ["a/0", "b/0", "c/0"]


def test_near_duplicates_are_those_above_the_overlap() -> None:
    rng = random.Random(0)
    words = [[str(rng.randrange(10**6)) for _ in range(600)] for _ in range(40)]
    texts = (
        words
        + [[*row[:-5], *"a b c d e".split()] for row in words]
        + [[*row[:300], *other[300:]] for row, other in pairwise(words)]
    )
    signatures = sign_texts([hash_words(" ".join(text)) for text in texts])
    groups = np.zeros(len(texts), np.uint64)
    every = np.arange(len(texts))
    assert find_near_duplicates(signatures, groups, every, 0.8).tolist() == list(range(40, 80))
    assert find_near_duplicates(signatures, groups, every[20:60], 0.8).tolist() == []
    assert find_near_duplicates(signatures, groups, every[[3, 43, 77]], 0.8).tolist() == [43]
    assert not len(find_near_duplicates(signatures, every.astype(np.uint64), every, 0.8))
    assert not len(find_near_duplicates(signatures, groups, every[:0], 0.8))


def test_the_estimated_overlap_is_close_to_the_true_one() -> None:
    words = [str(number) for number in range(2000)]
    texts = [" ".join(words[start : start + 1000]) for start in (0, 100, 500)]
    first, second, third = sign_texts([hash_words(text) for text in texts])
    assert (first == second).mean() == pytest.approx(896 / 1096, abs=0.12)
    assert (first == third).mean() == pytest.approx(496 / 1496, abs=0.14)
