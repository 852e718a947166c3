"""The account archive of X, in every form it had."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.records import Timeline

Load = Callable[..., Timeline]
ZipMaker = Callable[..., Path]

ARCHIVES = [
    ("archive-2018-monthly", "geoinquiets", "Geo Inquiets 🌍", 29),
    ("archive-2020", "lumeninferius", "Lumen Inferius", 22),
    ("archive-2023", "anyone", "anyone", 29),
    ("archive-2024-notes", "alrocar", "alrocar 🥘", 36),
    ("archive-multipart", "andreruffert", "André Ruffert", 30),
    ("edge/bom-crlf", "anyone", "anyone", 1),
    ("edge/semicolon", "anyone", "anyone", 1),
    ("edge/unwrapped-2018", "anyone", "anyone", 2),
    ("edge/empty-list", "anyone", "anyone", 0),
]


@pytest.fixture(scope="session")
def formats(shared: Path) -> Path:
    return shared / "tweets" / "formats"


def zip_folder(folder: Path, path: Path, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, top + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize(("name", "handle", "display_name", "num"), ARCHIVES)
def test_real_archives(
    formats: Path, tmp_path: Path, load: Load, name: str, handle: str, display_name: str, num: int
) -> None:
    timeline = load("x_archive", formats / name, handle)
    assert (timeline.handle, timeline.display_name, len(timeline.posts)) == (
        handle,
        display_name,
        num,
    )
    ids = [int(post.id) for post in timeline.posts]
    assert ids == sorted(set(ids), reverse=True)
    assert all(post.created_at for post in timeline.posts)
    for top in ("", "twitter-2022-11-14-abc/"):
        zipped = zip_folder(formats / name, tmp_path / f"a{len(top)}.zip", top)
        assert load("x_archive", zipped, handle).posts == timeline.posts


@pytest.mark.parametrize(
    ("name", "message"), [("cut-off", "cut off or damaged"), ("zero-bytes", "tweets.js is empty")]
)
def test_archives_damaged_beyond_use(formats: Path, load: Load, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load("x_archive", formats / "edge" / name, "anyone")


def test_a_cut_archive_gives_the_posts_before_the_cut(
    formats: Path, make_zip: ZipMaker, load: Load
) -> None:
    text = (formats / "archive-2023/data/tweets.js").read_text(encoding="utf-8")
    timeline = load("x_archive", make_zip({"data/tweets.js": text[:-500]}), "anyone")
    assert len(timeline.posts) == 28
    assert timeline.notes == (
        "archive.zip: 1 skipped: tweets.js is cut off or damaged from there on",
    )


def test_old_archives_tell_retweets_by_field_new_ones_do_not(formats: Path, load: Load) -> None:
    old = load("x_archive", formats / "archive-2018-monthly", "geoinquiets").posts
    assert [post.is_retweet for post in old].count(True) == 10
    assert not any("…" in post.text for post in old if post.is_retweet)
    new = load("x_archive", formats / "archive-2024-notes", "alrocar").posts
    assert {post.is_retweet for post in new} == {None}


def test_the_csv_stands_in_for_missing_months(formats: Path, tmp_path: Path, load: Load) -> None:
    source = formats / "archive-2018-monthly"
    whole = load("x_archive", source, "geoinquiets").posts
    shutil.copy(source / "tweets.csv", tmp_path / "tweets.csv")
    from_csv = load("x_archive", tmp_path, "geoinquiets").posts
    assert [(post.id, post.is_retweet, post.created_at) for post in from_csv] == [
        (post.id, post.is_retweet, post.created_at) for post in whole
    ]


def test_a_single_js_file_is_its_archive(formats: Path, load: Load) -> None:
    timeline = load("x_archive", formats / "archive-2020/data/tweet.js", "lumeninferius")
    assert len(timeline.posts) == 22


def test_long_posts_are_joined(formats: Path, load: Load) -> None:
    timeline = load("x_archive", formats / "archive-2024-notes", "alrocar")
    entries = json.loads(
        (formats / "archive-2024-notes/data/note-tweet.js").read_text("utf-8").split("=", 1)[1]
    )
    texts = [post.text for post in timeline.posts]
    wholes = [entry["noteTweet"]["core"]["text"] for entry in entries]
    escaped = [
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for text in wholes
    ]
    found = [sum(text.endswith(whole) for text in texts) for whole in escaped]
    assert found == [1] * len(wholes)
    reply = next(text for text in texts if text.startswith("@borlanco @Longor A tope"))
    assert len(reply) > 280
    assert timeline.notes == (
        "archive-2024-notes: 5 posts were edited later; the last version counts",
    )


def note_js(*notes: tuple[int, str, str]) -> str:
    entries = [
        {"noteTweet": {"noteTweetId": str(number), "createdAt": date, "core": {"text": text}}}
        for number, date, text in notes
    ]
    return "window.YTD.note_tweet.part0 = " + json.dumps(entries)


def test_long_posts_of_one_second_go_to_the_right_post(
    make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load
) -> None:
    base = 1_700_000_000_000_000_000
    posts = [(base + 2, "@a @b one &amp; only… https://t.co/x"), (base + 4, "two and more…")]
    second = "2023-09-08T04:00:00.000Z"
    far = base - (10_000 << 22)
    notes = [
        (base + 3, second, "two and more, to the end"),
        (far, second, "one & only, to the <end>"),
        (base + 1, second, "three belongs to no post"),
    ]
    path = make_zip({"data/tweets.js": tweets_js(*posts), "data/note-tweet.js": note_js(*notes)})
    timeline = load("x_archive", path, "anyone")
    assert [post.text for post in timeline.posts] == [
        "two and more, to the end",
        "@a @b one &amp; only, to the &lt;end&gt;",
    ]
    assert timeline.notes == ("1 of 3 long posts in note-tweet.js belong to no post; left out",)


def test_superseded_edits_are_dropped(
    make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load
) -> None:
    first = tweets_js((1, "teh"), edit_info={"initial": {"editTweetIds": ["1", "2"]}})
    last = tweets_js(
        (2, "the"), edit_info={"edit": {"editControlInitial": {"editTweetIds": ["1", "2"]}}}
    )
    path = make_zip({"data/tweets.js": first, "data/tweets-part1.js": last})
    assert [post.text for post in load("x_archive", path, "x").posts] == ["the"]


def test_private_files_are_not_even_opened(
    tmp_path: Path, tweets_js: Callable[..., str], load: Load
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "tweets.js").write_text(tweets_js((1, "public")))
    (data / "community-tweet.js").write_text(tweets_js((2, "in a community"), name="community"))
    for name in (
        "twitter-circle-tweet",
        "deleted-tweets",
        "tweet-headers",
        "like",
        "direct-messages",
        "direct-messages-group",
        "email-address-change",
        "ad-engagements",
        "note-tweets-private",
    ):
        (data / f"{name}.js").symlink_to("/nowhere")  # opening, or even a look, would fail
    timeline = load("x_archive", tmp_path, "anyone")
    assert [post.text for post in timeline.posts] == ["in a community", "public"]
    assert timeline.notes == ()


def test_the_email_goes_nowhere(
    make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load
) -> None:
    account = {"email": "secret@example.invalid", "username": "Ann", "accountDisplayName": "Ann A."}
    path = make_zip(
        {
            "data/account.js": "window.YTD.account.part0 = " + json.dumps([{"account": account}]),
            "data/tweets.js": tweets_js((1, "hello")),
        }
    )
    assert "secret" not in repr(load("x_archive", path, "ann"))
    with pytest.raises(SourceError) as caught:
        load("x_archive", path, "bob")
    assert "secret" not in str(caught.value)
    assert "is the archive of Ann, not of bob; use user=Ann" in str(caught.value)


def test_the_manifest_names_owner_and_missing_parts(
    make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load
) -> None:
    manifest = {
        "userInfo": {"userName": "ann", "displayName": "Ann"},
        "dataTypes": {
            "tweets": {
                "files": [{"fileName": "data/tweets.js"}, {"fileName": "data/tweets-part1.js"}]
            }
        },
    }
    members = {
        "data/manifest.js": "window.__THAR_CONFIG = " + json.dumps(manifest),
        "data/tweets.js": tweets_js((1, "hello")),
    }
    timeline = load("x_archive", make_zip(members), "ann")
    assert timeline.display_name == "Ann"
    assert timeline.notes == ("manifest.js lists 'tweets-part1.js', which is missing",)
    with pytest.raises(SourceError, match="is the archive of ann, not of bob"):
        load("x_archive", make_zip(members), "bob")


@pytest.mark.parametrize("username", ["../../etc", "a b", "", 7, None, "x" * 99])
def test_a_malformed_owner_is_no_owner(
    make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load, username: object
) -> None:
    account = json.dumps([{"account": {"username": username, "accountDisplayName": 3}}])
    path = make_zip({"data/account.js": account, "data/tweets.js": tweets_js((1, "hello"))})
    assert load("x_archive", path, "anyone").display_name == "anyone"


def test_a_folder_of_archives_is_searched_by_handle(
    tmp_path: Path, make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load
) -> None:
    make_zip({"data/tweets.js": tweets_js((1, "of ann"))}, "Ann.zip")
    (tmp_path / "bob" / "data").mkdir(parents=True)
    (tmp_path / "bob" / "data" / "tweets.js").write_text(tweets_js((1, "of bob")))
    assert load("x_archive", tmp_path, "ann").posts[0].text == "of ann"
    assert load("x_archive", tmp_path, "bob").posts[0].text == "of bob"
    with pytest.raises(SourceError, match=r"no archive of user anna; .*nearest: 'Ann'"):
        load("x_archive", tmp_path, "anna")


def test_two_archives_in_one_are_refused(
    make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load
) -> None:
    path = make_zip({f"{top}/data/tweets.js": tweets_js((1, "x")) for top in "ab"})
    with pytest.raises(SourceError, match=r"more than one archive \('a/data/', 'b/data/'\)"):
        load("x_archive", path, "x")


def test_a_zip_that_is_no_archive_says_what_was_expected(make_zip: ZipMaker, load: Load) -> None:
    with pytest.raises(SourceError, match="expected the account archive from X"):
        load("x_archive", make_zip({"holiday.jpg": b"\xff\xd8"}), "x")


@pytest.mark.parametrize(
    "content",
    [
        "alert(1); window.YTD = [",
        "window.YTD.tweets.part0 = fetch('https://evil.invalid')",
        "<html>",
        "window.YTD.tweets.part0 = [" + "[" * 100_000,
        "window.YTD.tweets.part0 = " + '[{"a":' * 100_000,
        'window.YTD.tweets.part0 = ["' + "x" * 9_000_000,
    ],
)
def test_what_is_no_list_of_posts_is_one_sentence(
    make_zip: ZipMaker, load: Load, content: str
) -> None:
    with pytest.raises(SourceError, match="got no readable post"):
        load("x_archive", make_zip({"data/tweets.js": content}), "x")


def test_code_after_the_list_is_never_run_and_noted(
    make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load
) -> None:
    path = make_zip({"data/tweets.js": tweets_js((1, "x")) + ";\nimport('os')"})
    timeline = load("x_archive", path, "x")
    assert len(timeline.posts) == 1
    assert "damaged from there on" in timeline.notes[0]


def test_a_flipped_byte_is_noticed_by_the_checksum(
    make_zip: ZipMaker, tweets_js: Callable[..., str], load: Load
) -> None:
    posts = [(number, f"post {number * 7919}") for number in range(1, 2000)]
    path = make_zip({"data/tweets.js": tweets_js(*posts)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    timeline = load("x_archive", path, "x")
    assert 0 < len(timeline.posts) < 2000
    assert any("damaged" in note for note in timeline.notes)
