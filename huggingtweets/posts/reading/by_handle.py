"""Files found by handle and read with limits. Nothing here knows what a post is."""

import codecs
import difflib
import gzip
import io
import json
import os
import re
import shlex
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TextIO

from huggingtweets.errors import SourceError

MAX_FILE_BYTES = 8 << 30
"""Of one file, unpacked."""
MAX_LINE_CHARS = 16 << 20
MAX_DOCUMENT_CHARS = 64 << 20
"""Of one JSON object with a list of posts in it; parsed it takes some ten times as much memory."""
MAX_EXPANSION = 200
"""Bytes out of one byte in; posts pack 5 to 20 times."""
EXPANSION_FLOOR_BYTES = 32 << 20
"""Up to here the expansion is not looked at."""
_GZIP = b"\x1f\x8b"
_MAX_COMPARED_NAMES = 20_000


def show(text: str, limit: int = 60) -> str:
    """Quote text from outside for a message: short, ASCII, unable to disguise itself."""
    return ascii(text if len(text) <= limit else text[: limit - 3] + "...")


def quoted(text: str) -> str:
    """Return text from outside as a value to type after `KEY=`."""
    return shlex.quote(text) if text.isprintable() else show(text)


def name_key(name: str) -> str:
    """Return the form in which handles are compared: `@NASA` is `nasa`."""
    return name.strip().removeprefix("@").replace("@", ".", 1).lower()


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `, nearest: 'a', 'b'` to append to a message; empty where there are no names."""
    by_key = {one.lower(): one for one in sorted(names)[:_MAX_COMPARED_NAMES]}
    keys = difflib.get_close_matches(name.lower(), by_key, 3, 0.5) or list(by_key)[:5]
    close = [by_key[key] for key in keys]
    return f", nearest: {', '.join(show(one) for one in close)}" if close else ""


def user_of(path: Path, suffixes: Sequence[str]) -> str | None:
    """Return the name a file is called by, without suffix: `NASA` of `NASA.jsonl.gz`.

    None where the suffix is not one of these.
    """
    name = path.name.removesuffix(".gz")
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return None


def find_user_file(folder: Path, handle: str, suffixes: Sequence[str]) -> Path:
    """Find the one file of a user in a folder, whatever the case of its name.

    Raises:
        SourceError: there is none, or more than one.
    """
    # By name first: a folder may hold the files of ten thousand people.
    endings = [suffix + packed for suffix in suffixes for packed in ("", ".gz")]
    hits = [folder / (handle + end) for end in endings if (folder / (handle + end)).is_file()]
    if not hits:
        users = {path: user_of(path, suffixes) for path in list_folder(folder)}
        hits = sorted(path for path, user in users.items() if user and name_key(user) == handle)
        if not hits:
            there = {user for user in users.values() if user}
            raise SourceError(
                f"{folder}: got no file of user {handle}; expected {handle}{endings[0]} or the "
                f"like; there are files of {len(there)} users{nearest(handle, there)}"
            )
    if len(hits) > 1:
        names = " and ".join(show(path.name) for path in hits[:2])
        raise SourceError(f"{folder}: got {names} for user {handle}; expected one; remove one")
    return hits[0]


def list_folder(folder: Path) -> list[Path]:
    """Return what stands directly in a folder.

    Raises:
        SourceError: it cannot be listed.
    """
    try:
        return [folder / name for name in os.listdir(folder)]  # noqa: PTH208, one call, no stat
    except OSError as err:
        raise SourceError(f"{folder}: cannot be listed ({err.strerror})") from err


class _Limited(io.RawIOBase):
    """A byte stream that ends at damage and refuses to grow past its limits."""

    def __init__(self, raw: IO[bytes], where: str, packed_bytes: int | None, damage: list[str]):
        self._raw = raw
        self._where = where
        self._limit = MAX_FILE_BYTES
        if packed_bytes is not None:
            most = max(EXPANSION_FLOOR_BYTES, packed_bytes * MAX_EXPANSION)
            self._limit = min(self._limit, most)
        self._damage = damage
        self._count = 0
        self._is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        num = 0
        # Not `read`: at the end of a file that is cut `GzipFile` throws away what it had unpacked.
        read = getattr(self._raw, "read1", self._raw.read)
        try:
            while not self._is_over and (data := read(len(buffer) - num)):
                buffer[num : num + len(data)] = data
                num += len(data)
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as err:
            self._damage.append(f"the file is cut off or damaged ({err})")
            self._is_over = True
            # What comes before a wrong byte may be wrong itself; before the end, or before what is
            # no gzip behind it, it is right.
            if not (isinstance(err, EOFError) or "Not a gzipped file" in str(err)):
                return 0
        self._count += num
        if self._count > self._limit:
            raise SourceError(
                f"{self._where}: got more than {self._limit >> 20} MiB unpacked; expected posts; "
                "this is not a file of posts, or split it"
            )
        return num


def guard(
    raw: IO[bytes], where: str, packed_bytes: int | None, damage: list[str]
) -> io.BufferedReader:
    """Wrap a byte stream: damage ends it early and is added to `damage`; growth is limited.

    Args:
        raw: what to read; stays the caller's to close.
        where: the file, for messages.
        packed_bytes: size it unpacks from; None: it is not packed.
        damage: grows by a sentence where the stream ends early.
    """
    return io.BufferedReader(_Limited(raw, where, packed_bytes, damage), 1 << 18)


@contextmanager
def open_bytes(path: Path, damage: list[str]) -> Iterator[io.BufferedReader]:
    """Open a file, unpacked if gzip'd. Damage ends the stream early and is added to `damage`.

    Raises:
        SourceError: it cannot be read, or unpacks to far too much.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == _GZIP
            file.seek(0)
            size = os.fstat(file.fileno()).st_size
            unpacked: IO[bytes] = gzip.GzipFile(fileobj=file) if is_packed else file  # type: ignore[assignment]
            yield guard(unpacked, path.name, size if is_packed else None, damage)
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror or err})") from err


def decode(
    stream: io.BufferedReader, encoding: str | None = None, *, newline: str | None = "\n"
) -> TextIO:
    """Read bytes as text: as told, or as UTF-8, or UTF-16 and UTF-32 where the first bytes say so.

    Bytes that are not UTF-8 become lone surrogates, by which a line with them is known.
    """
    encoding = encoding or guess_unicode(stream.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES])
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    return io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline=newline)


def guess_unicode(sample: bytes) -> str:
    """Tell UTF-16 and UTF-32 by their mark, or by the zeros of every second byte; else UTF-8."""
    encoding = json.detect_encoding(sample[:4])
    even, odd = sample[0::2], sample[1::2]
    # ASCII letters in UTF-16 have a zero in every second byte; UTF-8 has none.
    if encoding == "utf-8" and len(sample) > 8:
        if odd.count(0) > len(odd) / 3 and not even.count(0):
            return "utf-16-le"
        if even.count(0) > len(even) / 3 and not odd.count(0):
            return "utf-16-be"
    return encoding


@dataclass
class Said:
    """What is found out about a file while it is read."""

    encoding: str | None = None
    """As configured, then as found; None: not known yet."""
    notes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    only_column: str = ""
    """What the one column of a table is called; it is read as `text`."""


@contextmanager
def open_text(path: Path, said: "Said", *, newline: str | None = "\n") -> Iterator[TextIO]:
    """Open a file of text, its encoding told or plain to see. The one way from bytes to text.

    Args:
        path: the file, gzip'd or not.
        said: with the encoding as configured; grows by what is found out, and by damage.
        newline: as for `open`.

    Raises:
        SourceError: it cannot be read, or is in more than one encoding, or in one unknown.
    """
    # Opened anew for each look: gzip goes back to the beginning no faster.
    with open_bytes(path, []) as stream:
        head = stream.peek(_SAMPLE_BYTES)
    kind = next((kind for sign, kind in _NO_TEXT.items() if head.startswith(sign)), None)
    if kind is not None:
        raise SourceError(
            f"{path.name}: got {kind}; expected text; save or unpack it as CSV, JSON or plain text"
        )
    if said.encoding is None:
        with open_bytes(path, []) as stream:
            said.encoding = find_encoding(stream, path.name)
        if said.encoding is not None:
            said.notes.append(f"{path.name}: read as {said.encoding}, since it is not UTF-8")
    elif codecs.lookup(said.encoding).name in ("utf-16", "utf-32"):
        said.encoding = _with_order(head, said.encoding, path.name)
    with open_bytes(path, said.damage) as stream:
        text = decode(stream, said.encoding, newline=newline)
        said.encoding = text.encoding
        yield text


def _with_order(head: bytes, encoding: str, where: str) -> str:
    """Return which UTF-16 or UTF-32 it is: Python reads neither without the mark that begins it.

    Raises:
        SourceError: nothing in the file says so.
    """
    found = guess_unicode(head[:_SAMPLE_BYTES])
    family = codecs.lookup(encoding).name
    if not found.startswith(family):
        raise SourceError(
            f"{where}: got source.encoding={encoding} and no mark of it at the beginning; expected "
            f"one; set source.encoding={family}-le or {family}-be, or leave it out if all is UTF-8"
        )
    return found


_SAMPLE_BYTES = 4096
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive or a file of Excel",
    b"\xd0\xcf\x11\xe0": "a file of Excel or Word",
    b"SQLite format 3": "a database of SQLite",
    b"%PDF": "a PDF",
    b"{\\rtf": "a file of RTF",
    b"BZh9": "a file packed by bzip2",
    b"\xfd7zXZ": "a file packed by xz",
    b"\x28\xb5\x2f\xfd": "a file packed by zstd",
    b"7z\xbc\xaf": "an archive of 7-Zip",
    b"Rar!\x1a": "an archive of RAR",
    b"PAR1": "a Parquet file, which is source=parquet",
    b"ARROW1\0": "a file of Arrow",
    b"\x80\x04\x95": "a pickle of Python",
    b"\x89PNG": "a picture",
}
"""First bytes of what people give that is no text."""
_MAX_BAD_LINES = 2000
_JIS = (b"\x1b$B", b"\x1b$@")
"""ISO-2022-JP, in which Japanese mail is written, changes to kanji so."""
_FEW_LINES = 2
"""This many lines that are not UTF-8 are damage, and skipped."""
_LINE_END, _VALUE_END = re.compile(rb"\n"), re.compile(rb'\n|"[,}\]]')
"""A list in JSON may stand on one line."""
_LETTERS_OF_1252 = frozenset(
    "éèêëàâäáãåæçíìîïñóòôöõøœúùûüßÿÉÈÊÀÂÄÁÃÅÆÇÍÎÑÓÔÖÕØÚÜ’‘“”„–—…€°«»¿¡´·•§ªº£©®™"
)


def find_encoding(stream: io.BufferedReader, where: str) -> str | None:
    """Tell from the whole file whether it is in an encoding of Windows; None: read it as Unicode.

    Lines that are not UTF-8 speak for cp1252 where no other line is in UTF-8 beyond ASCII, and the
    signs they would have are ones that Western languages put between ASCII letters.

    Raises:
        SourceError: nobody can tell.
    """
    sample = stream.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES]
    if guess_unicode(sample) != "utf-8":
        return None
    if sample.isascii() and any(sign in sample for sign in _JIS):
        return "iso2022_jp"
    bad: list[bytes] = []
    num_bad = num_good = num_lines = 0
    divider = _LINE_END if sample.count(b"\n") > _FEW_LINES else _VALUE_END
    while data := stream.read(1 << 20):
        data += stream.readline(1 << 20)  # whole lines: no sign is cut in two
        every = divider.split(data)
        num_lines += len(every)
        if data.isascii():
            continue
        lines = [line for line in every if not line.isascii()]
        if _is_utf8(data):
            num_good += len(lines)
            continue
        wrong = [line for line in lines if not _is_utf8(line)]
        num_bad += len(wrong)
        num_good += len(lines) - len(wrong)
        bad += wrong[: _MAX_BAD_LINES - len(bad)]
    if num_bad <= _FEW_LINES or any(b"\0" in line for line in bad):
        return None
    if num_good == 0 and _looks_western(bad):
        return "cp1252"
    if num_bad < 0.01 * num_lines:
        return None
    raise SourceError(
        f"{where}: got {num_bad} lines that are not UTF-8"
        + (f" beside {num_good} that are" if num_good else "")
        + "; expected one encoding throughout; set source.encoding= to it, such as cp1252 "
        "(Windows, Western Europe), mac_roman, cp1251 (Cyrillic), shift_jis, or save it as UTF-8"
    )


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _looks_western(lines: Iterable[bytes]) -> bool:
    text = "\n".join(line.decode("cp1252", "replace") for line in lines)
    signs = [(before, char) for before, char in pairwise(" " + text) if not char.isascii()]
    # Old Macs have quotation marks where Windows has capitals (`it’s` becomes `itÕs`), and letters
    # where it has dashes (`mañana`, `ma–ana`).
    usual = sum(
        char in _LETTERS_OF_1252 and not (char.isupper() and before.islower())
        for before, char in signs
    ) - len(re.findall("(?<=[a-z])[–—](?=[a-z])", text))
    alone = sum(before.isascii() for before, _ in signs)
    letters = sum(char.isalpha() for char in text)
    return usual >= 0.9 * len(signs) and alone >= 0.7 * len(signs) and len(signs) < 0.5 * letters


def has_bad_bytes(text: str) -> bool:
    """Whether `decode` met bytes here that are not UTF-8."""
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


Lines = Iterator[tuple[int, str | None]]
"""Number (from 1) and text of each line; None for a line that is too long."""


def iter_lines(stream: TextIO, max_chars: int = MAX_LINE_CHARS) -> Lines:
    """Yield the lines of a text."""
    number = 0
    while line := stream.readline(max_chars):
        number += 1
        if len(line) < max_chars or line.endswith(("\n", "\r")):
            yield number, line
            continue
        while (rest := stream.readline(max_chars)) and not rest.endswith(("\n", "\r")):
            pass
        yield number, None


def look_ahead(lines: Lines, num_chars: int) -> list[tuple[int, str | None]]:
    """Take lines from the beginning until they have more characters than this."""
    head = []
    for number, line in lines:
        head.append((number, line))
        num_chars -= len(line or "")
        if num_chars < 0:
            break
    return head
