"""CSV and TSV with a header line: one post a row."""

import csv
from collections.abc import Iterator
from pathlib import Path

from huggingtweets.config.schema import SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.tweets.records import Timeline
from huggingtweets.tweets.sources.posts import Post, Skip, make_timeline
from huggingtweets.tweets.sources.reading import decode, has_bad_bytes, iter_lines, open_bytes
from huggingtweets.tweets.sources.rows import choose_columns, row_to_post

SUFFIXES = (".csv", ".tsv")
_MAX_LINE_CHARS = 1 << 20
_MAX_COLUMNS = 1000


def read_csv(path: Path, handle: str, config: SourceConfig, *, is_of_one_user: bool) -> Timeline:
    """Read the posts of one person. The header's most frequent of `, ; tab |` separates.

    Raises:
        SourceError: nothing of this person can be read.
    """
    damage: list[str] = []

    def found() -> Iterator[Post | Skip]:
        with open_bytes(path, damage) as stream:
            lines = (line for _, line in iter_lines(decode(stream, newline=""), _MAX_LINE_CHARS))
            yield from csv_posts(lines, path.name, config, is_of_one_user=is_of_one_user)
        yield from (Skip(problem) for problem in damage)

    return make_timeline(path.name, handle, found())


def csv_posts(
    lines: Iterator[str | None], where: str, config: SourceConfig, *, is_of_one_user: bool
) -> Iterator[Post | Skip]:
    """Read the rows of a CSV file, header first, from its lines (None: one that was too long).

    Raises:
        SourceError: there is no column of posts.
    """
    header_line = next((line for line in lines if line and line.strip()), None)
    if header_line is None:
        return
    separator = max(",;\t|", key=header_line.count)
    try:
        header = next(csv.reader([header_line], delimiter=separator))
    except csv.Error as err:
        raise SourceError(f"{where}: its first line is no header ({err}); check source=") from err
    if len(header) > _MAX_COLUMNS:
        raise SourceError(f"{where}: got {len(header)} columns; expected posts, one a row")
    columns = choose_columns(header, config, where, is_of_one_user=is_of_one_user)
    rows = csv.reader((line or "\n" for line in lines), delimiter=separator)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as err:  # a field of more than 128 KiB: an unclosed quote
            yield Skip(f"not CSV ({err})", rows.line_num + 1)
            continue
        line = rows.line_num + 1
        if not row:
            continue
        if len(row) > len(header):
            yield Skip("more fields than the header has; quote the texts", line)
        elif any(has_bad_bytes(field) for field in row):
            yield Skip("not UTF-8", line)
        else:
            yield row_to_post(dict(zip(header, row, strict=False)), columns, line)
