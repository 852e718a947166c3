"""JSON Lines, one post per line, and other JSON: arrays, pages, wrapped and nested lists."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import (
    MAX_DOCUMENT_CHARS,
    MAX_LINE_CHARS,
    Said,
    decode,
    has_bad_bytes,
    iter_lines,
    open_bytes,
    open_text,
    show,
)
from huggingtweets.posts.reading.gather import Row
from huggingtweets.posts.reading.json_values import iter_values, parse_json
from huggingtweets.posts.reading.shapes import inner_value, records_of
from huggingtweets.posts.reading.timeline import Skip
from huggingtweets.posts.reading.who import Asked

SUFFIXES = (".jsonl", ".ndjson", ".json")


def read_jsonl(path: Path, asked: Asked, said: Said) -> Iterator[Row | Skip]:
    """Yield the records.

    Raises:
        SourceError: it is a chat, or a file of an archive from X.
    """
    for line, value in _values(path, said):
        yield from rows_of(value, line)


def rows_of(value: Any, line: int | None = None) -> Iterator[Row | Skip]:
    """Yield the records in one JSON value."""
    for one in records_of(value):
        if isinstance(one, Skip):
            yield one if one.line is not None else Skip(one.reason, line)
        else:
            yield Row({"text": one} if isinstance(one, str) else one, line)


def _values(path: Path, said: Said) -> Iterator[tuple[int | None, Any]]:
    """Yield (line, value or `Skip`): by lines where the file is made of lines, else by values.

    A document may be spread over lines, so a first line that is not whole says nothing yet: then
    the file is read by values, and by lines after all if not even one value comes out.
    """
    with open_text(path, said) as stream:
        lines = (line for _, line in iter_lines(stream))
        first = next((line for line in lines if line is None or line.strip()), "")  # None: too long
        if first is not None and "window.YTD." in first[:100]:
            raise SourceError(
                f"{path.name}: got a file of an archive from X, which may hold deleted posts or "
                "other people's; expected source=x_archive for it"
            )
        is_document = first is None and _begins_an_object(path)
    if is_document or not _is_whole_object(first):
        values = _by_values(path, said)
        head = next(values, None)
        if not isinstance(head, Skip):
            yield from () if head is None else ((None, head),)
            yield from ((None, value) for value in values)
            return
    with open_text(path, said) as stream:
        for number, line in iter_lines(stream):
            yield from ((number, value) for value in _line_values(number, line))


def _begins_an_object(path: Path) -> bool:
    with open_bytes(path, []) as stream:
        return decode(stream).read(1024).lstrip("\ufeff \t\r\n").startswith("{")


def _is_whole_object(line: str | None) -> bool:
    try:
        if line is None or line.lstrip("\ufeff \t").startswith("["):
            return line is None
        return isinstance(parse_json(line.lstrip("\ufeff")), dict | str)
    except ValueError:
        return False


def _by_values(path: Path, said: Said) -> Iterator[Any]:
    with open_text(path, said) as stream:
        try:
            yield from iter_values(stream, max_chars=MAX_DOCUMENT_CHARS)
        except ValueError as err:
            yield Skip(f"from here on it is not JSON ({show(str(err), 80)})")


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
        value = inner_value(line)  # printed by Python
        return [Skip("not JSON", number) if value is None else value]
    return value if isinstance(value, list) else [value]
