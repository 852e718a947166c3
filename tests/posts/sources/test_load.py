"""The door to the sources: dispatch, and the cheap check before anything heavy starts."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import ConfigError
from huggingtweets.posts.optout import handle_hash
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.load import check_source, load_timeline


def source(kind: str, path: Path | str) -> SourceConfig:
    return SourceConfig(kind=SourceKind(kind), path=str(path))


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("jsonl", "Ann.jsonl", b'{"text": "hello"}'),
        ("csv", "Ann.csv", b"text\nhello\n"),
        ("text", "Ann.txt", b"hello"),
    ],
)
def test_a_file_and_its_folder_read_the_same(
    tmp_path: Path, kind: str, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        timeline = load_timeline(source(kind, path), "ann")
        assert (timeline.handle, [post.text for post in timeline.posts]) == ("ann", ["hello"])


def test_the_default_source_is_the_demo() -> None:
    assert len(load_timeline(SourceConfig(), "demo").posts) == 1500


def test_a_missing_path_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "posts.jsonl").touch()
    with pytest.raises(ConfigError, match=r"post.jsonl does not exist .*nearest: 'posts.jsonl'"):
        check_source(source("jsonl", tmp_path / "post.jsonl"))
    with pytest.raises(ConfigError, match=rf"\(in {tmp_path}, nearest: 'posts.jsonl'\)"):
        check_source(source("jsonl", tmp_path / "post" / "deep" / "er"))


@pytest.mark.parametrize(
    "path", ["/nowhere/at/all", "a\0b", "~nobody_of_this_name/x", "x" * 5000, "/dev/zero"]
)
def test_impossible_paths_are_one_sentence(path: str) -> None:
    for kind in ("jsonl", "x_archive"):
        with pytest.raises(ConfigError, match=r"^source.path: "):
            check_source(source(kind, path))


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("jsonl", "a.zip", "x_archive or mastodon_archive"),
        ("x_archive", "a.jsonl.gz", "jsonl"),
        ("text", "a.csv", "csv"),
        ("csv", "a.parquet", "parquet"),
    ],
)
def test_a_file_of_another_source_names_it(
    tmp_path: Path, kind: str, name: str, expected: str
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"expected source={expected}"):
        check_source(source(kind, tmp_path / name))


def test_check_source_asks_no_network_for_a_dataset() -> None:
    check_source(source("hub", "someone/some_dataset"))
    with pytest.raises(ConfigError, match="does not exist"):
        check_source(source("hub", "./some_dataset"))


def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        check_source(source("jsonl", tmp_path / "a.jsonl"))


def test_reading_posts_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    code = (
        "import sys; from huggingtweets.posts.sources.load import load_timeline;"
        "from huggingtweets.config.posts_schema import SourceConfig, SourceKind;"
        f"load_timeline(SourceConfig(kind=SourceKind.jsonl, path={str(tmp_path)!r}), 'a');"
        "heavy = {'torch', 'datasets', 'pyarrow', 'transformers', 'wandb', 'numpy'};"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_load_returns_plain_values(load: Callable[..., Timeline]) -> None:
    import pickle

    timeline = load("demo", None, "demo")
    assert pickle.loads(pickle.dumps(timeline)) == timeline


@pytest.mark.parametrize("where", ["named", "own"])
def test_every_list_of_people_who_want_no_model_holds_in_files(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The posts of a friend in a file of one's own go, by the named list and by the user's own."""
    monkeypatch.setenv("HUGGINGTWEETS_CONFIG", str(tmp_path))
    named = tmp_path / "named.txt"
    lists = {"named": named, "own": tmp_path / "optout.txt"}
    named.write_text("")
    lists[where].write_text(handle_hash("shy_one") + "\n")
    lines = [{"text": f"post {n}", "user": ("ann", "shy_one")[n % 2]} for n in range(4)]
    path = tmp_path / "ann.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    config = replace(source("jsonl", path), user_column="")
    timeline = load_timeline(config, "ann", str(named))
    assert {post.text for post in timeline.posts} == {"post 0", "post 2"}


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode().decode("latin-1"),
        lambda text: "".join(
            chr(byte) if byte == 0x98 else bytes([byte]).decode("cp1251") for byte in text.encode()
        ),
        quote,
        quote_plus,
    ],
    ids=["latin-1", "cp1251", "quote", "quote_plus"],
)
def test_encoded_russian_comes_back(encode: Callable[[str], str], tmp_path: Path) -> None:
    texts = [f"Идёт дождь в {n} городах, и Сергей рад" for n in range(9)]
    path = tmp_path / "ann.jsonl"
    path.write_text("\n".join(json.dumps({"text": encode(text)}) for text in texts))
    timeline = load_timeline(source("jsonl", path), "ann")
    assert sorted(post.text for post in timeline.posts) == texts
    assert "were decoded" in timeline.notes[0]


@pytest.mark.parametrize(
    "text", ["Сергей Рад С°Р", "50%25 off", "see https://e.org/%D0%BF%D1%80 or", "100%ab sure"]
)
def test_texts_that_only_look_encoded_stay(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ann.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{text} {n}"}) for n in range(9)))
    timeline = load_timeline(source("jsonl", path), "ann")
    assert sorted(post.text for post in timeline.posts) == [f"{text} {n}" for n in range(9)]
