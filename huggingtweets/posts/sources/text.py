"""Plain text: one post per line, blank lines skipped."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from huggingtweets.posts.reading.by_handle import (
    Said,
    has_bad_bytes,
    iter_lines,
    look_ahead,
    open_text,
)
from huggingtweets.posts.reading.chats import refuse_text_chat
from huggingtweets.posts.reading.gather import Row
from huggingtweets.posts.reading.timeline import Skip
from huggingtweets.posts.reading.who import Asked

SUFFIXES = (".txt", ".text")
_MAX_LINE_CHARS = 1 << 20
_DIVIDED = re.compile(r"<\|(?:start|end)oftext\|>|\0")
"""What stands between posts in files for training GPT-2; NUL in lists that programs pass on."""
_LOOKED_AT_CHARS = 1 << 16


def read_text(path: Path, asked: Asked, said: Said) -> Iterator[Row | Skip]:
    """Yield the lines; all are one person's. The order stays, newest first by custom.

    Raises:
        SourceError: it is a chat, a table or another thing that is not lines of one person.
    """
    with open_text(path, said, newline=None) as stream:
        lines = iter_lines(stream, _MAX_LINE_CHARS)
        head = look_ahead(lines, _LOOKED_AT_CHARS)
        shown = [(line or "")[:_LOOKED_AT_CHARS].rstrip("\n") for _, line in head]
        is_one_person = asked.config.user_column == ""
        refuse_text_chat(path.name, shown, asked.handle, is_one_person=is_one_person)
        for number, line in chain(head, lines):
            if line is None:
                yield Skip(f"a line of more than {_MAX_LINE_CHARS} characters", number)
            elif has_bad_bytes(line):
                yield Skip("not UTF-8", number)
            else:
                parts = (part.strip("\ufeff\n") for part in _DIVIDED.split(line))
                yield from (Row({"text": part}, number) for part in parts if part.strip())
