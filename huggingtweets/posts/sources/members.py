"""The files inside an archive, zip or folder, as openers by name. Nothing is ever extracted."""

import io
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import EXPANSION_FLOOR_BYTES, MAX_EXPANSION, show

Members = dict[str, Callable[[], IO[bytes]]]
"""Openers by POSIX name relative to the archive's root; only names that were asked for."""

MAX_MEMBERS = 2_000_000
MAX_MEMBER_BYTES = 4 << 30
MAX_TOTAL_BYTES = 8 << 30
"""Of the members asked for, unpacked."""
_LOCAL_HEADER_BYTES = 30
_ZIP_ERRORS = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OverflowError, EOFError,
    OSError, struct.error,
)  # fmt: skip
"""What `zipfile` raises over a damaged file, unwrapped."""
_MAX_FOLDER_DEPTH = 4


@contextmanager
def open_members(path: Path, wanted: re.Pattern[str]) -> Iterator[Members]:
    """Open a zip or a folder and give the members whose whole name matches `wanted`.

    Raises:
        SourceError: it is not a zip, or one that no honest program writes: overlapping members,
            names that leave the folder, links, encryption, sizes that only a bomb has.
    """
    if path.is_dir():
        yield _folder_members(path, wanted)
        return
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as err:
        raise _unreadable(path, err) from err
    with archive:
        yield _zip_members(archive, path, wanted)


def _unreadable(path: Path, err: Exception) -> SourceError:
    return SourceError(
        f"{path}: cannot be read as a zip ({show(str(err), 120)}); "
        "expected an archive as X hands it out; fetch it again"
    )


def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> IO[bytes]:
    try:
        return archive.open(info)
    except _ZIP_ERRORS as err:
        raise _unreadable(path, err) from err


def _zip_members(archive: zipfile.ZipFile, path: Path, wanted: re.Pattern[str]) -> Members:
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise SourceError(f"{path}: got {len(infos)} members; expected at most {MAX_MEMBERS}")
    ends = _check_layout(archive, infos, path)
    members: Members = {}
    total = 0
    for info in infos:
        name = info.filename.replace("\\", "/")
        _check_name(info, name, path)
        if name.endswith("/") or not wanted.fullmatch(name):
            continue
        if name in members:
            raise SourceError(f"{path}: holds {show(name)} twice; expected each name once")
        _check_member(info, ends[info.header_offset], path)
        total += info.file_size
        members[name] = partial(_open_member, archive, info, path)
    if total > MAX_TOTAL_BYTES:
        raise SourceError(
            f"{path}: got {total >> 20} MiB of posts; expected at most {MAX_TOTAL_BYTES >> 20} MiB"
        )
    return members


def _check_layout(
    archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], path: Path
) -> dict[int, int]:
    """Refuse members that share bytes (CVE-2024-0450), by what the directory says of them.

    Returns: per header offset the end of the space that its member has.
    """
    offsets = sorted({info.header_offset for info in infos})
    ends = dict(pairwise([*offsets, archive.start_dir]))
    spans = (info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size for info in infos)
    overlaps = any(end > ends[info.header_offset] for info, end in zip(infos, spans, strict=True))
    if len(offsets) != len(infos) or overlaps or (offsets and offsets[0] < 0):
        raise SourceError(f"{path}: its members overlap, which only a zip bomb does; refused")
    return ends


def _check_name(info: zipfile.ZipInfo, name: str, path: Path) -> None:
    """Refuse the whole archive for one hostile name: we extract nothing, others will."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise SourceError(f"{path}: holds {show(name)}, a name that leaves its folder; refused")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise SourceError(f"{path}: holds the link {show(name)}; expected plain files; refused")


def _check_member(info: zipfile.ZipInfo, end: int, path: Path) -> None:
    """Refuse a member that we would read but that is not an honest file."""
    name = show(info.filename)
    if info.flag_bits & 1:
        raise SourceError(f"{path}: {name} is encrypted; expected an archive without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SourceError(f"{path}: {name} is packed by method {info.compress_type}; pack it again")
    most = max(EXPANSION_FLOOR_BYTES, info.compress_size * MAX_EXPANSION)
    if info.file_size > min(MAX_MEMBER_BYTES, most):
        raise SourceError(
            f"{path}: {name} unpacks from {info.compress_size} to {info.file_size} bytes; "
            "expected posts; refused as a zip bomb"
        )
    with path.open("rb") as file:  # the local header may be longer than the directory says
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    names_bytes = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if info.header_offset + _LOCAL_HEADER_BYTES + names_bytes + info.compress_size > end:
        raise SourceError(f"{path}: {name} overlaps the next member; refused as a zip bomb")


def _folder_members(root: Path, wanted: re.Pattern[str]) -> Members:
    """Walk an unpacked archive; media folders are not entered, links are refused."""
    members: Members = {}
    for folder, subfolders, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        # In place, as os.walk looks at it; media are tens of thousands of files.
        subfolders[:] = [
            name for name in subfolders if depth < _MAX_FOLDER_DEPTH and not name.endswith("_media")
        ]
        for file in (Path(folder, name) for name in names):
            relative = file.relative_to(root).as_posix()
            if wanted.fullmatch(relative):
                if file.is_symlink() or not file.is_file():
                    raise SourceError(f"{file}: is a link or no plain file; refused")
                members[relative] = partial(io.FileIO, file)  # whoever reads it buffers
    return members
