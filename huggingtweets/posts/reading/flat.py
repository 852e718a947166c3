"""A record of any depth as dotted paths, and what its paths are known to hold."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from huggingtweets.posts.reading.names import (
    ACCESS,
    DATES,
    FOREIGN,
    IDS,
    TEXTS,
    Mark,
    Who,
    mark_role,
    may_name_people,
    rank_of,
    who_role,
    words_of,
)

MAX_PATHS = 2000
"""Of one record; more is not looked at."""
_MAX_DEPTH = 7
_EMPTY = frozenset({"", "none", "null", "nan", "na", "n/a", "undefined", "<na>", "[]", "{}", "nat"})
_ANSWERS = (("reply",), ("response",), ("answer",), ("reply", "text"), ("response", "text"))
ADDRESSES = (("url",), ("link",), ("permalink",), ("uri",), ("href",), ("id",))
"""Last words of paths that may hold the address of a post."""


def flatten(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted paths and values; what is somebody else's by its name is not entered."""
    if not any(isinstance(inner, dict | list) for inner in record.values()):
        yield from islice(record.items(), MAX_PATHS)
        return
    stack: list[tuple[str, Mapping[str, Any], int]] = [("", record, 0)]
    count = 0
    while stack:
        prefix, value, depth = stack.pop()
        for key, inner in value.items():
            count += 1
            if count > MAX_PATHS:
                return
            path = prefix + key if isinstance(key, str) else f"{prefix}{key}"
            if isinstance(inner, list) and len(inner) == 1 and may_name_people(path):
                inner = inner if is_foreign(path) else inner[0]  # `"authors": [{"name": ...}]`
            if isinstance(inner, dict) and inner and depth < _MAX_DEPTH and not is_foreign(path):
                stack.append((f"{path}.", inner, depth + 1))
            else:
                yield path, inner


@lru_cache(maxsize=1 << 14)
def is_foreign(path: str) -> bool:
    """Whether what stands under a path is somebody else's: a quote, an original, a receiver."""
    words = words_of(path.rpartition(".")[2])
    return bool(FOREIGN.intersection(words)) or mark_role(path) is not None


class _Roles(NamedTuple):
    text: int | None
    id: int | None
    date: int | None
    mark: Mark | None
    who: Who | None


@lru_cache(maxsize=1 << 14)
def roles_of(path: str) -> _Roles:
    """What a path is known to hold."""
    text, id_, date = (rank_of(path, names) for names in (TEXTS, IDS, DATES))
    return _Roles(text, id_, date, mark_role(path), who_role(path))


def names_text(path: str) -> bool:
    """Whether a path is known to hold the text of a post."""
    return roles_of(path).text is not None


MAX_NAME_WORDS = 3
"""Of a column; what has more is said."""


def are_columns(names: Sequence[str]) -> bool:
    """Whether a row is plainly the names of columns, one of them that of the texts."""
    are_short = len(names) > 1 and all(len(name.split()) <= MAX_NAME_WORDS for name in names)
    has_text = any(names_text(name) for name in names)
    return are_short and has_text and [*names].count("") <= 1  # pandas leaves one empty


class Layout(NamedTuple):
    """Where in a flat record what is, the likeliest first: worked out once per set of paths."""

    texts: tuple[int, ...]
    ids: tuple[int, ...]
    dates: tuple[int, ...]
    marks: tuple[tuple[int, Mark], ...]
    authors: tuple[tuple[int, Who | None], ...]
    """None: no author by its name, but it may be the address of the post."""
    unknown: tuple[int, ...]
    """What no table knows."""
    access: tuple[int, ...]
    """What may say that it is not for all."""
    answers: tuple[int, ...]
    """What may be a text beside the text: nobody can tell whose it is."""


# All records of most files have the same few sets of paths; where keys are data, old ones go.
@lru_cache(maxsize=1 << 11)
def layout_of(paths: tuple[str, ...]) -> Layout:
    """Return where what is in a record with these paths."""
    roles = [roles_of(path) for path in paths]

    def ranked(ranks: list[int | None]) -> tuple[int, ...]:
        found = [(rank, paths[n].count("."), n) for n, rank in enumerate(ranks) if rank is not None]
        return tuple(n for _, _, n in sorted(found))

    return Layout(
        ranked([one.text for one in roles]),
        ranked([one.id for one in roles]),
        ranked([one.date for one in roles]),
        tuple((n, one.mark) for n, one in enumerate(roles) if one.mark is not None),
        tuple(
            (n, one.who)
            for n, one in enumerate(roles)
            if one.who is not None or words_of(paths[n])[-1:] in ADDRESSES
        ),
        tuple(n for n, one in enumerate(roles) if one == UNKNOWN),
        tuple(n for n, path in enumerate(paths) if rank_of(path, ACCESS) is not None),
        tuple(n for n, path in enumerate(paths) if words_of(path) in _ANSWERS),
    )


UNKNOWN = _Roles(None, None, None, None, None)
"""Of a path that no table knows."""


class Flat(NamedTuple):
    """A record of any depth, and what is where in it."""

    items: list[tuple[str, Any]]
    """Paths and values."""
    layout: Layout

    def at(self, places: tuple[int, ...]) -> list[tuple[str, Any]]:
        """Return paths and values at some places of the layout."""
        return [self.items[place] for place in places]


def flat_of(record: Mapping[str, Any], prefix: str = "") -> Flat:
    """Return a record flat, its paths behind a prefix."""
    items = [(prefix + path, value) for path, value in flatten(record)]
    return Flat(items, layout_of(tuple([path for path, _ in items])))


def get_path(record: Mapping[str, Any], path: str) -> Any:
    """Return the value under a dotted path, or under a key that has dots itself; None: no such."""
    if path in record:
        return record[path]
    head, dot, tail = path.partition(".")
    while dot:
        inner = record.get(head)
        if isinstance(inner, dict) and (found := get_path(inner, tail)) is not None:
            return found
        more, dot, tail = tail.partition(".")
        head = f"{head}.{more}"
    return None


def is_empty(value: object) -> bool:
    """Whether a value says nothing, in any tool's spelling."""
    if value is None or value != value or (isinstance(value, list | dict) and not value):
        return True
    return isinstance(value, str) and value.strip().lower() in _EMPTY
