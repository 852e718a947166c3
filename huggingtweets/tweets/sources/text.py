"""Plain text: one post a line, blank lines skipped."""

from collections.abc import Iterator
from pathlib import Path

from huggingtweets.tweets.records import Timeline
from huggingtweets.tweets.sources.posts import Post, Skip, make_timeline
from huggingtweets.tweets.sources.reading import decode, has_bad_bytes, iter_lines, open_bytes

SUFFIXES = (".txt", ".text")
_MAX_LINE_CHARS = 1 << 20


def read_text(path: Path, handle: str) -> Timeline:
    """Read the posts of one person; all lines are theirs. The order stays, newest first by custom.

    Raises:
        SourceError: nothing can be read.
    """
    damage: list[str] = []

    def found() -> Iterator[Post | Skip]:
        with open_bytes(path, damage) as stream:
            for number, line in iter_lines(decode(stream, newline=None), _MAX_LINE_CHARS):
                if line is None:
                    yield Skip(f"a line of more than {_MAX_LINE_CHARS} characters", number)
                elif has_bad_bytes(line):
                    yield Skip("not UTF-8", number)
                elif line.strip():
                    yield Post(line.strip("\ufeff\n"))
        yield from (Skip(problem) for problem in damage)

    return make_timeline(path.name, handle, found())
