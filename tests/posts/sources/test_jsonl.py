"""JSON Lines and other JSON files."""

import csv
import gzip
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.records import Post, Timeline, write_timelines

Load = Callable[..., Timeline]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_file(*lines: object, name: str = "posts.jsonl") -> Path:
        path = tmp_path / name
        texts = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        path.write_bytes(b"\n".join(texts) + b"\n")
        return path

    return write_file


def texts(timeline: Timeline) -> list[str]:
    return [post.text for post in timeline.posts]


@pytest.mark.parametrize(
    "every",
    [pytest.param(6, id="every sixth"), pytest.param(1, id="all", marks=pytest.mark.slow)],
)
def test_real_accounts_come_as_they_are(shared: Path, load: Load, every: int) -> None:
    with (shared / "tweets" / "stats.csv").open(encoding="utf-8") as file:
        for row in list(csv.DictReader(file))[::every]:
            timeline = load("jsonl", shared / "tweets", row["account"].lower())
            flags = [
                post.text.startswith("RT @") if post.is_retweet is None else post.is_retweet
                for post in timeline.posts
            ]
            assert len(timeline.posts) == int(row["downloaded"]), row["account"]
            assert sum(flags) == int(row["retweets"]), row["account"]
            assert timeline.notes == ()


def test_nothing_of_a_real_account_is_changed(
    load: Load, shared: Path, read_account: Callable[[str], Timeline]
) -> None:
    timeline = load("jsonl", shared / "tweets", "mustafaag")
    assert timeline.posts == read_account("MustafaAG").posts


def test_only_the_file_of_the_user_is_opened(tmp_path: Path, load: Load) -> None:
    (tmp_path / "NASA.jsonl").write_text('{"text": "one small step"}\n')
    (tmp_path / "esa.jsonl").symlink_to("/nowhere")
    (tmp_path / "jaxa.jsonl.gz").write_bytes(b"\x1f\x8b no gzip")
    assert texts(load("jsonl", tmp_path, "nasa")) == ["one small step"]


def test_a_file_of_many_users_gives_one(write: Callable[..., Path], load: Load) -> None:
    path = write(
        {"user": "NASA", "text": "a", "id": 1},
        {"user": "esa", "text": "b", "id": 2},
        {"user": "@nasa", "text": "c", "id": 3},
        {"text": "whose?", "user": None},
    )
    timeline = load("jsonl", path, "nasa")
    assert texts(timeline) == ["c", "a"]
    assert timeline.notes == (
        "posts.jsonl: 1 skipped: no user in the column 'user' (first: line 4)",
    )
    with pytest.raises(SourceError, match=r"no post of user nas; .*nearest: 'nasa'"):
        load("jsonl", path, "nas")


def test_a_file_without_users_is_of_whom_is_asked_for(
    write: Callable[..., Path], load: Load
) -> None:
    path = write({"text": "a"}, "a bare string", ["b", {"text": "c"}])
    assert texts(load("jsonl", path, "anyone")) == ["a", "a bare string", "b", "c"]


def test_bad_lines_are_counted_and_the_others_kept(write: Callable[..., Path], load: Load) -> None:
    path = write(
        b"\xef\xbb\xbf" + b'{"text": "first", "id": 5}',
        b'{"text": "cut',
        b'{"text": "caf\xe9"}',
        b'{"text": NaN}',
        b'{"text": "nul \x00 inside", "id": ' + b"9" * 5000 + b"}",
        b'{"text":' + b"[" * 100_000,
        b"",
        b"\x00\x01\x02",
        b'{"text": "twice", "text": "last wins", "id": 4}\r',
        b'{"text": "lone \\ud83d surrogate", "id": 3}',
    )
    timeline = load("jsonl", path, "anyone")
    assert texts(timeline) == ["first", "nul \0 inside", "last wins", "lone \ud83d surrogate"]
    assert timeline.notes == (
        "posts.jsonl: 3 skipped: not JSON (first: line 2)",
        "posts.jsonl: 1 skipped: not UTF-8 (first: line 3)",
        "posts.jsonl: 1 skipped: no text in the column 'text' (first: line 4)",
    )


def test_bad_first_lines_do_not_hide_the_rest(write: Callable[..., Path], load: Load) -> None:
    path = write(b'{"text": "cut', b"garbage", {"text": "a"}, {"text": "b"})
    timeline = load("jsonl", path, "anyone")
    assert texts(timeline) == ["a", "b"]
    assert timeline.notes == ("posts.jsonl: 2 skipped: not JSON (first: line 1)",)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_other_encodings(tmp_path: Path, load: Load, encoding: str) -> None:
    lines = '{"text": "café 😀"}\r\n{"text": "two"}\r\n'
    (tmp_path / "a.jsonl").write_bytes(lines.encode(encoding))
    assert texts(load("jsonl", tmp_path, "a")) == ["café 😀", "two"]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_rows(tmp_path: Path, load: Load, indent: int | None) -> None:
    rows = [{"text": f"post {number}", "id": number} for number in range(1000)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=indent))
    assert len(load("jsonl", tmp_path, "a").posts) == 1000


def test_a_cut_array_keeps_its_beginning(tmp_path: Path, load: Load) -> None:
    rows = [{"text": f"post {number}", "id": number} for number in range(1000)]
    (tmp_path / "a.json").write_text(json.dumps(rows)[:-10])
    timeline = load("jsonl", tmp_path, "a")
    assert len(timeline.posts) == 999
    assert "from here on it is not JSON" in timeline.notes[0]


@pytest.mark.parametrize(
    ("kind", "head", "line"),
    [
        ("jsonl", "", '{{"text": "post {0}", "id": {1}}}\n'),
        ("csv", "id,text\n", "{1},post {0}\n"),
        ("text", "", "post {0}\n"),
    ],
)
@pytest.mark.parametrize("num", [300, 20_000])  # less than is looked at for the encoding, and more
def test_a_cut_gzip_keeps_its_beginning(
    num: int, kind: str, head: str, line: str, tmp_path: Path, load: Load
) -> None:
    lines = head + "".join(line.format(n * 7919, n) for n in range(num))
    data = gzip.compress(lines.encode())
    suffix = {"text": "txt"}.get(kind, kind)
    (tmp_path / f"a.{suffix}.gz").write_bytes(data[: len(data) // 2])
    timeline = load(kind, tmp_path, "a")
    assert num // 5 < len(timeline.posts) < num * 4 // 5
    assert any("cut off or damaged" in note for note in timeline.notes)
    (tmp_path / f"a.{suffix}.gz").write_bytes(data + b"something behind it")
    assert len(load(kind, tmp_path, "a").posts) == num


def test_a_wrong_byte_in_a_gzip_makes_no_posts(tmp_path: Path, load: Load) -> None:
    lines = [f"a post of {n * 7919} words" for n in range(3000)]
    data = bytearray(gzip.compress("\n".join(lines).encode()))
    for place in range(len(data) // 2, len(data) - 8, len(data) // 30):
        wrong = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        (tmp_path / "a.txt.gz").write_bytes(wrong)
        with suppress(SourceError):
            assert {post.text for post in load("text", tmp_path, "a").posts} <= {*lines}


def test_what_is_no_json_is_one_sentence(tmp_path: Path, load: Load) -> None:
    for data, said in (
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50, "a picture; expected text"),
        (bytes(range(256)) * 50, r"no readable post \(.*skipped"),
        (b"plain text\nof two lines\n", r"no readable post \(.*skipped"),
    ):
        (tmp_path / "a.jsonl").write_bytes(data)
        with pytest.raises(SourceError, match=rf"a.jsonl: got {said}"):
            load("jsonl", tmp_path, "a")


def test_an_empty_file_is_an_empty_timeline(tmp_path: Path, load: Load) -> None:
    for data in (b"", b"\n\n", b"[]", b"[ ]\n"):
        (tmp_path / "a.jsonl").write_bytes(data)
        assert load("jsonl", tmp_path, "a").posts == ()


def test_a_line_of_200_mb_is_passed_over(tmp_path: Path, load: Load) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"text": "after"}\n')
    start = time.monotonic()
    timeline = load("jsonl", tmp_path, "a")
    assert texts(timeline) == ["before", "after"]
    assert timeline.notes == (
        "a.jsonl: 1 skipped: a line of more than 16777216 characters (first: line 2)",
    )
    assert time.monotonic() - start < 10


def test_a_misspelt_column_is_refused(write: Callable[..., Path], load: Load) -> None:
    path = write({"phrase": "a", "key": 1}, {"phrase": "b", "key": 2, "when": "2020-01-01"})
    assert texts(load("jsonl", path, "x", text_column="phrase", date_column="when")) == ["a", "b"]
    with pytest.raises(SourceError, match=r"source.id_column=kei; .*nearest: 'key'"):
        load("jsonl", path, "x", text_column="phrase", id_column="kei")
    with pytest.raises(SourceError, match=r"columns 'phrase', 'key'\); set source.text_column="):
        load("jsonl", path, "x")


def test_the_posts_of_a_job_can_be_read_again(tmp_path: Path, load: Load) -> None:
    posts = (Post("2", "b", "2020-01-01T00:00:00Z", True), Post("1", "a", None, None))
    write_timelines(tmp_path / "nasa.jsonl.gz", [Timeline("nasa", "NASA", posts)])
    assert load("jsonl", tmp_path, "nasa").posts == posts
