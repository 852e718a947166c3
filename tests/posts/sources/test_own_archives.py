"""What people download of themselves from Mastodon and Bluesky."""

import contextlib
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libipld
import pytest

from huggingtweets.config.posts_schema import CleaningConfig, SourceConfig, SourceKind
from huggingtweets.errors import OptedOutError, SelectionError, SourceError
from huggingtweets.jobs.selection import select_jobs
from huggingtweets.posts.cleaning import clean_text
from huggingtweets.posts.optout import add_optout
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.load import load_timeline

Load = Callable[..., Timeline]
ZipMaker = Callable[..., Path]
ACTOR = "https://pond.example/users/ann_marsh"
PUBLIC = "https://www.w3.org/ns/activitystreams#Public"
FOLLOWERS = f"{ACTOR}/followers"


def note(number: int, content: str, to: list[str], cc: list[str]) -> dict[str, Any]:
    return {
        "id": f"{ACTOR}/statuses/{number}/activity",
        "type": "Create",
        "actor": ACTOR,
        "to": to,
        "cc": cc,
        "object": {
            "id": f"{ACTOR}/statuses/{number}",
            "type": "Note",
            "published": "2022-05-01T10:00:00Z",
            "attributedTo": ACTOR,
            "to": to,
            "cc": cc,
            "content": content,
        },
    }


BOX = [
    note(10**17 + 1, "<p>open to all &amp; sundry</p><p>in two</p>", [PUBLIC], [FOLLOWERS]),
    note(10**17 + 2, '<p>unlisted <a href="https://a.b/c">a.b/c</a></p>', [FOLLOWERS], [PUBLIC]),
    note(10**17 + 3, "<p>for followers</p>", [FOLLOWERS], []),
    note(10**17 + 4, "<p>for one</p>", ["https://other.example/users/bob"], []),
    note(
        10**17 + 5,
        '<p class="quote-inline">RE: <a href="https://x.example/1">x</a></p><p>so true</p>',
        [PUBLIC],
        [],
    ),
    {
        "id": "1",
        "type": "Announce",
        "actor": ACTOR,
        "object": "https://other.example/users/x/statuses/9",
    },
    {
        "id": "2",
        "type": "Like",
        "actor": ACTOR,
        "object": "https://other.example/users/x/statuses/9",
    },
]
OUTBOX = json.dumps({"type": "OrderedCollection", "totalItems": len(BOX), "orderedItems": BOX})
ACTOR_JSON = json.dumps({"id": ACTOR, "preferredUsername": "ann_marsh", "name": "Ann <Marsh>"})
FILES: dict[str, str | bytes] = {
    "outbox.json": OUTBOX,
    "actor.json": ACTOR_JSON,
    "likes.json": "{}",
}


@pytest.fixture(params=["zip", "zip with a folder", "folder", "outbox.json", "without actor.json"])
def mastodon(request: pytest.FixtureRequest, tmp_path: Path, make_zip: ZipMaker) -> Path:
    """The same archive in every form it comes in."""
    if request.param.startswith("zip"):
        top = "archive-2022/" if "folder" in request.param else ""
        return make_zip({top + name: data for name, data in FILES.items()}, "archive.zip")
    folder = tmp_path / "archive"
    folder.mkdir()
    for name, data in FILES.items():
        if request.param != "without actor.json" or name != "actor.json":
            (folder / name).write_text(str(data))
    return folder / "outbox.json" if request.param == "outbox.json" else folder


def test_open_posts_of_mastodon_are_text_and_boosts_are_out(mastodon: Path, load: Load) -> None:
    for handle in ("ann_marsh", "ann_marsh.pond.example"):
        timeline = load("mastodon_archive", mastodon, handle)
        own = [post.text for post in timeline.posts if not post.is_retweet]
        assert own == ["so true", "unlisted a.b/c", "open to all &amp; sundry\n\nin two"]
        assert sum(bool(post.is_retweet) for post in timeline.posts) == 1
        assert [note.partition(": ")[2] for note in timeline.notes] == [
            "2 skipped: a post that is not open to everyone",
            "1 skipped: an entry without text",
        ]
    with pytest.raises(SourceError, match=r"archive of ann_marsh.pond.example, not of bob"):
        load("mastodon_archive", mastodon, "bob")


def test_the_account_of_an_archive_is_found_without_being_named(mastodon: Path) -> None:
    source = SourceConfig(kind=SourceKind.mastodon_archive, path=str(mastodon))
    for nothing in (None, ""):
        (job,) = select_jobs(nothing, source=source)
        assert job.handles == ("ann_marsh.pond.example",)
    (job,) = select_jobs("ann_marsh", source=source)
    assert job.handles == ("ann_marsh",)
    with pytest.raises(
        SourceError, match=r"is the archive of ann_marsh.pond.example, not of bob; use user="
    ):
        select_jobs("bob", source=source)


def test_whose_archive_it_is_decides_who_opted_out(mastodon: Path, tmp_path: Path) -> None:
    optout = str(tmp_path / "optout.txt")
    add_optout("ann_marsh.pond.example", optout)
    source = SourceConfig(kind=SourceKind.mastodon_archive, path=str(mastodon))
    with pytest.raises(OptedOutError):
        load_timeline(source, "ann_marsh", optout)


@pytest.mark.parametrize(
    "data", ["", "[]", "{}", "null", '{"orderedItems": 3}', '{"orderedItems": [3, null']
)
def test_damaged_outboxes_are_one_sentence(make_zip: ZipMaker, load: Load, data: str) -> None:
    path = make_zip({"outbox.json": data, "actor.json": "{"})
    with pytest.raises(SourceError, match=r"expected the archive that Mastodon hands out"):
        load("mastodon_archive", path, "ann")


# --- X


def test_the_account_of_an_x_archive_is_found(
    make_zip: ZipMaker, tweets_js: Callable[..., str], tmp_path: Path, load: Load
) -> None:
    account = 'window.YTD.account.part0 = [{"account": {"username": "Ann_Marsh"}}]'
    path = make_zip({"data/tweets.js": tweets_js((5, "one")), "data/account.js": account})
    source = SourceConfig(kind=SourceKind.x_archive, path=str(path))
    (job,) = select_jobs(None, source=source)
    assert job.handles == ("ann_marsh",)
    with pytest.raises(
        SourceError, match=r"is the archive of ann_marsh, not of you; .*leave user= out"
    ):
        select_jobs("you", source=source)
    nameless = make_zip({"data/tweets.js": tweets_js((5, "one"))}, "nameless.zip")
    source = SourceConfig(kind=SourceKind.x_archive, path=str(nameless))
    with pytest.raises(SelectionError, match=r"does not say whose it is; .*user=HANDLE"):
        select_jobs(None, source=source)
    (job,) = select_jobs("you", source=source)
    assert job.handles == ("you",)


def test_one_file_of_an_archive_named_directly_is_that_file(
    tmp_path: Path, tweets_js: Callable[..., str], load: Load
) -> None:
    (tmp_path / "tweets.js").write_text(tweets_js((5, "first part")))
    (tmp_path / "tweets-part1.js").write_text(tweets_js((6, "second part")))
    (tmp_path / "account.js").write_text("window.x = []")
    for name, text in (("tweets.js", "first part"), ("tweets-part1.js", "second part")):
        assert [t.text for t in load("x_archive", tmp_path / name, "ann").posts] == [text]
    with pytest.raises(SourceError, match="no file of posts"):
        load("x_archive", tmp_path / "account.js", "ann")


def test_the_one_file_of_the_community_archive(tmp_path: Path, load: Load) -> None:
    value = {
        "account": [{"account": {"username": "Ann_Marsh", "accountDisplayName": "Ann"}}],
        "tweets": [
            {"tweet": {"id_str": "1700000000000000002", "full_text": "a long one that is cut…"}},
            {"tweet": {"id_str": "5", "full_text": "RT @x: theirs"}},
        ],
        "note-tweet": [
            {
                "noteTweet": {
                    "noteTweetId": "1700000000000000001",
                    "core": {"text": "a long one that is cut no more"},
                }
            }
        ],
        "like": [{"like": {"tweetId": "1", "fullText": "somebody else's"}}],
    }
    path = tmp_path / "ann_marsh_twitter_archive.json"
    path.write_text(json.dumps(value))
    timeline = load("x_archive", path, "ann_marsh")
    assert [t.text for t in timeline.posts] == ["a long one that is cut no more", "RT @x: theirs"]
    assert timeline.display_name == "Ann"
    (job,) = select_jobs(None, source=SourceConfig(kind=SourceKind.x_archive, path=str(path)))
    assert job.handles == ("ann_marsh",)
    # The same file read as JSON says whose it is as well.
    assert len(load("jsonl", path, "ann_marsh").posts) == 2
    with pytest.raises(SourceError, match="no post of user bob"):
        load("jsonl", path, "bob")


# --- Bluesky

DID = "did:plc:" + "abcdefgh" * 3


def cid_of(block: bytes) -> bytes:
    """CIDv1 of DAG-CBOR by SHA-256, as ATProto has them."""
    return b"\x01\x71\x12\x20" + hashlib.sha256(block).digest()


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def make_car(path: Path, records: dict[str, Any], did: str = DID, fanout: int = 4) -> Path:
    """Write a repository: header, commit, a search tree of several levels, records."""
    blocks: list[tuple[bytes, bytes]] = []

    def put(value: Any) -> bytes:
        block = bytes(libipld.encode_dag_cbor(value))
        blocks.append((cid_of(block), block))
        return blocks[-1][0]

    def tree(keys: list[str]) -> bytes:
        if len(keys) <= fanout:
            here, groups = keys, [[] for _ in range(len(keys) + 1)]
        else:
            step = len(keys) // (fanout + 1)
            cuts = [step * (n + 1) for n in range(fanout)]
            here = [keys[cut] for cut in cuts]
            edges = [-1, *cuts, len(keys)]
            groups = [keys[edges[n] + 1 : edges[n + 1]] for n in range(fanout + 1)]
        left, *rest = [tree(group) if group else None for group in groups]
        entries, before = [], b""
        for key, right in zip(here, rest, strict=True):
            raw = key.encode()
            shared = next(
                (n for n, (a, b) in enumerate(zip(raw, before, strict=False)) if a != b),
                min(len(raw), len(before)),
            )
            entries.append({"p": shared, "k": raw[shared:], "v": put(records[key]), "t": right})
            before = raw
        return put({"l": left, "e": entries})

    root = tree(sorted(records))
    commit = put({"did": did, "version": 3, "data": root, "rev": "3k", "prev": None, "sig": b"x"})
    header = bytes(libipld.encode_dag_cbor({"roots": [commit], "version": 1}))
    body = b"".join(varint(len(cid) + len(block)) + cid + block for cid, block in blocks)
    path.write_bytes(varint(len(header)) + header + body)
    return path


def repository(num: int = 300) -> dict[str, Any]:
    rng = random.Random(0)
    records: dict[str, Any] = {
        "app.bsky.actor.profile/self": {"$type": "app.bsky.actor.profile", "displayName": "Ann"},
        "app.bsky.feed.like/3k1": {"$type": "app.bsky.feed.like", "subject": {"uri": "at://x"}},
        "app.bsky.feed.repost/3k1": {"$type": "app.bsky.feed.repost", "subject": {"uri": "at://x"}},
    }
    for n in range(num):
        key = f"app.bsky.feed.post/3k{n:05d}{rng.randrange(10**4)}"
        shown = "pond.example/2024/a-very-lo..."
        text = f"é Number {n} & <more>, read on at {shown} and say"
        start = len(text.encode().split(shown.encode())[0])
        facet = {
            "index": {"byteStart": start, "byteEnd": start + len(shown)},
            "features": [
                {"$type": "app.bsky.richtext.facet#link", "uri": "https://pond.example/2024/x"}
            ],
        }
        records[key] = {
            "$type": "app.bsky.feed.post",
            "text": text,
            "createdAt": f"2024-05-{1 + n % 28:02d}T10:00:00.000Z",
            "facets": [facet] if n % 2 else [],
        }
    return records


def test_a_repository_of_bluesky_is_read_to_the_last_post(tmp_path: Path, load: Load) -> None:
    path = make_car(tmp_path / "ann.example.20240501.car", repository())
    timeline = load("bluesky_archive", path, "ann.example")
    assert (len(timeline.posts), timeline.display_name) == (300, "Ann")
    assert len({post.id for post in timeline.posts}) == 300
    assert all(post.created_at and post.is_retweet is False for post in timeline.posts)
    cleaned = {clean_text(post.text, CleaningConfig()) for post in timeline.posts}
    assert cleaned == {f"é Number {n} & <more>, read on at and say" for n in range(300)}
    # A repository says no handle: whoever is asked for is believed, unless it is another DID.
    assert len(load("bluesky_archive", path, "other").posts) == 300
    with pytest.raises(SourceError, match="is the repository of did:plc:"):
        load("bluesky_archive", path, "did.plc.other")


@pytest.mark.parametrize(
    ("name", "handle"),
    [
        ("ann.example.20240501.car", "ann.example"),
        ("ann.bsky.social.car", "ann.bsky.social"),
        ("repo.car", DID.replace(":", ".")),
        ("repo-2024-05-01.car", DID.replace(":", ".")),
    ],
)
def test_the_account_of_a_repository(tmp_path: Path, name: str, handle: str) -> None:
    path = make_car(tmp_path / name, repository(3))
    source = SourceConfig(kind=SourceKind.bluesky_archive, path=str(path))
    (job,) = select_jobs(None, source=source)
    assert job.handles == (handle,)


def test_damaged_repositories_are_one_sentence(tmp_path: Path, load: Load) -> None:
    path = make_car(tmp_path / "repo.car", repository(20))
    data = path.read_bytes()
    rng = random.Random(1)
    for number in range(300):
        spoilt = bytearray(data[: rng.randrange(len(data))] if number % 3 == 0 else data)
        for _ in range(rng.randint(0, 6) if spoilt else 0):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        path.write_bytes(spoilt)
        with contextlib.suppress(SourceError):
            assert len(load("bluesky_archive", path, "ann").posts) <= 20
    for other in (b"", b"PK\x03\x04", b"{}"):
        path.write_bytes(other)
        with pytest.raises(SourceError, match="expected the CAR file that Bluesky hands out"):
            load("bluesky_archive", path, "ann")


def test_a_note_by_another_account_is_none_of_the_owners(tmp_path: Path) -> None:
    theirs = note(10**17 + 9, "<p>not mine</p>", [PUBLIC], [])
    theirs["object"]["attributedTo"] = "https://other.example/users/bob"
    short = note(10**17 + 8, "<p>mine as well</p>", [PUBLIC], [])
    short["object"]["attributedTo"] = f"https://{ACTOR.split('/')[2]}/@{ACTOR.rpartition('/')[2]}"
    (tmp_path / "outbox.json").write_text(json.dumps({"orderedItems": [*BOX, theirs, short]}))
    config = SourceConfig(kind=SourceKind.mastodon_archive, path=str(tmp_path / "outbox.json"))
    timeline = load_timeline(config, "ann_marsh")
    texts = [post.text for post in timeline.posts if not post.is_retweet]
    assert "mine as well" in texts
    assert "not mine" not in " ".join(post.text for post in timeline.posts)


def test_the_named_outbox_is_read_and_no_other(tmp_path: Path, load: Load) -> None:
    (tmp_path / "outbox.json").write_text(OUTBOX.replace("ann_marsh", "bob"))
    (tmp_path / "actor.json").write_text(ACTOR_JSON.replace("ann_marsh", "bob"))
    named = tmp_path / "ann-outbox.json"
    named.write_text(OUTBOX)
    assert load("mastodon_archive", named, "ann_marsh").posts
    with pytest.raises(SourceError, match="is the archive of ann_marsh"):
        load("mastodon_archive", named, "bob")
    assert load("mastodon_archive", tmp_path / "outbox.json", "bob").display_name == "Ann <Marsh>"


def test_texts_by_language_are_read_and_addresses_are_told(tmp_path: Path, load: Load) -> None:
    by_language = note(10**17 + 9, "", [PUBLIC], [])
    by_language["object"] |= {"content": None, "contentMap": {"en": "<p>the pond</p>"}}
    box = {"orderedItems": [by_language, {**BOX[0], "object": f"{ACTOR}/statuses/8"}]}
    (tmp_path / "outbox.json").write_text(json.dumps(box))
    timeline = load("mastodon_archive", tmp_path / "outbox.json", "ann_marsh")
    assert [post.text for post in timeline.posts] == ["the pond"]
    assert timeline.notes == ("outbox.json: 1 skipped: an address in the place of a post",)
