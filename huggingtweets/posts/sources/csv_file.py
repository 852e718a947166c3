"""CSV and TSV with a header line: one post per row."""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise, zip_longest
from pathlib import Path

from huggingtweets.config.posts_schema import SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import (
    Lines,
    Said,
    has_bad_bytes,
    iter_lines,
    look_ahead,
    open_text,
)
from huggingtweets.posts.reading.chats import refuse_page
from huggingtweets.posts.reading.flat import MAX_NAME_WORDS, are_columns, roles_of
from huggingtweets.posts.reading.gather import Row, check_columns, is_only_column
from huggingtweets.posts.reading.timeline import Skip, parse_date
from huggingtweets.posts.reading.who import Asked

SUFFIXES = (".csv", ".tsv")
_MAX_LINE_CHARS = 1 << 20
_MAX_COLUMNS = 1000
_MAX_ROW_LINES = 500
"""A post has at most 25,000 characters; a quote that stays open for longer never closes."""
_SEPARATORS = ",;\t|"
_LOOKED_AT_CHARS = 1 << 18
_MAX_TITLE_LINES = 10
"""Above the names of the columns, as in reports."""


def read_csv(path: Path, asked: Asked, said: Said) -> Iterator[Row | Skip]:
    """Yield the rows. The header's most frequent of `, ; tab |` separates.

    Raises:
        SourceError: the first line is not a header, or none of its columns may hold posts.
    """
    with open_text(path, said, newline="") as stream:
        lines = iter_lines(stream, _MAX_LINE_CHARS)
        yield from csv_rows(lines, path.name, said, asked.config)


def _header(
    head: Sequence[tuple[int, str | None]], where: str, told: str | None = None
) -> tuple[str, list[str], int]:
    """Return separator, column names, and the place in `head` where the rows begin.

    Args:
        head: the first lines.
        where: the file, for messages.
        told: the column of texts, as configured.

    Raises:
        SourceError: the first line is neither a header nor above one.
    """
    lines = [(place, line.lstrip("\ufeff")) for place, (_, line) in enumerate(head) if line]
    lines = [(place, line) for place, line in lines if line.strip()]
    excels = ""
    if lines and re.fullmatch(r"(?i)sep=.\s*", lines[0][1]):
        excels = lines.pop(0)[1][4]
    rows = [
        (place, separator, _split(line, separator))
        for place, line in lines[: _MAX_TITLE_LINES + 1]
        for separator in (excels or max(_SEPARATORS, key=_outside_quotes(line).count),)
    ]
    if not rows:
        return ",", [], 0
    place, separator, names = rows[0]
    refuse_page(where, lines[0][1])
    if not names:
        raise SourceError(f"{where}: its first line is not a header; check source=")
    if len(names) > _MAX_COLUMNS:
        raise SourceError(f"{where}: got {len(names)} columns; expected posts, one per row")

    def is_header(row: list[str]) -> bool:
        return are_columns(row) if told is None else told in row

    if not is_header(names):
        num_filled = len([name for name in names if name.strip()])  # a title is narrower
        for (below, its, others), (_, _, next_) in pairwise(rows):
            if num_filled < len(others) == len(next_) and is_header(others):
                return its, others, below + 1
    if len(names) == 1 and len(names[0].split()) > MAX_NAME_WORDS:
        return separator, ["text"], place  # a post: the file has no header
    return separator, names, place + 1


def _split(line: str, separator: str) -> list[str]:
    """Return the fields of a line; none where it is not CSV."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def csv_rows(
    lines: Lines, where: str, said: Said, config: SourceConfig | None = None
) -> Iterator[Row | Skip]:
    """Yield the rows of a CSV file, header first, from its numbered lines (None: one too long).

    A quote that opens and swallows other rows is noticed: the row is read without quotes.

    Raises:
        SourceError: the first line is not a header, or none of its columns may hold posts.
    """
    head = look_ahead(lines, _LOOKED_AT_CHARS)
    told = config.text_column if config else None
    separator, header, start = _header(head, where, told)
    if not header:
        return
    if config and len(header) > 1:
        check_columns(header, config, where)
    if is_only_column(header, config or SourceConfig()):
        said.only_column, header = header[0], ["text"]
    above = [line for _, line in head[: max(0, start - 1)] if line and not _SEP.match(line)]
    if any(line.strip(f"{_SEPARATORS}\ufeff\r\n ") for line in above):
        said.notes.append(
            f"{where}: the names of the columns are in line {start}; those above left out"
        )
    lines = chain(head[start:], lines)
    rows = _Rows(_plain(lines) if _has_backslashes(head) else lines, separator, header)
    for number, row in rows:
        if isinstance(row, str):
            yield Skip(row, number)
        elif len(row) > len(header):
            yield Skip("more fields than the header has; quote the texts", number)
        elif any(map(has_bad_bytes, row)):
            yield Skip("not UTF-8", number)
        else:
            fields = dict(zip_longest(header, row))
            if share := fields.get(_LINKEDINS):
                fields[_LINKEDINS] = _LINKEDIN_BREAK.sub("\n", share)
            yield Row(fields, number)
    if rows.num_unquoted:
        said.notes.append(
            f"{where}: {rows.num_unquoted} rows are not CSV (a quote that does not close) and were "
            f"read without quotes (first: line {rows.first_unquoted})"
        )


_SEP = re.compile(r"\ufeff?(?i:sep)=.\s*$")
"""How Excel is told what separates columns."""
_LINKEDINS = "ShareCommentary"
_LINKEDIN_BREAK = re.compile(r'"(?:\r?\n")+(?!\r?\n)|\r?\n(?:"\r?\n)+')
"""LinkedIn writes each end of a line within quotation marks of its own."""


def _has_backslashes(head: Sequence[tuple[int, str | None]]) -> bool:
    r"""Whether quotation marks in texts are written `\"`, as MySQL does, never `""`."""
    text = "".join(line or "" for _, line in head)
    inside = re.findall(r'\\"(?=[^,;\t|\r\n"])', text)
    doubled = re.search(r'[^,;\t|\r\n]""|""[^,;\t|\r\n]', text.replace('\\"', ""))
    return len(inside) > 1 and doubled is None


def _plain(lines: Lines) -> Lines:
    """Write quotation marks in texts twice instead."""
    for number, line in lines:
        yield (number, line and re.sub(r'\\(["\\])', lambda m: '""' if m[1] == '"' else m[1], line))


class _Rows:
    """Puts lines together to rows: a row goes on while its quotes are open."""

    def __init__(self, lines: Lines, separator: str, header: list[str]) -> None:
        self._lines = lines
        self._again: deque[tuple[int, str | None]] = deque()
        self._separator = separator
        self._num_columns = len(header)
        self._looks_alike = _tests_of(header)
        self.num_unquoted = 0
        self.first_unquoted = 0

    def _next(self) -> tuple[int, str | None] | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def __iter__(self) -> Iterator[tuple[int, list[str] | str]]:
        while (item := self._next()) is not None:
            number, line = item
            if line is None:
                yield number, f"a line of more than {_MAX_LINE_CHARS} characters"
                continue
            if not line.strip("\r\n"):
                continue
            taken = [(number, line)]
            # csv.reader alone would swallow the rest of the file behind one lost quotation mark.
            is_open = line.count('"') % 2 == 1
            while is_open and len(taken) <= _MAX_ROW_LINES and (more := self._next()) is not None:
                taken.append((more[0], more[1]))  # type: ignore[arg-type]
                is_open = is_open != ((more[1] or "").count('"') % 2 == 1)
            row = None if is_open else self._parse([text or "" for _, text in taken])
            if row is None:
                self._again.extendleft(reversed(taken[1:]))
                self.num_unquoted += 1
                self.first_unquoted = self.first_unquoted or number
                row = self._without_quotes(line)
            yield (number, row) if row is not None else (number, "not CSV")

    def _parse(self, lines: list[str]) -> list[str] | None:
        """Parse the lines of one row; None where they are several in truth."""
        try:
            is_strict = len(lines) > 1 or self._separator == "\t"  # needs no quotes
            rows = list(csv.reader(lines, delimiter=self._separator, strict=is_strict))
        except csv.Error:
            return None
        if len(rows) != 1:
            return None
        own = lines[0].rstrip("\r\n").split(self._separator)
        if any(self._is_row(line, own, number) for number, line in enumerate(lines[1:], start=1)):
            return None
        return rows[0]

    def _is_row(self, line: str, own: list[str], number: int) -> bool:
        """Whether a line inside of a quoted text looks like a row: the `number`-th after its own.

        Its numbers are as long as those of the row, or, where they are short, count on.
        """
        fields = line.rstrip("\r\n").split(self._separator)
        if not self._looks_alike or len(fields) < self._num_columns:
            return False
        pairs = [
            (own[index].strip('" '), fields[index].strip('" '), test)
            for index, test in self._looks_alike
            if index < len(own)
        ]
        return all(test(theirs) and _follows(mine, theirs, number) for mine, theirs, test in pairs)

    def _without_quotes(self, line: str) -> list[str] | None:
        try:
            rows = csv.reader(
                [line.rstrip("\r\n")], delimiter=self._separator, quoting=csv.QUOTE_NONE
            )
            fields = [field.strip() for field in next(rows)]
            return [one.removeprefix('"') if one.count('"') % 2 else one for one in fields]
        except (csv.Error, StopIteration):
            return None


def _follows(mine: str, theirs: str, number: int) -> bool:
    if not mine.isdecimal() or not theirs.isdecimal():
        return True
    if len(mine) < _ID_DIGITS:
        return len(theirs) < _ID_DIGITS and abs(int(theirs) - int(mine)) == number
    return abs(len(theirs) - len(mine)) <= 1


_ID_DIGITS = 5
"""Fewer are the number of a row."""


def _tests_of(header: list[str]) -> list[tuple[int, Callable[[str], bool]]]:
    """Return by which leading columns a line is known as a row: numbers and dates."""
    tests: list[tuple[int, Callable[[str], bool]]] = []
    for index, name in enumerate(header):
        roles = roles_of(name)
        if roles.text is not None:
            break  # what follows it may be shifted
        if roles.id is not None:
            tests.append((index, lambda text: text.isdecimal()))
        elif roles.date is not None:
            tests.append((index, lambda text: parse_date(text) is not None))
    return tests
