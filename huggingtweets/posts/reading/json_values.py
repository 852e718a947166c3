"""JSON as people's files hold it: value by value, with limits, without ever raising a surprise."""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

_CHUNK_CHARS = 1 << 18
_MAX_INT_DIGITS = 40
_BETWEEN = re.compile(r"[\s\[\],;)\ufeff]*")
_HEAD_CHARS = 1024
_HEAD = re.compile(
    r"(?:\ufeff|\s|//[^\n]*\n)*"
    r"(?:(?:export\s+default|(?:(?:var|let|const)\s+)?[\w.$]{1,200}\s*=|[\w.$]{1,200}\()\s*)?(?=[\[{])"
)
"""What files of JavaScript have before their data: `window.YTD.tweets.part0 = `, `callback(`."""


def _parse_int(digits: str) -> int | None:
    # int() takes quadratic time (CVE-2020-10735), and raises from 4300 digits on.
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else None


def _parse_constant(name: str) -> None:
    """NaN and the infinities are not JSON; nothing here needs them."""


_DECODER = json.JSONDecoder(parse_int=_parse_int, parse_constant=_parse_constant, strict=False)


def parse_json(text: str) -> Any:
    """Parse one value. NaN, infinities and endless integers become None.

    Raises:
        ValueError: it is not JSON, or nested too deep.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as err:
        raise ValueError("nested too deep") from err


def parse_python(text: str) -> Any:
    """Parse one value as Python prints it; None where it is none."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def dig(value: Any, *keys: str) -> Any:
    """Return what stands under keys, one within the other; None: something else is on the way."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def dig_text(value: Any, *keys: str) -> str | None:
    """Return a text that stands there; None: there is none."""
    found = dig(value, *keys)
    return found if isinstance(found, str) else None


def dig_list(value: Any, *keys: str) -> list[Any]:
    """Return a list that stands there; empty: there is none."""
    found = dig(value, *keys)
    return found if isinstance(found, list) else []


def iter_values(stream: TextIO, *, max_chars: int) -> Iterator[Any]:
    """Yield the elements of the JSON arrays in a stream, and values outside of arrays, one by one.

    An assignment to a variable before them is passed over, so that JavaScript is read as well.
    Memory is bounded by one element. Arrays inside of arrays are flattened.

    Args:
        stream: text.
        max_chars: longest element.

    Raises:
        ValueError: the text stops being JSON, ends inside an array, or is a table without names of
            its columns. All before was yielded.
    """
    text, is_end, depth = stream.read(_HEAD_CHARS), False, 0
    head = _HEAD.match(text)
    start = head.end() if head else 0
    wanted = _CHUNK_CHARS
    while True:
        gap = _BETWEEN.match(text, start)
        assert gap is not None  # an empty match at least
        depth += gap.group().count("[") - gap.group().count("]")
        start = gap.end()
        if start < len(text):
            try:
                value, end = _DECODER.raw_decode(text, start)
            except RecursionError as err:
                raise ValueError("nested too deep") from err
            except ValueError:
                if is_end or len(text) - start > max_chars:
                    raise
            else:
                if end < len(text) or is_end:
                    if depth > 1 and not isinstance(value, dict):
                        raise ValueError("a table without names of its columns")
                    yield value
                    start, wanted = end, _CHUNK_CHARS
                    continue
        elif is_end:
            break
        more = stream.read(wanted)
        is_end = not more
        text, start = text[start:] + more, 0
        wanted = max(_CHUNK_CHARS, len(text))  # doubling keeps retries of a long value linear
    if depth > 0:
        raise ValueError("the list is cut off")
