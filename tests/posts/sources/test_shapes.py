"""JSON taken apart: real answers of the X API, wrappers, and shapes that are none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.record import CLOSED, Draft, Reader
from huggingtweets.posts.reading.shapes import KNOWN, records_of
from huggingtweets.posts.reading.timeline import RawPost, Skip
from huggingtweets.posts.records import Timeline

Load = Callable[..., Timeline]


def posts_of(value: Any) -> list[RawPost | Skip]:
    """Read one JSON value, each record for itself."""
    reader = Reader(SourceConfig(kind=SourceKind.jsonl, path="f"))
    found: list[RawPost | Skip] = []
    for record in records_of(value):
        if isinstance(record, dict) and KNOWN in record:
            continue
        one = reader.read(record) if isinstance(record, dict) else record
        assert not isinstance(one, str)
        found.append(one.post if isinstance(one, Draft) else one)
    return found


@pytest.fixture(scope="session")
def formats(shared: Path) -> Path:
    return shared / "tweets" / "formats"


@pytest.mark.parametrize(
    ("name", "handle", "num", "num_retweets"),
    [
        ("compat_JDMahama", "jdmahama", 30, 8),
        ("compat_TweepyDev", "tweepydev", 4, 0),
        ("compat_hatoyamayukio", "hatoyamayukio", 12, 3),
        ("compat_ivojosipovic", "ivojosipovic", 12, 3),
        ("extended", "simonw", 3, 1),
    ],
)
def test_v1_timelines(
    formats: Path, load: Load, name: str, handle: str, num: int, num_retweets: int
) -> None:
    timeline = load("jsonl", formats / "v1.1" / f"user_timeline_{name}.json", handle)
    assert len(timeline.posts) == num
    assert [post.is_retweet for post in timeline.posts].count(True) == num_retweets
    assert all(post.is_retweet is not None and post.created_at for post in timeline.posts)
    assert timeline.notes == ()


def test_v1_ids_come_from_the_text_not_the_rounded_number(formats: Path, load: Load) -> None:
    timeline = load("jsonl", formats / "v1.1/user_timeline_extended.json", "simonw")
    assert timeline.posts[0].id == "1169246717864136705"


def test_v1_retweets_are_whole(formats: Path, load: Load) -> None:
    timeline = load("jsonl", formats / "v1.1/user_timeline_extended.json", "simonw")
    text = timeline.posts[0].text
    assert text.startswith("RT @drvox: My new post: an explainer on “carbon capture &amp;")
    assert "…" not in text


@pytest.mark.parametrize(
    ("name", "handle", "num"),
    [
        ("users_tweets_full_synthetic.json", "some_one", 4),
        ("users_tweets_last_page_synthetic.json", "anyone", 0),
        ("users_tweets_minimal.json", "anyone", 2),
        ("lookup_mentions_tweet.jsonl", "baldmangamer", 1),
        ("lookup_edited_after.jsonl", "wongmjane", 1),
        ("lookup_verified_type.jsonl", "twitterdev", 1),
        ("saved_data_Reuters.json", "reuters", 40),
    ],
)
def test_v2_answers(formats: Path, load: Load, name: str, handle: str, num: int) -> None:
    timeline = load("jsonl", formats / "v2" / name, handle)
    assert len(timeline.posts) == num
    assert timeline.notes == ()


def test_v2_long_posts_and_retweets_are_whole(formats: Path, load: Load) -> None:
    path = formats / "v2/users_tweets_full_synthetic.json"
    long, retweet, reply, quote = load("jsonl", path, "some_one").posts
    assert long.text.endswith("this one: end.")
    assert retweet.text.startswith("RT @other_one: The original of a retweet is longer")
    assert retweet.text.endswith("the full text is in includes.")
    assert [one.is_retweet for one in (long, retweet, reply, quote)] == [False, True, False, False]


def test_v2_display_name_comes_from_the_included_user(formats: Path, load: Load) -> None:
    path = formats / "v2/lookup_mentions_tweet.jsonl"
    assert load("jsonl", path, "baldmangamer").display_name == "BmG"
    with pytest.raises(SourceError, match="nearest: 'baldmangamer'"):
        load("jsonl", path, "s3nt1n3l17")  # only included, not an author


def test_v2_empty_references_of_the_r_client_mean_no_retweet(formats: Path, load: Load) -> None:
    timeline = load("jsonl", formats / "v2/saved_data_Reuters.json", "reuters")
    assert {post.is_retweet for post in timeline.posts} == {False}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v1.1/error_no_user.json", "Sorry, that page does not exist"),
        ("v1.1/error_not_authorized.json", "Not authorized"),
        ("v2/error_no_user_synthetic.json", "Could not find user with username"),
    ],
)
def test_error_answers_are_told(formats: Path, load: Load, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load("jsonl", formats / name, "anyone")


def test_the_list_of_users_beside_saved_posts_has_no_posts(formats: Path, load: Load) -> None:
    with pytest.raises(SourceError, match="people without posts"):
        load("jsonl", formats / "v2/saved_users_Reuters.json", "reuters")


def test_a_page_with_an_older_version_drops_it() -> None:
    old = {"id": "1", "text": "teh", "edit_history_tweet_ids": ["1", "2"]}
    new = {"id": "2", "text": "the", "edit_history_tweet_ids": ["1", "2"]}
    first, second = posts_of({"data": [new, old]})
    assert isinstance(first, RawPost)
    assert isinstance(second, RawPost)
    assert (first.is_outdated, first.older_ids, second.is_outdated) == (False, ("1",), True)


def test_an_author_who_is_not_included_is_not_the_one_asked_for(tmp_path: Path, load: Load) -> None:
    page = {
        "data": [
            {"id": "1", "text": "x", "author_id": "9"},
            {"id": "2", "text": "y", "author_id": "8"},
        ],
        "includes": {"users": [{"id": "8", "username": "nasa"}]},
    }
    (tmp_path / "f.json").write_text(json.dumps(page))
    assert [post.text for post in load("jsonl", tmp_path / "f.json", "nasa").posts] == ["y"]
    page["data"] = page["data"][:1]
    (tmp_path / "f.json").write_text(json.dumps(page))
    with pytest.raises(SourceError, match="no post of user nasa"):
        load("jsonl", tmp_path / "f.json", "nasa")


@pytest.mark.parametrize("value", [None, 1, [], {}, {"id": 1}, {"user": {"name": "x"}}])
def test_other_values_are_no_posts(value: Any) -> None:
    assert all(isinstance(post, Skip) for post in posts_of(value))


@pytest.mark.parametrize(
    "value",
    [
        {"data": [None, 3, [], {}]},
        {"data": [{"text": 3}]},
        {"data": {"text": None}},
        {"tweet": {"full_text": None}},
        {"tweet": {}},
        {"user": {"screen_name": 3}, "text": None},
        {"text": 5, "author_id": {}},
        {"type": [1], "messages": []},
        {"errors": [{"message": "no"}]},
    ],
)
def test_misshapen_answers_are_counted(value: Any) -> None:
    posts = posts_of(value)
    assert posts
    assert all(isinstance(post, Skip) for post in posts)


def test_misshapen_parts_do_not_matter() -> None:
    post = {
        "id": {},
        "text": "RT @a: x…",
        "author_id": [],
        "created_at": 5.5,
        "referenced_tweets": [None, {"type": "retweeted"}, 3],
        "note_tweet": [],
        "edit_history_tweet_ids": {"0": None},
    }
    posts = posts_of({"data": [post], "includes": {"users": {}, "tweets": [None]}})
    assert posts == [RawPost("RT @a: x…", is_retweet=True)]


def test_twarc_lines_are_pages(tmp_path: Path, load: Load) -> None:
    pages = [{"data": [{"id": str(n), "text": f"post {n}"}], "__twarc": {}} for n in range(3)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(page) for page in pages))
    assert len(load("jsonl", tmp_path, "a").posts) == 3


@pytest.mark.parametrize("key", ["liked_tweets", "favorites", "my_bookmarks", "accounts"])
def test_lists_of_what_others_wrote_have_no_posts(key: str, tmp_path: Path, load: Load) -> None:
    """Scrapers keep likes beside a profile, Mastodon the accounts of a conversation."""
    value = {"username": "ann", key: [{"id": "1", "text": "theirs", "note": "theirs"}]}
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(SourceError, match="no readable post"):
        load("jsonl", tmp_path / "a.json", "ann")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"visibility": "direct", "content": "<p>x</p>"}, "a post that is not open to everyone"),
        ({"visibility": "private", "content": "<p>x</p>"}, "a post that is not open to everyone"),
        ({"acct": "ann", "note": "<p>who I am</p>"}, "a profile, no post"),
    ],
)
def test_closed_posts_and_profiles_of_mastodon_are_named_so(
    status: dict[str, Any], reason: str, tmp_path: Path, load: Load
) -> None:
    account = {"acct": "ann", "username": "ann"}
    lines = [status, {"content": "<p>open</p>", "visibility": "public", "account": account}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    timeline = load("jsonl", tmp_path / "a.jsonl", "ann")
    assert [post.text for post in timeline.posts] == ["open"]
    assert timeline.notes == (f"a.jsonl: 1 skipped: {reason} (first: line 1)",)


@pytest.mark.parametrize(
    "who", [{"user": "bob_y"}, {"username": "bob_y"}, {"author": {"handle": "@Bob_Y"}}]
)
@pytest.mark.parametrize("post", [{"text": "theirs"}, "theirs"])
def test_whose_a_list_is_stands_beside_it(
    who: dict[str, Any], post: Any, tmp_path: Path, load: Load
) -> None:
    """A record without an author is by whom its list is: never by whoever was asked for."""
    path = tmp_path / "ann.json"
    path.write_text(json.dumps({**who, "tweets": [post]}))
    with pytest.raises(SourceError, match="there is 1 other user, nearest: 'bob_y'"):
        load("jsonl", path, "ann_x")
    mine = {"user": "ann_x", "tweets": [{"text": "mine"}, {"text": "re", "user": "bob_y"}]}
    path.write_text(json.dumps([{**who, "tweets": [post]}, mine]))
    assert [post.text for post in load("jsonl", path, "ann_x").posts] == ["mine"]


def test_a_feed_says_once_whose_it_is(tmp_path: Path, load: Load) -> None:
    authors = [{"name": "Bob", "url": "https://example.org/@bob_y"}]
    items = [{"id": "1", "content_text": "theirs"}]
    (tmp_path / "a.json").write_text(json.dumps({"items": items, "authors": authors}))
    with pytest.raises(SourceError, match="other user, nearest: 'bob_y'"):
        load("jsonl", tmp_path / "a.json", "ann_x")
    assert len(load("jsonl", tmp_path / "a.json", "bob_y").posts) == 1


def test_an_activity_may_have_its_actor_inside(tmp_path: Path, load: Load) -> None:
    public = "https://www.w3.org/ns/activitystreams#Public"
    actor = {"type": "Person", "url": "https://mast.example/@bob_y"}
    note = {"type": "Note", "content": "<p>theirs</p>", "to": [public]}
    activity = {"type": "Create", "actor": actor, "object": note}
    (tmp_path / "a.json").write_text(json.dumps(activity))
    assert [post.text for post in load("jsonl", tmp_path / "a.json", "bob_y").posts] == ["theirs"]
    with pytest.raises(SourceError, match="other user, nearest: 'bob_y'"):
        load("jsonl", tmp_path / "a.json", "ann_x")


@pytest.mark.parametrize("value", [{"@bob_y": ["theirs"]}, {"@bob_y": [{"text": "theirs"}]}])
def test_a_list_may_be_called_by_its_author(value: Any, tmp_path: Path, load: Load) -> None:
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(SourceError, match="other user, nearest: 'bob_y'"):
        load("jsonl", tmp_path / "a.json", "ann_x")
    assert len(load("jsonl", tmp_path / "a.json", "bob_y").posts) == 1


@pytest.mark.parametrize(
    "value",
    [
        json.dumps([{"text": "a", "user": "ann"}]),
        {"rows": [{"id": "x", "doc": {"text": "a", "user": "ann"}}]},
    ],
)
def test_json_in_json_and_databases(value: Any, tmp_path: Path, load: Load) -> None:
    """A list as a JSON string, as `dumps` twice writes it; a view of CouchDB."""
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert [post.text for post in load("jsonl", tmp_path / "a.json", "ann").posts] == ["a"]


@pytest.mark.parametrize(
    "inner",
    [
        {"ann": {"tweets": [{"text": "mine"}]}, "bob": {"tweets": [{"text": "his"}]}},
        {"ann": {"bio": "x", "posts": ["mine"]}, "bob": {"posts": ["his"]}},
        {"ann": [{"text": "mine"}], "bob": [{"text": "his"}]},
        {"ann": ["mine"], "bob": ["his"]},
        {"ann": {"text": "mine"}, "bob": {"text": "his"}},
        [{"username": "ann", "tweets": ["mine"]}, {"username": "bob", "tweets": ["his"]}],
    ],
)
@pytest.mark.parametrize("key", ["users", "accounts", "people"])
def test_people_by_handle_have_their_own_posts(
    tmp_path: Path, load: Load, key: str, inner: object
) -> None:
    (tmp_path / "f.json").write_text(json.dumps({key: inner}))
    assert [post.text for post in load("jsonl", tmp_path / "f.json", "ann").posts] == ["mine"]


@pytest.mark.parametrize("inner", [{}, {"ann": {"name": "Ann", "followers_count": 3}}, []])
def test_people_without_posts_are_told(tmp_path: Path, load: Load, inner: object) -> None:
    (tmp_path / "f.json").write_text(json.dumps({"users": inner}))
    with pytest.raises(SourceError, match="people without posts; expected a file that has what"):
        load("jsonl", tmp_path / "f.json", "ann")


COLUMNS = {"username": ["ann", "bob", "ann"], "tweet": ["mine", "his", "mine too"]}
OLD_PAGE = {
    "tweets": {str(n): {"full_text": text, "user_id_str": str(n % 2), "id_str": str(n)}
               for n, text in ((11, "his"), (12, "mine"), (14, "mine too"))},
    "users": {str(n): {"id_str": str(n), "screen_name": name}
              for n, name in enumerate(("ann", "bob"))},
}  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        COLUMNS,
        {"columns": [{"name": key, "values": column} for key, column in COLUMNS.items()]},
        {"globalObjects": OLD_PAGE, "timeline": {"instructions": []}},
        {"tweets": [*OLD_PAGE["tweets"].values()], "users": [*OLD_PAGE["users"].values()]},
        {
            "status": "ok",
            "message": "All posts were found",
            "items": [{"author": a, "text": t} for a, t in zip(*COLUMNS.values(), strict=True)],
        },
        [
            {"_json": {"user": {"screen_name": a}}, "full_text": t, "user": "User(_api=1)"}
            for a, t in zip(*COLUMNS.values(), strict=True)
        ],
        [
            {"user": f"User(id=1, screen_name='{a}')", "text": t}
            for a, t in zip(*COLUMNS.values(), strict=True)
        ],
    ],
    ids=["to_dict", "polars", "adaptive", "users beside", "envelope", "tweepy", "printed"],
)
def test_only_ones_own_come_out_of(tmp_path: Path, load: Load, value: object) -> None:
    (tmp_path / "f.json").write_text(json.dumps(value))
    texts = {post.text for post in load("jsonl", tmp_path / "f.json", "ann").posts}
    assert texts == {"mine", "mine too"}


def test_posts_of_a_page_of_xs_come_also_alone(tmp_path: Path, load: Load) -> None:
    core = {"user_results": {"result": {"core": {"screen_name": "ann"}}}}
    result = {"rest_id": "1", "core": core, "legacy": {"full_text": "mine"}}
    entry = {"content": {"itemContent": {"tweet_results": {"result": result}}}}
    (tmp_path / "f.jsonl").write_text(json.dumps(entry) + "\n")
    assert [post.text for post in load("jsonl", tmp_path / "f.jsonl", "ann").posts] == ["mine"]


CAPTION = {"edge_media_to_caption": {"edges": [{"node": {"text": "mine"}}]}}
BELOW = [{"text": "his"}]
INSIDE: list[dict[str, Any]] = [
    {"author": "ann", "context": ["his"], "target": "mine"},
    {"author": "ann", "caption_text": "mine", "top_comments": ["his"]},
    {"author": "ann", "msg": "mine", "responses": BELOW},
    {"author": "ann", "msg": "mine", "quotes": BELOW},
    {"author": "ann", "msg": "mine", "labels": ["x"], "urls": ["https://a.example"]},
    {"author": "ann", "msg": "mine", "remarks": BELOW},
    {"msg": "mine too", "remarks": BELOW, "keywords": ["his"]},
    {"id": 1, "image": "x.jpg", "comments": BELOW},
    {"author": "ann", "text": None, "comments": BELOW},
    {"data": [{"username": "ann", "media_url": "x", "comments": {"data": BELOW}}]},
]


@pytest.mark.parametrize("value", INSIDE)
def test_lists_inside_a_post_hold_none_of_its_author(
    value: dict[str, Any], tmp_path: Path, load: Load
) -> None:
    """What a post is about, and what others wrote below it; its own text is named by the user."""
    (tmp_path / "f.jsonl").write_text(json.dumps(value) + "\n")
    with pytest.raises(SourceError, match=r"no text (that is known|in the column)"):
        load("jsonl", tmp_path / "f.jsonl", "ann")
    column = next((key for key in ("target", "caption_text", "msg") if key in value), None)
    if column is not None:
        [post] = load("jsonl", tmp_path / "f.jsonl", "ann", text_column=column).posts
        assert post.text.startswith("mine")


@pytest.mark.parametrize(
    "value",
    [
        {"username": "ann", "comments": [{"text": "mine"}]},
        {"username": "ann", "rants": [{"text": "mine"}]},
        {"author": "ann", "quotes": ["mine"]},
    ],
)
def test_an_author_beside_a_list_holds_for_it(tmp_path: Path, load: Load, value: object) -> None:
    (tmp_path / "f.json").write_text(json.dumps(value))
    assert [post.text for post in load("jsonl", tmp_path / "f.json", "ann").posts] == ["mine"]


@pytest.mark.parametrize("column", ["expanded_urls", "video"])
def test_links_in_a_post_name_nobody_who_wrote_it(tmp_path: Path, load: Load, column: str) -> None:
    links = [f"https://x.com/{name}/status/{n}55" for n, name in enumerate(["ann"] * 5 + ["bob"])]
    rows = "".join(f"{n},text {n},{link}\n" for n, link in enumerate(links))
    (tmp_path / "f.csv").write_text(f"id,text,{column}\n{rows}")
    assert len(load("csv", tmp_path / "f.csv", "ann").posts) == 6


@pytest.mark.parametrize("empty", ["\\N", "0000-00-00 00:00:00"])
def test_what_mysql_writes_for_never_is_no_deletion(tmp_path: Path, load: Load, empty: str) -> None:
    (tmp_path / "f.csv").write_text(f"id,text,deleted_at\n1,mine,{empty}\n2,his,2024-01-01\n")
    assert [post.text for post in load("csv", tmp_path / "f.csv", "ann").posts] == ["mine"]


def test_captions_come_without_what_is_below_them(tmp_path: Path, load: Load) -> None:
    below = {"edge_media_to_comment": {"edges": [{"node": {"text": "his"}}]}}
    value = {"shortcode": "x", "owner": {"username": "ann"}, **CAPTION, **below}
    (tmp_path / "f.json").write_text(json.dumps([value]))
    assert [post.text for post in load("jsonl", tmp_path / "f.json", "ann").posts] == ["mine"]


@pytest.mark.parametrize("key", ["target_posts", "string_map", "politics", "home_timeline"])
def test_a_key_that_is_no_container_is_not_taken_for_a_user(
    key: str, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "f.json").write_text(json.dumps({key: BELOW}))
    with pytest.raises(SourceError, match=f"list under the key '{key}', and nothing says whose"):
        load("jsonl", tmp_path / "f.json", "ann")
    assert len(load("jsonl", tmp_path / "f.json", "ann", user_column="").posts) == 1


@pytest.mark.parametrize("key", ["mentions", "inbox", "saved_posts", "retweets", "dialog"])
def test_lists_of_others_are_no_lists_of_posts(key: str, tmp_path: Path, load: Load) -> None:
    (tmp_path / "f.json").write_text(json.dumps({key: BELOW}))
    with pytest.raises(SourceError, match=f"no text that is known .*'{key}'"):
        load("jsonl", tmp_path / "f.json", "ann")


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ({"comment": {"text": "mine"}, "post": {"text": "his"}, "author": "ann"}, "post.text"),
        ({"response": {"text": "mine"}, "tweet": {"text": "his"}, "user": "ann"}, "tweet.text"),
        ({"reply": "mine it is", "tweet": "his", "author": "ann"}, "tweet"),
    ],
)
def test_of_two_texts_nobody_can_tell_which_is_whose(
    value: dict[str, Any], other: str, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "f.jsonl").write_text(json.dumps(value) + "\n")
    column = next(iter(value)) + other.removeprefix("post").removeprefix("tweet")
    with pytest.raises(SourceError, match=f"texts in '{other}', '{column}'; set source.text_colum"):
        load("jsonl", tmp_path / "f.jsonl", "ann")
    [post] = load("jsonl", tmp_path / "f.jsonl", "ann", text_column=column).posts
    assert post.text.startswith("mine")


@pytest.mark.parametrize(
    "value",
    [
        {  # Lemmy
            "comment": {"content": "mine", "creator_id": 2},
            "creator": {"name": "ann"},
            "post": {"name": "Title", "body": "his"},
        },
        {
            "tweet": {"text": "his", "user": {"screen_name": "bob"}},
            "reply": {"text": "mine", "user": {"screen_name": "ann"}},
        },
        {"tweet": {"text": "his", "user": {"screen_name": "bob"}}, "reply": {"text": "mine"},
         "author": "ann"},
    ],
)  # fmt: skip
def test_of_two_texts_each_is_by_whom_it_names(
    value: dict[str, Any], tmp_path: Path, load: Load
) -> None:
    (tmp_path / "f.jsonl").write_text(json.dumps(value) + "\n")
    assert [post.text for post in load("jsonl", tmp_path / "f.jsonl", "ann").posts] == ["mine"]


def facebook(text: str, title: str) -> dict[str, Any]:
    return {"timestamp": 1700000000, "data": [{"post": text}], "title": title}


def test_the_titles_of_facebook_say_who_did_what(tmp_path: Path, load: Load) -> None:
    own = [facebook("mine", "Ann Marsh updated her status."), facebook("too", "Ann Marsh hat was")]
    theirs = facebook("his", "Bob Reed wrote on Ann Marsh's timeline.")
    (tmp_path / "f.json").write_text(json.dumps([*own, theirs]))
    timeline = load("jsonl", tmp_path / "f.json", "ann")
    assert {post.text for post in timeline.posts} == {"mine", "too"}
    assert timeline.display_name == "Ann Marsh"
    assert timeline.posts[0].created_at == "2023-11-14T22:13:20Z"
    assert any("written on a timeline" in note for note in timeline.notes)
    (tmp_path / "f.json").write_text(json.dumps([*own, facebook("his", "Bob Reed posted in A.")]))
    with pytest.raises(SourceError, match=r"source.user_column=author.name .*user=ann_marsh for"):
        load("jsonl", tmp_path / "f.json", "ann")


def test_comments_from_facebook_and_instagram_are_ones_own(tmp_path: Path, load: Load) -> None:
    comment = {"timestamp": 1, "comment": "mine", "author": "Ann Marsh"}
    facebook = {"comments_v2": [{"timestamp": 1, "data": [{"comment": comment}], "title": "A b"}]}
    texts = {"Comment": {"value": "mine"}, "Media Owner": {"value": "bob"}}
    for value in (facebook, {"comments_reels_comments": [{"string_map_data": texts}]}):
        (tmp_path / "f.json").write_text(json.dumps(value))
        assert [post.text for post in load("jsonl", tmp_path / "f.json", "ann").posts] == ["mine"]


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        ({"privacy": "friends"}, CLOSED.reason),
        ({"Visibility": "CONNECTIONS"}, CLOSED.reason),
        ({"user": {"screen_name": "ann", "protected": True}}, CLOSED.reason),
        ({"deleted_at": "2023-01-01"}, "a deleted post"),
        ({"isDeleted": "t"}, "a deleted post"),
        ({"pubkey": "a", "sig": "b", "kind": 4}, "an event of Nostr that is no note"),
        ({"pubkey": "a", "sig": "b", "kind": 6}, "an event of Nostr that is no note"),
    ],
)
def test_what_is_not_for_all_is_left_out(
    mark: dict[str, Any], reason: str, tmp_path: Path, load: Load
) -> None:
    lines = [{"text": "no", "user": "ann", **mark}, {"text": "open", "user": "ann"}]
    lines += [{"text": f"{n}", "user": "ann", key: value} for n, (key, value) in enumerate(
        {"privacy": "public", "isDeleted": "f", "deleted_at": None, "protected": False}.items()
    )]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    timeline = load("jsonl", tmp_path / "a.jsonl", "ann")
    assert {post.text for post in timeline.posts} == {"open", "0", "1", "2", "3"}
    assert timeline.notes == (f"a.jsonl: 1 skipped: {reason} (first: line 1)",)
