"""Putting the full set together: speed, memory, how cost grows, and that a slow reference keeps the same rows.

    python -m benchmarks.assembly [--rows N]... [--characters N] [--against ROWS] [--repeats N]

Answers are synthetic (`benchmarks/synthetic_rows.py`), their verdicts given. What is timed is everything from a judged
answer in a file to the finished parquet: text filters with the language test, hashes, near duplicates in the scope of
all rows, contamination, quotas, and both passes over the shards. Each run is a process of its own, whose processor time
and peak memory are its figures; making the answers is not part of either. With --against the same rows are also put
together by the reference, and by `datasets.map` with datasketch and one pass for each evaluation set, which needs
datasketch installed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measurement import print_figure
from benchmarks.reference_assembly import PlainRow, assemble_slowly
from benchmarks.synthetic_rows import DOMAINS, make_candidates, make_held_out
from stages.assembly import SetRules, choose_rows, read_columns, write_set
from stages.candidates import Measure, Origin, make_table, write_table
from stages.decontamination import HeldOut
from stages.filters import Candidate, TextRules
from stages.judging import Verdict, conclude
from stages.ngrams import hash_text
from stages.rows import Prompt, iterate_rows, split_completion
from stages.shards import publish_shard

SCOPE, THRESHOLD, PER_PROMPT = "global", 0.8, 4
ROWS_PER_FILE = 1000
RATE_BAR, RATE_AIM = 3000.0, 10_000.0
"""Rows per second of one core."""
MEMORY_BAR = 600.0
"""MB, resident."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.assembly", description="The full set, put together.")
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--characters", type=int, default=4000)
    parser.add_argument("--against", type=int, default=0, help="rows that reference and stock libraries do as well")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--part", choices=("ours", "stock"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.part:
        measure_here(given.part, given.folder)
        return
    measured: list[tuple[int, float]] = []
    for rows in given.rows or [20_000]:
        with tempfile.TemporaryDirectory() as name:
            write_answers(Path(name), rows, given.characters)
            runs = [measure_part("ours", Path(name)) for _ in range(given.repeats)]
        measured += [(rows, run["seconds"]) for run in runs]
        rates = [rows / run["seconds"] for run in runs]
        print_figure(
            f"assembling {rows} rows",
            float(np.median(rates)),
            "rows/s/core",
            {"ours": rates},
            bar=RATE_BAR,
            aim=RATE_AIM,
        )
        peaks = [run["megabytes"] for run in runs]
        print_figure(f"peak memory at {rows} rows", max(peaks), "MB", {"ours": peaks}, bar=MEMORY_BAR)
    if len({rows for rows, _ in measured}) > 1:
        print_fit(measured)
    if given.against:
        compare(given.against, given.characters)


def print_fit(measured: Sequence[tuple[int, float]]) -> None:
    """How far the costs are from a straight line through them."""
    rows, seconds = np.array(measured).T
    slope, start = np.polyfit(rows, seconds, 1)
    worst = float(np.abs(slope * rows + start - seconds).max() / seconds.max())
    sides = {"microseconds a row": [slope * 1e6], "seconds at the start": [start]}
    print_figure("largest distance from a straight line", worst, "share of the longest run", sides)


def compare(rows: int, characters: int) -> None:
    """The same rows by the reference and by stock libraries."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_answers(folder, rows, characters)
        ours, stock = measure_part("ours", folder), measure_part("stock", folder)
        began = time.process_time()
        expected = keep_slowly(folder)
        slow = time.process_time() - began
        kept = [row["id"] for row in iterate_rows(folder / "set", "train")]
    equal = [float(kept == expected)]
    print_figure(
        f"rows kept as by the reference, of {rows}", equal[0], "share", {"ours": equal, "rows": [float(len(kept))]}
    )
    sides = {"ours": [ours["seconds"]], "stock": [stock["seconds"]], "reference": [slow]}
    print_figure(f"processor time for {rows} rows, stock to ours", stock["seconds"] / ours["seconds"], "x", sides)


def write_answers(folder: Path, rows: int, characters: int) -> None:
    """Parquet files with judged answers and nothing else."""
    candidates = make_candidates(rows, characters, make_held_out())
    (folder / "answers").mkdir()
    part: list[dict[str, Any]] = []
    for number, candidate in enumerate(candidates, 1):
        prompt = candidate.prompt
        part.append({"id": prompt.id, "domain": prompt.domain, "question": prompt.question, "text": candidate.text,
                     "sample": candidate.sample, "tokens": candidate.tokens})  # fmt: skip
        if len(part) == ROWS_PER_FILE or number == rows:
            pq.write_table(pa.Table.from_pylist(part), folder / "answers" / f"{number:09d}.parquet", compression="zstd")
            part = []


def read_answers(folder: Path) -> Iterator[list[Candidate]]:
    for path in sorted((folder / "answers").iterdir()):
        table = pq.ParquetFile(path).read(use_threads=False)
        names = ("id", "domain", "question", "text", "sample", "tokens")
        yield [
            Candidate(Prompt(id, domain, "en", question, "1"), text, sample, tokens=tokens)
            for id, domain, question, text, sample, tokens in zip(*(table[n].to_pylist() for n in names), strict=True)
        ]


def measure_part(part: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.assembly", "--part", part, "--folder", str(folder)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_here(part: str, folder: Path) -> None:
    """Prints processor seconds and the peak of resident memory, of this process and all it started."""
    {"ours": put_together, "stock": put_together_with_stock}[part](folder)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in used)
    print(json.dumps({"seconds": seconds, "megabytes": sum(usage.ru_maxrss for usage in used) / 1000}))


def make_quotas(rows: int) -> dict[str, int]:
    return {domain: round(share * rows * 0.6) for domain, share in DOMAINS.items()}


def put_together(folder: Path) -> None:
    measure, origin, texts = (
        Measure(HeldOut(make_held_out(), 10), SCOPE, 0),
        Origin("policy", {}, "", "cpu", "{}", 0),
        TextRules(),
    )
    paths: list[Path] = []
    for number, candidates in enumerate(read_answers(folder)):
        verdicts = [conclude(candidate, Verdict("", 1.0, "rule"), texts) for candidate in candidates]
        table = make_table(candidates, verdicts, {}, origin, measure)
        paths.append(
            publish_shard(
                folder / "shards", f"samples-{number:05d}", lambda path, table=table: write_table(table, path)
            )
        )
    columns = read_columns(paths)
    rules = SetRules(make_quotas(len(columns.decision)), SCOPE, THRESHOLD, PER_PROMPT, 200)
    choose_rows(columns, rules)
    write_set(paths, columns, rules, folder / "set")


def list_readable(folder: Path) -> list[PlainRow]:
    """Answers that the text filters keep."""
    return [
        PlainRow(c.key, c.prompt.id, c.prompt.domain, c.prompt.question, c.text)
        for part in read_answers(folder)
        for c in part
        if not conclude(c, Verdict("", 1.0, "rule"), TextRules()).reason
    ]


def keep_slowly(folder: Path) -> list[str]:
    rows = list_readable(folder)
    total = sum(pq.read_metadata(path).num_rows for path in (folder / "answers").iterdir())
    draw = {row.id: hash_text(f"0/{row.id}") for row in rows}
    held_out = [text for _, text in make_held_out()]
    return assemble_slowly(rows, held_out, SCOPE, THRESHOLD, PER_PROMPT, make_quotas(total), draw)


def put_together_with_stock(folder: Path) -> None:
    """As scripts do it: a map for the language, one for the signatures, a pass for each evaluation set."""
    from datasets import load_dataset
    from datasketch import MinHash, MinHashLSH
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(["de", "en", "es", "fr"])

    def is_english(row: dict[str, Any]) -> bool:
        lines = [line for line in split_completion(row["text"])[0].replace(". ", "\n").split("\n") if line.strip()]
        return all(identifier.classify(line)[0] == "en" for line in lines)

    def list_ngrams(text: str, n: int) -> list[str]:
        words = text.lower().split()
        return [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)]

    def sign(row: dict[str, Any]) -> dict[str, Any]:
        made = MinHash(num_perm=128)
        made.update_batch([ngram.encode() for ngram in list_ngrams(f"{row['question']} {row['text']}", 5)])
        return {"signature": made.hashvalues}

    rows = load_dataset(
        "parquet", data_files=str(folder / "answers" / "*.parquet"), split="train", cache_dir=str(folder / "cache")
    )
    rows = rows.filter(is_english).map(sign)
    index, kept = MinHashLSH(threshold=THRESHOLD, num_perm=128), []
    for number, signature in enumerate(rows["signature"]):
        made = MinHash(num_perm=128, hashvalues=np.array(signature, np.uint64), scheme=MinHash(num_perm=128).scheme)
        if not index.query(made):
            index.insert(str(number), made)
            kept.append(number)
    rows = rows.select(kept)
    sets: dict[str, set[str]] = {}
    for name, text in make_held_out():
        sets.setdefault(name, set()).update(list_ngrams(text, 10))
    for ngrams in sets.values():
        rows = rows.filter(lambda row, ngrams=ngrams: ngrams.isdisjoint(list_ngrams(row["text"], 10)))
    rows.remove_columns(["signature"]).to_parquet(str(folder / "stock.parquet"))


if __name__ == "__main__":
    main(sys.argv[1:])
