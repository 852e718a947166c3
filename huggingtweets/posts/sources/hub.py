"""Datasets: a name on the Hub, or a folder written by `datasets`, read through that library."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.gather import Asked, gather
from huggingtweets.posts.sources.parquet import batch_rows, needed_columns
from huggingtweets.posts.sources.reading import show

_BATCH_ROWS = 1 << 14


def read_hub(asked: Asked) -> Timeline:
    """Read the posts of one person from `config.hub_split` of a dataset.

    Raises:
        SourceError: the dataset cannot be had, or has nothing of this person.
    """
    import pyarrow as pa

    dataset = _load(str(asked.config.path), asked.config.hub_split)
    if isinstance(dataset, SourceError):
        raise dataset
    columns = needed_columns(dataset.features.arrow_schema, asked.config, asked.where)
    needed = dataset.select_columns(columns).with_format("arrow")
    batches = (_as_batch(table) for table in needed.iter(_BATCH_ROWS))
    try:
        return gather(asked, batch_rows(batches, asked))
    except (pa.ArrowException, OSError) as err:
        raise SourceError(f"{asked.where}: cannot be read ({show(str(err), 120)})") from err


def _as_batch(table: Any) -> Any:
    return table.combine_chunks()


@lru_cache(maxsize=4)
def _load(path: str, split: str) -> Any:
    """Return the split, or the error, once per process: a dead network costs 25 s of retries.

    Never runs code of a dataset: `datasets` 4 and later cannot.
    """
    if importlib.util.find_spec("datasets") is None:
        return SourceError(
            f"{path}: the package datasets is not installed; expected it for source=hub; run "
            "pip install 'huggingtweets[datasets]'"
        )
    import datasets

    folder = Path(path).expanduser()
    try:
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        if (folder / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(str(folder))
            return splits[split] if split in splits else _no_split(split, list(splits))
        return datasets.load_dataset(str(folder) if folder.is_dir() else path, split=split)
    except Exception as err:  # whatever the Hub, the network, fsspec and the builders raise
        return SourceError(
            f"source.path: the dataset {show(path)} cannot be had ({type(err).__name__}: "
            f"{show(str(err), 160)}); expected a name on the Hub or a local folder; "
            "check the name, the network, HF_TOKEN and HF_HOME"
        )


def _no_split(split: str, splits: list[str]) -> SourceError:
    return SourceError(f"source.hub_split: got {split}; expected one of {', '.join(splits)}")
