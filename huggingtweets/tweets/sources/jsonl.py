"""JSON Lines, one post a line, and the JSON files of the X API: arrays, pages, twarc's lines."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from huggingtweets.config.schema import SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.tweets.records import Timeline
from huggingtweets.tweets.sources.api_json import api_posts
from huggingtweets.tweets.sources.json_values import iter_values, parse_json
from huggingtweets.tweets.sources.posts import Post, Skip, make_timeline
from huggingtweets.tweets.sources.reading import (
    MAX_LINE_CHARS,
    decode,
    has_bad_bytes,
    iter_lines,
    open_bytes,
    show,
)
from huggingtweets.tweets.sources.rows import Columns, choose_columns, pick_column, row_to_post

SUFFIXES = (".jsonl", ".ndjson", ".json")
_MAX_KEYS = 1000


def read_jsonl(path: Path, handle: str, config: SourceConfig, *, is_of_one_user: bool) -> Timeline:
    """Read the posts of one person.

    Raises:
        SourceError: nothing of this person can be read.
    """
    reader = _Reader(config, path.name, is_of_one_user)

    def found() -> Iterator[Post | Skip]:
        for line, value in _values(path):
            yield from reader.posts(value, line)
        reader.check_configured()

    return make_timeline(path.name, handle, found())


def _values(path: Path) -> Iterator[tuple[int | None, Any]]:
    """Yield (line, value or `Skip`): by lines where the file is made of lines, else by values.

    A document may be spread over lines, so a first line that is not whole says nothing yet: then
    the file is read by values, and by lines after all if not even one value comes out.
    """
    with open_bytes(path, []) as stream:
        first = _first_line(decode(stream))
    if not _is_whole_object(first):
        values = _by_values(path)
        head = next(values, None)
        if not isinstance(head, Skip):
            yield from () if head is None else ((None, head),)
            yield from ((None, value) for value in values)
            return
    yield from _by_line(path)


def _first_line(stream: TextIO) -> str | None:
    """Return the first line that is not blank; None where it is too long."""
    lines = (line for _, line in iter_lines(stream))
    return next((line for line in lines if line is None or line.strip()), "")


def _is_whole_object(line: str | None) -> bool:
    try:
        if line is None or line.lstrip("\ufeff \t").startswith("["):
            return line is None
        return isinstance(parse_json(line.lstrip("\ufeff")), dict | str)
    except ValueError:
        return False


def _by_values(path: Path) -> Iterator[Any]:
    damage: list[str] = []
    with open_bytes(path, damage) as stream:
        try:
            yield from iter_values(decode(stream), max_chars=MAX_LINE_CHARS)
        except ValueError as err:
            yield Skip(f"from here on it is not JSON ({show(str(err), 80)})")
    yield from (Skip(problem) for problem in damage)


def _by_line(path: Path) -> Iterator[tuple[int | None, Any]]:
    damage: list[str] = []
    with open_bytes(path, damage) as stream:
        for number, line in iter_lines(decode(stream)):
            yield from ((number, value) for value in _line_values(number, line))
    yield from ((None, Skip(problem)) for problem in damage)


def _line_values(number: int, line: str | None) -> list[Any]:
    if line is None:
        return [Skip(f"a line of more than {MAX_LINE_CHARS} characters", number)]
    if has_bad_bytes(line):
        return [Skip("not UTF-8", number)]
    if not line.strip():
        return []
    try:
        value = parse_json(line.lstrip("\ufeff"))
    except ValueError:
        return [Skip("not JSON", number)]
    return value if isinstance(value, list) else [value]


class _Reader:
    """Reads values as posts; remembers the keys seen, which are the columns of such a file."""

    def __init__(self, config: SourceConfig, where: str, is_of_one_user: bool) -> None:
        self._config = config
        self._where = where
        self._is_of_one_user = is_of_one_user
        named = {
            "text": config.text_column,
            "user": config.user_column,
            "id": config.id_column,
            "date": config.date_column,
            "retweet": config.retweet_column,
        }
        self._configured = {key: name for key, name in named.items() if name}
        self._by_keys: dict[tuple[str, ...], Columns | Skip] = {}
        self._keys: dict[str, None] = {}

    def posts(self, value: Any, line: int | None) -> list[Post | Skip]:
        """Return what one JSON value holds."""
        if isinstance(value, Skip):
            return [value]
        if isinstance(value, str):
            return [Post(value)]
        if self._config.text_column is None and (known := api_posts(value)) is not None:
            return [replace(one, line=line) if isinstance(one, Skip) else one for one in known]
        if not isinstance(value, dict):
            return [Skip("a value that is no post", line)]
        columns = self._columns(tuple(value)[:_MAX_KEYS])
        if isinstance(columns, Skip):
            return [replace(columns, line=line)]
        return [row_to_post(value, columns, line)]

    def _columns(self, keys: tuple[str, ...]) -> Columns | Skip:
        """JSON leaves out what is empty, so each set of keys is judged by itself."""
        if keys not in self._by_keys:
            if len(self._by_keys) >= _MAX_KEYS:
                self._by_keys.clear()
            if len(self._keys) < _MAX_KEYS:
                self._keys.update(dict.fromkeys(keys))
            try:
                self._by_keys[keys] = choose_columns(
                    (*keys, *self._configured.values()),
                    self._config,
                    self._where,
                    is_of_one_user=self._is_of_one_user,
                )
            except SourceError:
                self._by_keys[keys] = Skip("a line without a text; see source.text_column=")
        return self._by_keys[keys]

    def check_configured(self) -> None:
        """Refuse a configured column that no row has: it is misspelt."""
        if 0 < len(self._keys) < _MAX_KEYS:
            for key, name in self._configured.items():
                pick_column(key, name, (), self._keys, self._where)
