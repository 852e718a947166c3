"""Plain text: one post per line, blank lines skipped."""

import re
from collections.abc import Iterator
from pathlib import Path

from huggingtweets.posts.reading.by_handle import Said, has_bad_bytes, iter_lines, open_text
from huggingtweets.posts.reading.chats import refuse_text_chat
from huggingtweets.posts.reading.gather import Row, gather
from huggingtweets.posts.reading.timeline import Skip
from huggingtweets.posts.reading.who import Asked
from huggingtweets.posts.records import Timeline

SUFFIXES = (".txt", ".text")
_MAX_LINE_CHARS = 1 << 20
_DIVIDED = re.compile(r"<\|(?:start|end)oftext\|>|\0")
"""What stands between posts in files for training GPT-2; NUL in lists that programs pass on."""
_LOOKED_AT_CHARS = 1 << 16


def read_text(path: Path, asked: Asked) -> Timeline:
    """Read the posts of one person; all lines are theirs. The order stays, newest first by custom.

    Raises:
        SourceError: nothing can be read, or it is a chat.
    """
    said = Said(asked.config.encoding)
    with open_text(path, said, newline=None) as stream:
        is_one_person = asked.config.user_column == ""
        lines = stream.read(_LOOKED_AT_CHARS).split("\n")
        refuse_text_chat(path.name, lines, asked.handle, is_one_person=is_one_person)
    said.damage.clear()  # it comes again

    def found() -> Iterator[Row | Skip]:
        with open_text(path, said, newline=None) as stream:
            for number, line in iter_lines(stream, _MAX_LINE_CHARS):
                if line is None:
                    yield Skip(f"a line of more than {_MAX_LINE_CHARS} characters", number)
                elif has_bad_bytes(line):
                    yield Skip("not UTF-8", number)
                else:
                    parts = (part.strip("\ufeff\n") for part in _DIVIDED.split(line))
                    yield from (Row({"text": part}, number) for part in parts if part.strip())

    return gather(asked, found(), said)
