"""CSV and TSV with a header line: one post per row."""

import csv
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import Said, has_bad_bytes, iter_lines, open_text
from huggingtweets.posts.reading.flat import roles_of
from huggingtweets.posts.reading.gather import Row, check_columns, gather
from huggingtweets.posts.reading.names import words_of
from huggingtweets.posts.reading.timeline import Skip, parse_date
from huggingtweets.posts.reading.who import Asked
from huggingtweets.posts.records import Timeline

SUFFIXES = (".csv", ".tsv")
_MAX_LINE_CHARS = 1 << 20
_MAX_COLUMNS = 1000
_MAX_ROW_LINES = 500
"""A post has at most 25,000 characters; a quote that stays open for longer never closes."""
_SEPARATORS = ",;\t|"

Lines = Iterator[tuple[int, str | None]]


def read_csv(path: Path, asked: Asked) -> Timeline:
    """Read the posts of one person. The header's most frequent of `, ; tab |` separates.

    Raises:
        SourceError: nothing of this person can be read.
    """
    said = Said(asked.config.encoding)
    with open_text(path, said, newline="") as stream:
        asked = _for_one_column(asked, iter_lines(stream, _MAX_LINE_CHARS))
    said.damage.clear()  # it comes again

    def found() -> Iterator[Row | Skip]:
        with open_text(path, said, newline="") as stream:
            yield from csv_rows(iter_lines(stream, _MAX_LINE_CHARS), path.name, said.notes)

    return gather(asked, found(), said)


def _for_one_column(asked: Asked, lines: Lines) -> Asked:
    """Take the only column of a file for its text, whatever it is called."""
    if asked.config.text_column is not None:
        return asked
    _, header, _ = _header(lines, asked.where)
    if len(header) > 1:
        check_columns(header, asked.config, asked.where)
    if len(header) != 1 or "json" in words_of(header[0]):  # whole posts
        return asked
    return replace(asked, config=replace(asked.config, text_column=header[0] or None))


def _header(lines: Lines, where: str) -> tuple[str, list[str], tuple[int, str] | None]:
    """Return separator, column names, and the line with them where it is a row itself."""
    separator = ""
    for number, line in lines:
        if not line or not line.strip():
            continue
        words = line.lstrip("\ufeff").rstrip("\r\n")
        if words[:4].lower() == "sep=" and len(words) == 5:
            separator = words[-1]  # Excel's own line
            continue
        separator = separator or max(_SEPARATORS, key=_outside_quotes(line).count)
        try:
            header = next(csv.reader([line.lstrip("\ufeff")], delimiter=separator))
        except csv.Error as err:
            raise SourceError(
                f"{where}: its first line is not a header ({err}); check source="
            ) from err
        if len(header) > _MAX_COLUMNS:
            raise SourceError(f"{where}: got {len(header)} columns; expected posts, one per row")
        if len(header) == 1 and len(header[0].split()) > _MAX_NAME_WORDS:
            return separator, ["text"], (number, line)  # a post: the file has no header
        return separator, header, None
    return ",", [], None


_MAX_NAME_WORDS = 3


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def csv_rows(lines: Lines, where: str, notes: list[str]) -> Iterator[Row | Skip]:
    """Yield the rows of a CSV file, header first, from its numbered lines (None: one too long).

    A quote that opens and swallows other rows is noticed: the row is read without quotes.

    Raises:
        SourceError: the first line is not a header.
    """
    separator, header, first = _header(lines, where)
    if not header:
        return
    rows = _Rows(lines if first is None else _chain(first, lines), separator, header)
    for number, row in rows:
        if isinstance(row, str):
            yield Skip(row, number)
        elif len(row) > len(header):
            yield Skip("more fields than the header has; quote the texts", number)
        elif any(map(has_bad_bytes, row)):
            yield Skip("not UTF-8", number)
        else:
            yield Row(dict(zip_longest(header, row)), number)
    if rows.num_unquoted:
        notes.append(
            f"{where}: {rows.num_unquoted} rows are not CSV (a quote that does not close) and were "
            f"read without quotes (first: line {rows.first_unquoted})"
        )


def _chain(first: tuple[int, str], lines: Lines) -> Lines:
    yield first
    yield from lines


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
            is_open = line.count('"') % 2 == 1
            while is_open and len(taken) <= _MAX_ROW_LINES and (more := self._next()) is not None:
                taken.append((more[0], more[1]))  # type: ignore[arg-type]
                is_open = is_open != ((more[1] or "").count('"') % 2 == 1)
            row = None if is_open else self._parse([text or "" for _, text in taken])
            if row is None and (len(taken) > 1 or is_open):
                self._again.extendleft(reversed(taken[1:]))
                self.num_unquoted += 1
                self.first_unquoted = self.first_unquoted or number
                row = self._without_quotes(line)
            yield (number, row) if row is not None else (number, "not CSV")

    def _parse(self, lines: list[str]) -> list[str] | None:
        """Parse the lines of one row; None where they are several in truth."""
        try:
            rows = list(csv.reader(lines, delimiter=self._separator, strict=len(lines) > 1))
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
            return [field.strip().removeprefix('"') for field in next(rows)]
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
