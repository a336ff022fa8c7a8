"""What an artifact holds, apart from how it is stored: content digests and counts.

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
from typing import Any

from stages.contract import ArtifactError, DataError, Kind
from stages.rows import canonical_json

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pkl", ".pth", ".pickle"})
TOKENIZER_JSON = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
TOKENIZER_TEXT = ("chat_template.jinja", "merges.txt", "tokenizer.model", "vocab.txt")
CHECKPOINT_FILES = (*TOKENIZER_JSON, *TOKENIZER_TEXT, "generation_config.json")
VOLATILE_KEYS = frozenset({"_name_or_path", "name_or_path", "transformers_version", "is_local", "local_files_only"})
"""Written by transformers; they tell how a checkpoint was saved, not what it is."""
CHUNK_BYTES = 1 << 22
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


def digest_contents(folder: Path, kind: Kind) -> str:
    """Content digest of an artifact's folder. Raises DataError if it does not hold what `kind` says."""
    return digest_rows(folder) if kind in ("dataset", "metrics") else digest_checkpoint(folder)


def count_contents(folder: Path, kind: Kind) -> dict[str, int]:
    """Rows by split of a dataset; `parameters` of a checkpoint."""
    if kind in ("dataset", "metrics"):
        return count_rows(folder)
    return {"parameters": sum(math.prod(tensor.shape) for tensor in list_tensors(folder))}


def list_shards(folder: Path) -> dict[str, list[Path]]:
    """Parquet shards by split, in order. Raises DataError if there are none."""
    shards: dict[str, list[Path]] = {}
    for path in sorted((folder / "data").glob("*-*-of-*.parquet")):
        shards.setdefault(path.name.rsplit("-", 3)[0], []).append(path)
    if not shards:
        raise DataError(f"{folder} holds no rows; expected data/<split>-00000-of-0000N.parquet in it")
    return shards


def digest_rows(folder: Path) -> str:
    import pyarrow.parquet as pq

    digest = hashlib.sha256()
    for split, paths in list_shards(folder).items():
        digest.update(f"split {split}\n".encode())
        for path in paths:
            for batch in pq.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    digest.update(encode_row(row) + b"\n")
    return digest.hexdigest()


def encode_row(row: dict[str, Any]) -> bytes:
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return text.encode()


def count_rows(folder: Path) -> dict[str, int]:
    import pyarrow.parquet as pq

    return {
        split: sum(pq.read_metadata(path).num_rows for path in paths) for split, paths in list_shards(folder).items()
    }


def digest_checkpoint(folder: Path) -> str:
    digest = hashlib.sha256()
    for tensor in list_tensors(folder):
        digest.update(f"{canonical_json([tensor.name, tensor.dtype, tensor.shape])}\n".encode())
        for chunk in read_tensor(tensor):
            digest.update(chunk)
    for name in CHECKPOINT_FILES:
        path = folder / name
        if path.exists():
            digest.update(f"{name}\n{read_canonical(path)}\n".encode())
    return digest.hexdigest()


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
        header = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        start = 8 + length
        tensors = [
            Tensor(name, entry["dtype"], tuple(entry["shape"]), path, *(start + at for at in entry["data_offsets"]))
            for name, entry in header.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is not a readable safetensors file: its header is damaged") from error
    if any(tensor.end > size for tensor in tensors):
        raise ArtifactError(f"{path} is cut short: it has {size} bytes, its header promises more")
    return tensors


def read_tensor(tensor: Tensor) -> Iterator[bytes]:
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        left = tensor.end - tensor.begin
        while left > 0:
            chunk = file.read(min(CHUNK_BYTES, left))
            left -= len(chunk)
            yield chunk


def read_canonical(path: Path) -> str:
    """Canonical JSON of a tokenizer or generation file, without volatile keys; a hash of any other file."""
    if path.suffix != ".json":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    value = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value[key] for key in value if key not in VOLATILE_KEYS} if isinstance(value, dict) else value
    return canonical_json(kept)
