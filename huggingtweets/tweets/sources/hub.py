"""Datasets: a name on the Hub, or a folder written by `datasets`, read through that library."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingtweets.config.schema import SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.tweets.records import Timeline
from huggingtweets.tweets.sources.parquet import batch_posts
from huggingtweets.tweets.sources.posts import Post, Skip, make_timeline
from huggingtweets.tweets.sources.reading import show
from huggingtweets.tweets.sources.rows import choose_columns

_BATCH_ROWS = 4096


def read_hub(handle: str, config: SourceConfig) -> Timeline:
    """Read the posts of one person from `config.hub_split` of a dataset.

    Raises:
        SourceError: the dataset cannot be had, or has nothing of this person.
    """
    import pyarrow as pa

    dataset = _load(config)
    where = str(config.path)
    columns = choose_columns(dataset.column_names, config, where, is_of_one_user=False)

    def found() -> Iterator[Post | Skip]:
        needed = dataset.select_columns(columns.names()).with_format("arrow")
        yield from batch_posts(needed.iter(_BATCH_ROWS), columns, handle)

    try:
        return make_timeline(where, handle, found())
    except (pa.ArrowException, OSError) as err:
        raise SourceError(f"{where}: cannot be read ({show(str(err), 120)})") from err


def _load(config: SourceConfig) -> Any:
    """Return the split. Never runs code of a dataset: `datasets` 4 and later cannot."""
    import datasets

    path = str(config.path)
    folder = Path(path).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file():
            return _pick_split(datasets.load_from_disk(str(folder)), config)
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        name = str(folder) if folder.is_dir() else path
        return datasets.load_dataset(name, split=config.hub_split)
    except SourceError:
        raise
    except Exception as err:  # whatever the Hub, the network, fsspec and the builders raise
        raise SourceError(
            f"source.path: the dataset {show(path)} cannot be had ({type(err).__name__}: "
            f"{show(str(err), 160)}); expected a name on the Hub or a local folder; "
            "check the name, the network, HF_TOKEN and HF_HOME"
        ) from err


def _pick_split(splits: Any, config: SourceConfig) -> Any:
    if config.hub_split not in splits:
        raise SourceError(
            f"source.hub_split: got {config.hub_split}; expected one of {', '.join(splits)}"
        )
    return splits[config.hub_split]
