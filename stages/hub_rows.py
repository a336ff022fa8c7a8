"""Datasets of the Hugging Face Hub, read through `datasets`, which runs no code of theirs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.contract import DataError, StepError

ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class HubRows:
    """One split of a dataset at one commit, mapped from a local copy; `name`, `stem` and its text are as a path's."""

    name: str
    """`<owner>/<dataset>@<commit>`."""
    stem: str
    dataset: Any

    def __str__(self) -> str:
        return self.name

    def read_rows(self) -> Iterator[dict[str, Any]]:
        # As Arrow: pictures and sounds in columns that nobody reads are not decoded.
        for batch in self.dataset.with_format("arrow").iter(ROWS_AT_ONCE):
            yield from batch.to_pylist()


def open_dataset(id: str, config: str, split: str, revision: str, stem: str) -> HubRows:
    """Downloads what the cache of `datasets` lacks. An empty `config` or `revision` is the default or newest one.

    Raises DataError for what the Hub does not have, StepError if it cannot be reached.
    """
    import httpx2
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    if Path(id).exists():
        raise DataError(
            f"hub: '{id}' is also a folder here, which would be read instead; expected a dataset of the Hub"
        )
    try:
        return download(id, config, split, revision, stem)
    except DatasetNotFoundError as error:
        raise DataError(f"hub: {error} Expected an id and a commit as on the dataset's page") from error
    except (ConnectionError, httpx2.TransportError) as error:
        raise StepError(
            f"a Hub id without network: {id} is not in the cache of this machine and the Hub cannot be reached "
            f"({error}); run once with network, see HF_ENDPOINT and HF_HUB_OFFLINE, or name a local file as path"
        ) from error
    except (DatasetsError, OSError, RuntimeError, ValueError) as error:
        raise DataError(f"hub: {id} cannot be read: {error.__cause__ or error}") from error


def download(id: str, config: str, split: str, revision: str, stem: str) -> HubRows:
    from datasets import load_dataset_builder

    builder = load_dataset_builder(id, config or None, revision=revision or None)
    if revision not in ("", builder.hash):
        raise ConnectionError(f"the cache has commit {builder.hash}, expected {revision}")
    builder.download_and_prepare()
    if split not in builder.info.splits:
        raise DataError(f"hub: {id} has no split '{split}'; it has: {', '.join(builder.info.splits)}")
    return HubRows(f"{id}@{builder.hash}", stem, builder.as_dataset(split))
