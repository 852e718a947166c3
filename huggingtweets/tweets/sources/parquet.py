"""Parquet files and Arrow tables: one post a row. pyarrow is imported only here, and late."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingtweets.config.schema import SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.tweets.records import Timeline
from huggingtweets.tweets.sources.posts import Post, Skip, make_timeline
from huggingtweets.tweets.sources.reading import name_key, open_bytes, show
from huggingtweets.tweets.sources.rows import Columns, choose_columns, row_to_post

SUFFIXES = (".parquet",)
_BATCH_ROWS = 1 << 14
_MAX_GROUP_BYTES = 4 << 30
"""Of the needed columns of one row group, unpacked."""


def read_parquet(
    path: Path, handle: str, config: SourceConfig, *, is_of_one_user: bool
) -> Timeline:
    """Read the posts of one person; of the other columns and people nothing is built.

    Raises:
        SourceError: nothing of this person can be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def found() -> Iterator[Post | Skip]:
        with open_parquet(path) as source, pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            columns = choose_columns(names, config, path.name, is_of_one_user=is_of_one_user)
            _check_size(file.metadata, columns, path)
            batches = file.iter_batches(_BATCH_ROWS, columns=columns.names())
            yield from batch_posts(batches, columns, handle)

    try:
        return make_timeline(path.name, handle, found())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
        raise SourceError(
            f"{path}: got {show(str(err), 120)}; expected a Parquet file; check source="
        ) from err


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


def _check_size(metadata: Any, columns: Columns, path: Path) -> None:
    """Refuse a file that says of itself that it unpacks to far too much."""
    needed = set(columns.names())
    for group_index in range(metadata.num_row_groups):
        group = metadata.row_group(group_index)
        chunks = (group.column(index) for index in range(group.num_columns))
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema.split(".")[0] in needed
        )
        if size > _MAX_GROUP_BYTES:
            raise SourceError(
                f"{path}: got a row group of {size >> 20} MiB; expected at most "
                f"{_MAX_GROUP_BYTES >> 20} MiB; write it in smaller row groups"
            )


def batch_posts(batches: Iterable[Any], columns: Columns, handle: str) -> Iterator[Post | Skip]:
    """Read Arrow batches row by row; of other people only that they are there."""
    for batch in batches:
        own = batch
        if columns.user is not None:
            own, others = _rows_of(batch, columns.user, handle)
            yield from (Post("", author=other) for other in others)
        values = {name: _values(own.column(name)) for name in columns.names()}
        for index in range(own.num_rows):
            row = {name: column[index] for name, column in values.items()}
            broken = next((value for value in row.values() if isinstance(value, Skip)), None)
            yield broken or row_to_post(row, columns)


def _rows_of(batch: Any, user_column: str, handle: str) -> tuple[Any, list[str]]:
    """Return the rows of one user, and of nobody, and the other users' names.

    Only distinct names are looked at in Python, so a user of millions of rows is found fast.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    users = batch.column(user_column).cast(pa.string())
    names = [name for name in _values(pc.unique(users)) if isinstance(name, str)]
    others = [name for name in names if name_key(name) != handle]
    is_other = pc.is_in(users, value_set=pa.array(others, pa.string()))
    return batch.filter(pc.invert(is_other)), others


def _values(column: Any) -> list[Any]:
    """Return a column as Python values, with a `Skip` for each that Python cannot hold."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return Skip("not UTF-8")
    except (ValueError, OverflowError):
        return Skip("a date out of range")
