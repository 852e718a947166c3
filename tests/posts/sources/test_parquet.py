"""Parquet files."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.records import Post, Timeline
from huggingtweets.posts.sources import parquet

Load = Callable[..., Timeline]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write_table(columns: dict[str, Any], name: str = "posts.parquet", **options: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / name, **options)
        return tmp_path / name

    return write_table


def test_rows_are_posts(write: Callable[..., Path], load: Load) -> None:
    path = write(
        {
            "id": [1, 2],
            "text": ["a", "b"],
            "created_at": [datetime(2020, 1, 1, tzinfo=UTC), None],
            "is_retweet": [True, None],
            "vector": [[1.0], [2.0]],
        }
    )
    assert load("parquet", path, "nasa").posts == (
        Post("2", "b", None, None),
        Post("1", "a", "2020-01-01T00:00:00Z", True),
    )


def test_one_user_of_many(write: Callable[..., Path], load: Load) -> None:
    users = ["NASA", "esa", "@Nasa", None] * 5000
    path = write({"username": users, "text": [f"post {n}" for n in range(20_000)]})
    timeline = load("parquet", path, "nasa")
    assert len(timeline.posts) == 10_000
    assert timeline.notes == ("posts.parquet: 5000 skipped: no user in the column 'username'",)
    with pytest.raises(SourceError, match="nearest: 'nasa'"):
        load("parquet", path, "nas")


def test_an_only_column_is_that_of_the_texts(write: Callable[..., Path], load: Load) -> None:
    path = write({"utterance": ["one of mine", "another"]})
    assert [post.text for post in load("parquet", path, "ann").posts] == ["one of mine", "another"]
    path = write({"username": ["one of mine", "another"]})
    assert [post.text for post in load("parquet", path, "ann").posts] == ["one of mine", "another"]
    mine = {"text": "in a struct", "user": "ann", "id": 1234567890}
    path = write({"data": [mine, {**mine, "user": "bob"}]})
    assert [post.text for post in load("parquet", path, "ann").posts] == ["in a struct"]
    path = write({"raw_json": ['{"full_text": "whole", "id_str": "1234567890"}']})
    assert load("parquet", path, "ann").posts == (Post("1234567890", "whole"),)


@pytest.mark.parametrize(
    ("column", "mine", "theirs", "told"),
    [
        ("account_username", "alice", "bob", False),
        ("account", "alice", "bob", True),
        ("acct", "https://pond.example/@alice.pond.example", "https://pond.example/@bob", False),
        ("posted_by_url", "https://pond.example/@alice.pond.example/12", "bob", True),
        ("username", "User(username='alice.pond.example')", "User(username='bob')", True),
    ],
)
def test_an_author_is_known_as_in_a_csv(
    write: Callable[..., Path], load: Load, column: str, mine: str, theirs: str, told: bool
) -> None:
    config = {"user_column": column} if told else {}
    path = write({column: [mine, theirs, mine], "text": ["a", "b", "c"]})
    csv = path.with_suffix(".csv")
    csv.write_text(f"{column},text\n{mine},a\n{theirs},b\n{mine},c\n")

    def texts(kind: str, path: Path) -> list[str] | str:
        try:
            return [post.text for post in load(kind, path, "alice.pond.example", **config).posts]
        except SourceError as err:
            return str(err).partition(": ")[2]

    assert texts("parquet", path) == texts("csv", csv)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_names_that_no_handle_could_be_are_others(
    write: Callable[..., Path], load: Load, kind: str
) -> None:
    path = write({"username": ["Ann Lee (she/her)", "a/b"] * 9, "text": ["x", "y"] * 9})
    (path.parent / "posts.csv").write_text("username,text\n" + 9 * "Ann Lee (she/her),x\na/b,y\n")
    with pytest.raises(SourceError, match=r"no post of user nasa|authors by the column"):
        load(kind, path.with_suffix(f".{kind}"), "nasa")


def test_dictionary_columns_and_gzip(tmp_path: Path, load: Load) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "plain")
    (tmp_path / "NASA.parquet.gz").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    assert [post.text for post in load("parquet", tmp_path, "nasa").posts] == ["a", "b", "a"]


def test_values_that_python_cannot_hold_are_counted(tmp_path: Path, load: Load) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"fine", b"caf\xe9", b"late"]).view(pa.string())
    dates = pa.array([0, 0, 2**62], pa.int64()).view(pa.timestamp("us"))
    pq.write_table(pa.table({"text": texts, "date": dates}), tmp_path / "f.parquet")
    timeline = load("parquet", tmp_path / "f.parquet", "nasa")
    assert [post.text for post in timeline.posts] == ["fine"]
    assert timeline.notes == (
        "f.parquet: 1 skipped: not UTF-8",
        "f.parquet: 1 skipped: a date out of range",
    )


def test_damaged_files_are_one_sentence(write: Callable[..., Path], load: Load) -> None:
    path = write({"text": [f"post {n}" for n in range(1000)]})
    data = path.read_bytes()
    for broken in (b"", b"PAR1", data[:-20], data[: len(data) // 2] + b"PAR1", b"{}\n" * 9):
        path.write_bytes(broken)
        with pytest.raises(SourceError, match="expected a Parquet file"):
            load("parquet", path, "nasa")


def test_a_file_without_texts_names_its_columns(write: Callable[..., Path], load: Load) -> None:
    with pytest.raises(SourceError, match="columns 'n'; expected one with the posts"):
        load("parquet", write({"n": [1]}), "nasa")
    with pytest.raises(SourceError, match="expected one with the posts"):
        load("parquet", write({}), "nasa")


def test_a_bomb_is_refused(
    write: Callable[..., Path], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MAX_GROUP_BYTES", 1 << 20)
    path = write({"text": ["x" * 1000] * 5000}, use_dictionary=False, compression="zstd")
    assert path.stat().st_size < 1 << 16
    with pytest.raises(SourceError, match="row group of 4 MiB"):
        load("parquet", path, "nasa")


@pytest.mark.parametrize("column", ["username", "user"])
def test_texts_that_are_not_marked_as_such(
    column: str, write: Callable[..., Path], load: Load
) -> None:
    names = [b"ann", b"bob", b"ann", b"caf\xe9"]
    path = write({column: names, "text": [b"mine", b"his", "caf\u00e9".encode(), b"whose"]})
    assert [post.text for post in load("parquet", path, "ann").posts] == ["mine", "caf\u00e9"]


def test_posts_listed_by_person(write: Callable[..., Path], load: Load) -> None:
    tweets = [[{"id": 10**17 + n, "text": f"{who} {n}"} for n in (1, 2)] for who in ("a", "b")]
    path = write({"user": ["ann", "bob"], "tweets": tweets})
    assert [post.text for post in load("parquet", path, "ann").posts] == ["a 2", "a 1"]


def test_two_columns_of_one_name(tmp_path: Path, load: Load) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for names in (["text", "text"], ["text", "x", "x"]):
        columns = [pa.array(["one", "two"])] * len(names)
        pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "a.parquet")
        if names[0] == names[1]:
            with pytest.raises(SourceError, match="'text' as the name of 2 columns"):
                load("parquet", tmp_path / "a.parquet", "ann")
        else:
            assert len(load("parquet", tmp_path / "a.parquet", "ann").posts) == 2
