"""The files inside an archive: what is read, and what is refused before anything is read."""

import io
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.sources import members
from huggingtweets.posts.sources.members import open_members

ZipMaker = Callable[..., Path]
JS = re.compile(r".*\.js")


def names_in(path: Path) -> list[str]:
    with open_members(path, JS) as found:
        return sorted(found)


def test_only_wanted_members_are_given(make_zip: ZipMaker) -> None:
    path = make_zip({"data/a.js": "a", "data/b.txt": "b", "data/c.js/": ""})
    with open_members(path, JS) as found:
        assert {name: opener().read() for name, opener in found.items()} == {"data/a.js": b"a"}


def test_backslashes_of_windows_are_slashes(make_zip: ZipMaker) -> None:
    assert names_in(make_zip({"data\\a.js": "a"})) == ["data/a.js"]


@pytest.mark.parametrize(
    "name",
    ["../a.js", "data/../../a.js", "/etc/a.js", "C:/a.js", "..\\a.js", "\\\\host\\a.js", "x/.."],
)
def test_names_that_leave_the_folder_are_refused(make_zip: ZipMaker, name: str) -> None:
    with pytest.raises(SourceError, match="a name that leaves its folder; refused"):
        names_in(make_zip({"data/tweets.js": "a", name: "b"}))


def test_links_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("data/a.js")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(SourceError, match="holds the link"):
        names_in(tmp_path / "f.zip")


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("data/a.js", "a")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("data/a.js", "b")
    with pytest.raises(SourceError, match=r"'data/a\.js' twice"):
        names_in(tmp_path / "f.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_hungry_methods_are_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "f.zip", "w", method) as archive:
        archive.writestr("data/a.js", "a" * 1000)
    with pytest.raises(SourceError, match="packed by method"):
        names_in(tmp_path / "f.zip")


def test_encryption_is_told(make_zip: ZipMaker) -> None:
    path = make_zip({"data/a.js": "a"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match="encrypted"):
        names_in(path)


def test_a_bomb_is_refused_by_what_it_says(make_zip: ZipMaker) -> None:
    path = make_zip({"data/a.js": bytes(64 << 20)})
    assert path.stat().st_size < 1 << 17
    with pytest.raises(SourceError, match="refused as a zip bomb"):
        names_in(path)


def test_a_bomb_beside_the_posts_is_never_read(make_zip: ZipMaker) -> None:
    assert names_in(make_zip({"data/a.js": "a", "media/big.bin": bytes(64 << 20)})) == ["data/a.js"]


def test_a_bomb_that_lies_about_its_size_gives_only_what_it_said(make_zip: ZipMaker) -> None:
    path = make_zip({"data/a.js": bytes(8 << 20)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(signature) + offset, 1000)
    path.write_bytes(data)
    with open_members(path, JS) as found, found["data/a.js"]() as stream:
        with pytest.raises(zipfile.BadZipFile, match="CRC"):
            stream.read()
        assert stream.tell() <= 1000


def overlapping_zip(num: int, same_offset: bool) -> bytes:
    """Members that share bytes (CVE-2024-0450): all of one, or the first over the next ones."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number in range(num):
            archive.writestr(f"data/{number:03}.js", "x" * 1000)
    data = buffer.getvalue()
    if same_offset:
        first = data.index(b"PK\x01\x02")
        for match in re.finditer(b"PK\x01\x02", data[first:]):
            at = first + match.start()
            data = data[: at + 42] + struct.pack("<I", 0) + data[at + 46 :]
        return data
    at = data.index(b"PK\x01\x02")
    size = len(data[:at])
    sizes = struct.pack("<II", size, size)
    return data[: at + 20] + sizes + data[at + 28 :]


@pytest.mark.parametrize("same_offset", [True, False])
def test_overlapping_members_are_refused(tmp_path: Path, same_offset: bool) -> None:
    (tmp_path / "f.zip").write_bytes(overlapping_zip(5, same_offset))
    with pytest.raises(SourceError, match="members overlap"):
        names_in(tmp_path / "f.zip")


def test_a_member_before_the_file_is_refused(make_zip: ZipMaker) -> None:
    path = make_zip({"data/a.js": "a"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x05\x06") + 16  # where the directory is said to begin: further on
    struct.pack_into("<I", data, at, struct.unpack_from("<I", data, at)[0] + 1000)
    path.write_bytes(data)
    with pytest.raises(SourceError, match="members overlap"):
        names_in(path)


def test_a_member_without_a_name_is_nothing(make_zip: ZipMaker) -> None:
    path = make_zip({"data/a.js": "a", "x": "b"})
    path.write_bytes(path.read_bytes().replace(b"x", b"\0"))  # zipfile ends a name there
    assert names_in(path) == ["data/a.js"]


def test_a_local_header_that_grows_into_the_next_member_is_refused(make_zip: ZipMaker) -> None:
    path = make_zip({"data/a.js": "a" * 500, "data/b.js": "b" * 500})
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, 28, 5)  # the extra field of the first member
    path.write_bytes(data)
    with pytest.raises(SourceError, match="overlaps the next member"):
        names_in(path)


def test_limits_on_number_and_total(make_zip: ZipMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip({f"data/{number}.js": "x" * 100 for number in range(10)})
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 900)
    with pytest.raises(SourceError, match="MiB of posts"):
        names_in(path)
    monkeypatch.setattr(members, "MAX_MEMBERS", 9)
    with pytest.raises(SourceError, match="got 10 members"):
        names_in(path)


def test_what_is_no_zip_is_one_sentence(tmp_path: Path) -> None:
    for data in (b"", b"PK", b"PK\x05\x06" + bytes(18), b"not a zip" * 100):
        (tmp_path / "f.zip").write_bytes(data)
        if data.startswith(b"PK\x05"):
            assert names_in(tmp_path / "f.zip") == []
            continue
        with pytest.raises(SourceError, match="cannot be read as a zip"):
            names_in(tmp_path / "f.zip")


def test_a_folder_gives_the_same_names(tmp_path: Path) -> None:
    for name in ("data/a.js", "data/tweets_media/b.js", "top/data/js/tweets/c.js", "d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names_in(tmp_path) == ["data/a.js", "top/data/js/tweets/c.js"]


def test_links_and_pipes_in_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "data" / "a.js"
    link.symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match="is a link or no plain file"):
        names_in(tmp_path)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(SourceError, match="is a link or no plain file"):
        names_in(tmp_path)
