"""Files found by handle, opened with limits."""

import gzip
import io
from pathlib import Path

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading import by_handle as reading
from huggingtweets.posts.reading.by_handle import (
    decode,
    find_user_file,
    has_bad_bytes,
    iter_lines,
    nearest,
    open_bytes,
    show,
    user_of,
)


def read_all(path: Path) -> tuple[str, list[str]]:
    damage: list[str] = []
    with open_bytes(path, damage) as stream:
        return decode(stream).read(), damage


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("NASA.jsonl", "NASA"),
        ("NASA.jsonl.gz", "NASA"),
        ("alice.bsky.social.JSON", "alice.bsky.social"),
        ("NASA.csv", None),
        (".jsonl", ""),
    ],
)
def test_user_of(name: str, user: str | None) -> None:
    assert user_of(Path(name), (".jsonl", ".json")) == user


@pytest.mark.parametrize("name", ["NASA.jsonl", "nasa.jsonl.gz", "@Nasa.json", "nAsA.ndjson.gz"])
def test_find_user_file_ignores_case(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "stats.csv").touch()
    assert find_user_file(tmp_path, "nasa", (".jsonl", ".ndjson", ".json")).name == name


def test_find_user_file_names_what_is_there(tmp_path: Path) -> None:
    for name in ("NASA.jsonl", "esa.jsonl.gz", "README.md"):
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=r"user nas; .* files of 2 users, nearest: 'NASA'"):
        find_user_file(tmp_path, "nas", (".jsonl",))


@pytest.mark.parametrize("names", [("nasa.jsonl", "nasa.jsonl.gz"), ("NASA.jsonl", "Nasa.jsonl")])
def test_find_user_file_refuses_to_choose(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match="for user nasa; expected one; remove one"):
        find_user_file(tmp_path, "nasa", (".jsonl",))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_decode_knows_the_encodings_of_windows(tmp_path: Path, encoding: str) -> None:
    text = '{"text": "café 😀"}\r\n'
    (tmp_path / "f").write_bytes(text.encode(encoding))
    assert read_all(tmp_path / "f") == (text, [])


def test_gzip_is_known_by_its_bytes_not_its_name(tmp_path: Path) -> None:
    (tmp_path / "packed.txt").write_bytes(gzip.compress(b"hello"))
    (tmp_path / "plain.gz").write_bytes(b"hello")
    assert read_all(tmp_path / "packed.txt") == read_all(tmp_path / "plain.gz") == ("hello", [])


def test_a_cut_gzip_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    text = "".join(f"line {number * 7919}\n" for number in range(100_000))
    data = gzip.compress(text.encode())
    (tmp_path / "f.gz").write_bytes(data[: len(data) // 2])
    read, damage = read_all(tmp_path / "f.gz")
    assert text.startswith(read)
    assert len(read) > len(text) // 4
    assert len(damage) == 1


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(80 << 20)))
    with pytest.raises(SourceError, match="more than 32 MiB unpacked"):
        read_all(tmp_path / "bomb.gz")


def test_a_plain_file_is_limited_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 1 << 20)
    (tmp_path / "f").write_bytes(bytes(2 << 20))
    with pytest.raises(SourceError, match="more than 1 MiB"):
        read_all(tmp_path / "f")


def test_an_unreadable_file_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Is a directory"), open_bytes(tmp_path, []):
        pass


def test_iter_lines_passes_over_a_line_that_is_too_long() -> None:
    stream = io.StringIO("short\n" + "x" * 1000 + "\nlast")
    assert list(iter_lines(stream, 100)) == [(1, "short\n"), (2, None), (3, "last")]


def test_iter_lines_breaks_only_at_line_feeds(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("a\u2028b\x0bc\x85\rd\ne".encode())
    with open_bytes(tmp_path / "f", []) as stream:
        lines = list(iter_lines(decode(stream)))
    assert lines == [(1, "a\u2028b\x0bc\x85\rd\n"), (2, "e")]


@pytest.mark.parametrize(
    ("data", "is_bad"), [(b"abc", False), ("é😀".encode(), False), (b"caf\xe9", True)]
)
def test_has_bad_bytes(tmp_path: Path, data: bytes, is_bad: bool) -> None:
    (tmp_path / "f").write_bytes(data)
    assert has_bad_bytes(read_all(tmp_path / "f")[0]) is is_bad


def test_names_in_messages_cannot_disguise_themselves() -> None:
    assert show("a\u202eb\n") == "'a\\u202eb\\n'"
    assert len(show("x" * 500)) < 70
    assert nearest("bob", ["b\x1bob", "zoe"]) == ", nearest: 'b\\x1bob'"
    assert nearest("bob", []) == ""
