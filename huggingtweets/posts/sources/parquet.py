"""Parquet files and datasets, on the Hub or in a folder: Arrow tables, one post per row.

pyarrow and datasets are imported only here, and late.
"""

import importlib.util
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingtweets.config.posts_schema import SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import Said, open_bytes, show
from huggingtweets.posts.reading.byline import is_called, named
from huggingtweets.posts.reading.flat import UNKNOWN, names_text, roles_of
from huggingtweets.posts.reading.gather import (
    Others,
    Row,
    check_columns,
    configured_columns,
    is_only_column,
)
from huggingtweets.posts.reading.names import Who
from huggingtweets.posts.reading.record import has_text
from huggingtweets.posts.reading.timeline import Skip
from huggingtweets.posts.reading.who import Asked
from huggingtweets.posts.sources.jsonl import rows_of
from huggingtweets.storage.paths import expanded

SUFFIXES = (".parquet",)
_BATCH_ROWS = 1 << 14
"""Made Python objects at a time, so that memory does not grow with the file."""
_MAX_GROUP_BYTES = 4 << 30
"""Of the needed columns of one row group, unpacked."""


def read_parquet(path: Path, asked: Asked, said: Said) -> Iterator[Row | Others | Skip]:
    """Yield the rows of one person; of the other columns and people nothing is built.

    Raises:
        SourceError: it cannot be read, or has no column that may hold posts.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_parquet(path) as source, pq.ParquetFile(source) as file:
            columns = needed_columns(file.schema_arrow, asked.config, path.name)
            _check_size(file.metadata, columns, path)
            yield from batch_rows(file.iter_batches(_BATCH_ROWS, columns=columns), asked)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
        raise SourceError(
            f"{path}: got {show(str(err), 120)}; expected a Parquet file; check source="
        ) from err


def needed_columns(schema: Any, config: SourceConfig, where: str) -> list[str]:
    """Return the columns worth reading: known ones, structs, and texts that may be anything.

    Raises:
        SourceError: there is none that may hold posts.
    """
    import pyarrow.types as types

    columns = configured_columns(config).values()
    told = {*columns, *(column.partition(".")[0] for column in columns)}
    known = [
        field.name
        for field in schema
        if field.name in told or types.is_struct(field.type) or roles_of(field.name) != UNKNOWN
    ]
    if len(schema.names) != 1 or not _is_text(schema.field(0)):
        check_columns(_paths(schema), config, where)
    has_author = any(roles_of(name).who is not None for name in known)
    more = [] if has_author else [field.name for field in schema if _is_text(field)]
    wanted = {*known, *more}
    return [name for name in schema.names if name in wanted]


def _is_text(field: Any) -> bool:
    import pyarrow.types as types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_only_text(schema: Any, config: SourceConfig) -> bool:
    """Whether there is one column, of texts: they are the posts, whatever it is called."""
    return is_only_column(schema.names, config) and _is_text(schema.field(0))


def _paths(schema: Any) -> list[str]:
    """Return the columns, those inside of structs dotted."""
    import pyarrow.types as types

    paths = []
    for field in schema:
        inner = _paths(field.type) if types.is_struct(field.type) else []
        paths += [f"{field.name}.{path}" for path in inner] or [field.name]
    return paths


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Give what pyarrow reads from: the path, or the bytes of a gzip'd file."""
    damage: list[str] = []
    with open_bytes(path, damage) as stream:
        if stream.peek(4)[:4] == b"PAR1" and path.suffix != ".gz":
            yield path
            return
        data = stream.read()
    if damage:
        raise SourceError(f"{path}: {damage[0]}; expected a Parquet file; fetch it again")
    yield io.BytesIO(data)


def _check_size(metadata: Any, columns: list[str], path: Path) -> None:
    """Refuse a file that says of itself that it unpacks to far too much."""
    needed = set(columns)
    for group_index in range(metadata.num_row_groups):
        group = metadata.row_group(group_index)
        chunks = (group.column(index) for index in range(group.num_columns))
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema in needed or chunk.path_in_schema.split(".")[0] in needed
        )
        if size > _MAX_GROUP_BYTES:
            raise SourceError(
                f"{path}: got a row group of {size >> 20} MiB; expected at most "
                f"{_MAX_GROUP_BYTES >> 20} MiB; write it in smaller row groups"
            )


def batch_rows(batches: Iterable[Any], asked: Asked) -> Iterator[Row | Others | Skip]:
    """Read Arrow batches row by row; of other people only that they are there."""
    for batch in batches:
        own = batch
        is_text = _is_only_text(batch.schema, asked.config)
        column = None if is_text else _sole_author(batch.schema, asked.config)
        if column is not None:
            own, others = _rows_of(batch, column, asked)
            if others:
                yield Others(others, column)
        names = own.schema.names
        if is_text and not names_text(names[0]):
            names = ["text"]
        values = {name: _values(own.column(n)) for n, name in enumerate(names)}
        for index in range(own.num_rows):
            row = {name: column[index] for name, column in values.items()}
            broken = next((value for value in row.values() if isinstance(value, Skip)), None)
            listed = next((name for name, value in row.items() if _are_posts(name, value)), None)
            if broken is not None or listed is None:
                yield broken or Row(row)
            elif isinstance(row[listed][0], dict):
                yield from rows_of(row)
            else:
                yield from (Row({**row, listed: text}) for text in row[listed])


def _are_posts(name: str, value: Any) -> bool:
    """Whether a list is all posts of somebody, as grouping a table gives it."""
    is_list = isinstance(value, list) and bool(value) and names_text(name)
    return is_list and (all(isinstance(one, str) for one in value) or all(map(has_text, value)))


def _sole_author(schema: Any, config: SourceConfig) -> str | None:
    """Return the one column that alone names the author, if it is so."""
    import pyarrow.types as types

    if config.user_column is not None:
        names = [config.user_column] if config.user_column in schema.names else []
    else:
        names = [
            field.name
            for field in schema
            if types.is_struct(field.type) or roles_of(field.name).who is not None
        ]
    if len(names) != 1:
        return None
    kind = schema.field(names[0]).type
    is_sure = config.user_column is not None or roles_of(names[0]).who in (Who.handle, Who.username)
    return names[0] if is_sure and not types.is_nested(kind) else None


def _rows_of(batch: Any, user_column: str, asked: Asked) -> tuple[Any, list[str]]:
    """Return the rows of one user, and of nobody, and the other users' names.

    Only distinct names are looked at in Python, so a user of millions of rows is found fast.
    """

    def may_be(name: str) -> bool:
        if is_called(name, asked.handle, user_column):
            return True
        # An address or an object printed as text: `gather` finds the name in it, if there is one.
        is_more = "/" in name or "(" in name
        return is_more and bool(asked.config.user_column or named({user_column: name}))

    import pyarrow as pa
    import pyarrow.compute as pc

    users = batch.column(user_column).cast(pa.string(), safe=False)  # of bytes as well
    names = [name for name in _values(pc.unique(users)) if isinstance(name, str)]
    others = [name for name in names if name.strip() and not may_be(name)]
    is_other = pc.is_in(users, value_set=pa.array(others, pa.string()))
    return batch.filter(pc.invert(is_other)), others


def _values(column: Any) -> list[Any]:
    """Return a column as Python values, with a `Skip` for each that Python cannot hold."""
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        values = [_value(scalar) for scalar in column]
    return [_text(one) if isinstance(one, bytes) else one for one in values]


def _text(value: bytes) -> str | bytes:
    """Read as text what old programs did not mark as such; other bytes stay."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return Skip("not UTF-8")
    except (ValueError, OverflowError):
        return Skip("a date out of range")


# --- Datasets


def read_hub(asked: Asked) -> Iterator[Row | Others | Skip]:
    """Yield the rows of one person from `config.hub_split` of a dataset.

    Raises:
        SourceError: the dataset cannot be had, or has no column that may hold posts.
    """
    import pyarrow as pa

    dataset = _load(str(asked.config.path), asked.config.hub_split)
    if isinstance(dataset, SourceError):
        raise dataset
    columns = needed_columns(dataset.features.arrow_schema, asked.config, asked.where)
    needed = dataset.select_columns(columns).with_format("arrow")
    try:
        yield from batch_rows((one.combine_chunks() for one in needed.iter(_BATCH_ROWS)), asked)
    except (pa.ArrowException, OSError) as err:
        raise SourceError(f"{asked.where}: cannot be read ({show(str(err), 120)})") from err


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

    folder = expanded(path)
    try:
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        if (folder / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(str(folder))
            if split not in splits:
                names = ", ".join(splits)
                return SourceError(f"source.hub_split: got {split}; expected one of {names}")
            return splits[split]
        return datasets.load_dataset(str(folder) if folder.is_dir() else path, split=split)
    except Exception as err:  # whatever the Hub, the network, fsspec and the builders raise
        return SourceError(
            f"source.path: the dataset {show(path)} cannot be had ({type(err).__name__}: "
            f"{show(str(err), 160)}); expected a name on the Hub or a local folder; "
            "check the name, the network, HF_TOKEN and HF_HOME"
        )
