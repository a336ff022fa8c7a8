"""What an artifact holds, apart from how it is stored: content digest and counts.

A dataset is its rows by split, in order; a checkpoint is its tensors, tokenizer and generation
config. Shard sizes, compression, cards and library versions do not enter.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.contract import ArtifactError, DataError, Kind
from stages.rows import canonical_json

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pkl", ".pth", ".pickle", ".ckpt"})
CHECKPOINT_FILES = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "chat_template.jinja",
    "merges.txt",
    "tokenizer.model",
    "vocab.txt",
    "generation_config.json",
)
"""What defines a checkpoint beside its tensors, in the order it enters the digest."""
VOLATILE_KEYS = frozenset({"_name_or_path", "name_or_path", "transformers_version", "is_local", "local_files_only"})
"""Written by transformers; they tell how a checkpoint was saved, not what it is."""
CHUNK_BYTES = 1 << 22
ROWS_AT_ONCE = 1024
"""As Python objects long rows take several times their size."""
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format."""


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies in a safetensors file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    begin: int
    end: int


def read_contents(folder: Path, kind: Kind) -> tuple[str, dict[str, int]]:
    """(content digest, counts: rows by split, or `parameters`). Raises DataError if `folder` is not of that kind."""
    return read_splits(folder) if kind in ("dataset", "metrics") else read_checkpoint(folder)


def read_splits(folder: Path) -> tuple[str, dict[str, int]]:
    import pyarrow.parquet as pq

    digest, counts = hashlib.sha256(), dict[str, int]()
    for path in sorted((folder / "data").glob("*-*-of-*.parquet")):
        split = path.name.rsplit("-", 3)[0]
        if split not in counts:
            digest.update(f"split {split}\n".encode())
            counts[split] = 0
        for batch in pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
                digest.update(text.encode() + b"\n")
            counts[split] += batch.num_rows
    if not counts:
        raise DataError(f"{folder} holds no rows; expected data/<split>-00000-of-0000N.parquet in it")
    return digest.hexdigest(), counts


def read_checkpoint(folder: Path) -> tuple[str, dict[str, int]]:
    digest, tensors = hashlib.sha256(), list_tensors(folder)
    for tensor in tensors:
        digest.update(f"{canonical_json([tensor.name, tensor.dtype, tensor.shape])}\n".encode())
        for chunk in read_tensor(tensor):
            digest.update(chunk)
    for path in (folder / name for name in CHECKPOINT_FILES):
        if path.exists():
            digest.update(f"{path.name}\n{read_canonical(path)}\n".encode())
    return digest.hexdigest(), {"parameters": sum(math.prod(tensor.shape) for tensor in tensors)}


def list_tensors(folder: Path) -> list[Tensor]:
    """Tensors of all safetensors files in `folder`, by name. Raises DataError if there are none."""
    tensors = [tensor for path in folder.glob("*.safetensors") for tensor in read_header(path)]
    if not tensors:
        raise DataError(f"{folder} is not a checkpoint: it has no *.safetensors with tensors in it")
    return sorted(tensors, key=lambda tensor: tensor.name)


def read_header(path: Path) -> list[Tensor]:
    """The tensors of one safetensors file. Raises ArtifactError if it is cut short or not one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        text = file.read(length) if length <= min(size - 8, MAX_HEADER_BYTES) else b""
    try:
        tensors = [
            Tensor(name, entry["dtype"], tuple(entry["shape"]), path, *(8 + length + n for n in entry["data_offsets"]))
            for name, entry in json.loads(text).items()
            if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is not a readable safetensors file: its header is damaged") from error
    if any(tensor.end > size for tensor in tensors):
        raise ArtifactError(f"{path} is cut short: it has {size} bytes, its header promises more")
    return tensors


def read_tensor(tensor: Tensor) -> Iterator[bytes]:
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        for done in range(0, tensor.end - tensor.begin, CHUNK_BYTES):
            yield file.read(min(CHUNK_BYTES, tensor.end - tensor.begin - done))


def read_canonical(path: Path) -> str:
    """Canonical JSON of a tokenizer or generation file, without volatile keys; a hash of any other file."""
    if path.suffix != ".json":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    value = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value[key] for key in value if key not in VOLATILE_KEYS} if isinstance(value, dict) else value
    return canonical_json(kept)
