"""Tables as pandas and Polars write them in JSON, and objects of posts by id or by handle."""

from collections.abc import Iterable, Iterator
from typing import Any

from huggingtweets.posts.reading.flat import names_text
from huggingtweets.posts.reading.names import TABLES, words_of
from huggingtweets.posts.reading.record import has_text
from huggingtweets.posts.reading.timeline import Skip

_CONTAINERS = TABLES["containers"]
_MAX_HANDLE_CHARS = 60
_MIN_ID_CHARS = 10


def is_table(value: Any) -> bool:
    """Whether a value is a table."""
    return isinstance(value, dict) and table_of(value) is not None


def table_of(value: dict[str, Any]) -> Iterator[dict[str, Any] | Skip] | None:
    """Read what pandas and Polars write: split, by column (as objects or lists), by row."""
    columns, data = value.get("columns"), value.get("data")
    lists = _columns(value)
    if lists is not None:
        return (dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True))
    if isinstance(columns, list) and isinstance(data, list):
        names = [str(one) for one in columns]
        return (
            dict(zip(names, row, strict=False))
            if isinstance(row, list)
            else Skip("no row of a table")
            for row in data
        )
    inner = list(value.values())
    if len(inner) > 1 and all(isinstance(one, str) for one in inner) and _are_ids(value):
        return ({"id": key, "text": one} for key, one in value.items())
    if len(inner) < 1 or not all(isinstance(one, dict) and one for one in inner):
        return None
    texts = [key for key in value if names_text(key)]
    keys = list(inner[0])
    if texts and all(isinstance(one, str) or one is None for one in value[texts[0]].values()):
        keys = list(value[texts[0]])
        return ({name: column.get(key) for name, column in value.items()} for key in keys)
    if len(inner) > 1 and all(map(has_text, inner[:20])):
        is_by_handle = not _are_ids(value) and any(map(may_be_handle, value))
        name = "author" if is_by_handle else "id"
        return ({name: key, **one} for key, one in value.items())
    return None


def _columns(value: dict[str, Any]) -> dict[str, list[Any]] | None:
    """Return a table's columns that are lists of one length, one of them of texts."""
    columns = value.get("columns")
    if isinstance(columns, list) and all(isinstance(one, dict) for one in columns):
        value = {str(one.get("name")): one.get("values") for one in columns}  # Polars
    sizes = {len(one) if isinstance(one, list) else -1 for one in value.values()}
    is_even = len(value) > 1 and len(sizes) == 1 and min(sizes) > 0
    if not is_even or any(isinstance(one[0], list | dict) for one in value.values()):
        return None
    has_texts = any(
        names_text(key) and any(isinstance(one, str) for one in column)
        for key, column in value.items()
    )
    return value if has_texts else None


def _are_ids(keys: Iterable[str]) -> bool:
    """Whether keys are numbers, or were drawn at random."""
    sizes = {len(key) for key in keys if not key.isdecimal()}
    is_random = len(sizes) == 1 and min(sizes) >= _MIN_ID_CHARS
    return not sizes or (is_random and not any(map(str.isalpha, keys)))


def may_be_handle(key: str) -> bool:
    """Whether the key of a list may be the name of its author: not what any container is called."""
    words = [word for word in words_of(key) if not word.isdecimal()]
    return bool(words) and not _CONTAINERS.issuperset(words) and len(key) <= _MAX_HANDLE_CHARS
