import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_services import FakeService, quick, serving

from huggingtweets.cli import main as cli
from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import OptedOutError, SourceError
from huggingtweets.people.import_posts import import_posts
from huggingtweets.posts.cleaning import is_retweet
from huggingtweets.posts.optout import add_optout
from huggingtweets.posts.sources.demo import demo_timeline
from huggingtweets.posts.sources.load import load_timeline
from huggingtweets.storage.files import read_jsonl, write_jsonl


@pytest.fixture
def server() -> Iterator[FakeService]:
    with serving([f"post {n} & <more> of it" for n in range(250)]) as running:
        yield running


def bluesky(server: FakeService) -> SourceConfig:
    return SourceConfig(kind=SourceKind.bluesky, api_url=server.url)


def read_back(folder: Path, handle: str):
    return load_timeline(SourceConfig(kind=SourceKind.jsonl, path=str(folder)), handle)


def test_an_import_reads_back_as_it_was(tmp_path: Path) -> None:
    imported = import_posts(SourceConfig(), "demo", tmp_path)
    assert (imported.num_before, imported.num_new) == (0, 1500)
    there, back = demo_timeline("demo"), read_back(tmp_path, "demo")
    assert (back.display_name, back.notes) == (there.display_name, ())
    assert [(t.id, t.text, t.created_at, is_retweet(t)) for t in back.posts] == [
        (t.id, t.text, t.created_at, is_retweet(t)) for t in there.posts
    ]


def test_a_second_import_asks_for_newer_posts_alone(tmp_path: Path, server: FakeService) -> None:
    handle = "ann.bsky.social"
    first = import_posts(bluesky(server), handle, tmp_path, patience=quick())
    server.posts[:0] = [(1000 + n, f"a new post {n}") for n in (251, 250)]
    server.requests.clear()
    second = import_posts(bluesky(server), handle, tmp_path, patience=quick())
    assert (first.num_new, second.num_before, second.num_new) == (250, 250, 2)
    assert server.count("getAuthorFeed") == 1
    texts = [post.text for post in read_back(tmp_path, handle).posts]
    assert texts[0] == "a new post 251"
    assert texts[2] == "post 249 &amp; &lt;more&gt; of it"
    assert len(texts) == 252
    data = second.path.read_bytes()
    third = import_posts(bluesky(server), handle, tmp_path, patience=quick())
    assert (third.num_new, third.path.read_bytes()) == (0, data)
    assert read_back(tmp_path, handle).display_name == "Ann A."


def test_a_damaged_file_is_not_written_over(tmp_path: Path, server: FakeService) -> None:
    handle = "ann.bsky.social"
    path = import_posts(bluesky(server), handle, tmp_path, patience=quick()).path
    path.write_bytes(path.read_bytes()[:-200])
    damaged = path.read_bytes()
    with pytest.raises(SourceError, match="damaged"):
        import_posts(bluesky(server), handle, tmp_path, patience=quick())
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("kind", ["folder", "columns", "a last line", "an array"])
def test_what_another_has_made_is_not_written_over(kind: str, tmp_path: Path) -> None:
    path = import_posts(SourceConfig(), "demo", tmp_path).path
    if kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "an array":
        rows = [row | {"lang": "en"} for row in read_jsonl(path)]
        path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    elif kind == "a last line":
        [*rows, last] = read_jsonl(path)
        lines = [json.dumps(row) for row in (*rows, last | {"lang": "en"})]
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    else:
        write_jsonl(path, [row | {"lang": "en"} for row in read_jsonl(path)])
    before = path.stat()
    with pytest.raises(
        SourceError, match=r"got (no file|lang|another form); expected a file|expected one"
    ):
        import_posts(SourceConfig(), "demo", tmp_path)
    assert path.stat() == before


def test_people_who_opted_out_are_not_asked_for(tmp_path: Path, server: FakeService) -> None:
    optout = str(tmp_path / "optout.txt")
    add_optout("ann.bsky.social", optout)
    with pytest.raises(OptedOutError):
        import_posts(bluesky(server), "ann.bsky.social", tmp_path / "posts", optout_file=optout)
    assert server.requests == []
    assert not (tmp_path / "posts").exists()


def test_the_command_goes_on_after_a_failure(
    tmp_path: Path, server: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/xrpc/app.bsky.actor.getProfile"] = (400, {"message": "Profile not found"})
    words = ["bluesky", "Bob.bsky.social", "carol", f"source.api_url={server.url}"]
    assert cli.main(["import", *words, "--to", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("Profile not found") == 2
    del server.answers["/xrpc/app.bsky.actor.getProfile"]
    assert cli.main(["import", *words, "--to", str(tmp_path)]) == 0
    assert "@bob.bsky.social: 250 new posts, 0 before" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bob.bsky.social.jsonl.gz",
        "carol.jsonl.gz",
    ]


def test_overrides_may_come_last(tmp_path: Path, server: FakeService) -> None:
    words = ["import", "bluesky", "--to", str(tmp_path), "carol", f"source.api_url={server.url}"]
    assert cli.main(words) == 0
    assert cli.main([*words[:2], "carol", *words[2:4], words[5]]) == 0
    with pytest.raises(SystemExit):
        cli.main([*words, "--from", "x"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["blusky", "ann"], "did you mean source=bluesky"),
        (["bluesky", "../ann"], "expected a handle"),
        (["bluesky", "ann", "source.api_url=http://example.com"], "expected https://HOST"),
        (["bluesky", "ann", "source.api_token=x"], "secrets are never given on the command line"),
        (["x_api", "ann"], "source.terms: got unread"),
        (["jsonl", "ann"], "add source.path="),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", *words, "--to", str(tmp_path / "posts")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "posts").exists()


def test_archives_are_merged_with_what_is_there(tmp_path: Path) -> None:
    import_posts(SourceConfig(), "demo", tmp_path)
    older = tmp_path / "older" / "demo.jsonl"
    older.parent.mkdir()
    older.write_text('{"id": "17", "text": "an old post of mine"}\n')
    source = replace(SourceConfig(kind=SourceKind.jsonl, path=str(older)))
    imported = import_posts(source, "demo", tmp_path)
    assert (imported.num_before, imported.num_new) == (1500, 1)
    assert read_back(tmp_path, "demo").posts[-1].text == "an old post of mine"
