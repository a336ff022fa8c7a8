"""Rows of the full set that nobody samples: the demonstrations of generated domains, and files of answered questions.

Paper: R1 v2 §3.3.1: parts of the supervised set of V3 for writing, factual questions, self-cognition and translation,
with thoughts for some and none for simple requests.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stages.candidates import Measure, Origin, make_table, write_table
from stages.filters import Candidate
from stages.judging import Verdict
from stages.rows import Prompt
from stages.sampling_rounds import select_domains
from stages.shards import find_shard, publish_shard
from stages.supervised_files import SupervisedFile, read_file

ROWS_PER_SHARD = 5000
DEMONSTRATION = "demonstration"


def write_demonstrations(
    prompts: pa.Table, domains: Sequence[str], origin: Origin, measure: Measure, folder: Path
) -> list[Path]:
    """Shards with the demonstrations of the given domains."""
    chosen = select_domains(prompts, domains)
    chosen = chosen.filter(pc.not_equal(chosen["demonstration"], ""))
    rows = (row for batch in chosen.to_batches(ROWS_PER_SHARD) for row in batch.to_pylist())
    made = (Prompt.from_row(row) for row in rows)
    candidates = (Candidate(prompt, prompt.demonstration, 0) for prompt in made)
    return write_candidates(candidates, DEMONSTRATION, origin, measure, folder)


def write_file(file: SupervisedFile, number: int, measure: Measure, folder: Path, output_dir: Path) -> list[Path]:
    """Shards with the rows of a file. Raises DataError if more than 1 % must be set aside."""
    source = file.open()
    origin = Origin(source.name, {file.domain: source.name})
    return write_candidates(read_file(file, source, output_dir), f"file-{number}", origin, measure, folder)


def read_questions(file: SupervisedFile, output_dir: Path) -> tuple[dict[str, str], pa.Table]:
    """(where they come from, by domain, prompts) of a file of questions, as `write_file` reads one."""
    source = file.open()
    rows = [candidate.prompt.to_row() for candidate in read_file(file, source, output_dir)]
    return {file.domain: source.name}, pa.Table.from_pylist(rows)


def write_candidates(
    candidates: Iterable[Candidate], name: str, origin: Origin, measure: Measure, folder: Path
) -> list[Path]:
    paths: list[Path] = []
    left = iter(candidates)
    while part := list(islice(left, ROWS_PER_SHARD)):
        table = make_table(part, [Verdict()] * len(part), {}, origin, measure)
        paths.append(publish_rows(folder, f"{name}-{len(paths):05d}", table))
    return paths


def publish_rows(folder: Path, name: str, table: pa.Table) -> Path:
    """The shard with these rows, in place of one that an earlier run left."""
    if old := find_shard(folder, name):
        old.unlink()
    return publish_shard(folder, name, lambda path: write_table(table, path))
