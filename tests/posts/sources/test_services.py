"""Fetching from the three services: undisturbed, disturbed, interrupted, refused, lied to."""

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_services import DID, FakeService, quick, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from huggingtweets.config.posts_schema import CleaningConfig, SourceConfig, SourceKind, Terms
from huggingtweets.errors import ConfigError, HuggingtweetsError, SourceError
from huggingtweets.posts.cleaning import clean_text
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.bluesky import host_of
from huggingtweets.posts.sources.http import UnavailableError
from huggingtweets.posts.sources.load import check_source, fetch_timeline, load_timeline
from huggingtweets.posts.sources.mastodon import html_to_text
from huggingtweets.posts.sources.paging import partial_path
from huggingtweets.posts.sources.x_api import estimate_usd, read_x_api
from huggingtweets.posts.spending import Spending

SERVICES = ["x_api", "bluesky", "mastodon"]
PAGES = {"x_api": "/2/users/7/tweets", "bluesky": "getAuthorFeed", "mastodon": "/7/statuses"}
HANDLES = {"x_api": "ann", "bluesky": "ann.bsky.social", "mastodon": "ann"}


def texts(num: int) -> list[str]:
    rng = random.Random(num)
    words = ["snow", "tea", "&", "<b>", "ゆき", "🍵", "long" * 40, "https://x.y/z"]
    return [f"post {n} " + " ".join(rng.choices(words, k=rng.randrange(1, 6))) for n in range(num)]


@pytest.fixture(scope="module")
def large() -> Iterator[FakeService]:
    with serving(texts(3200)) as server:
        yield server


@pytest.fixture
def server() -> Iterator[FakeService]:
    with serving(texts(450)) as running:
        yield running


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_BEARER_TOKEN", "t0ken")
    monkeypatch.delenv("MASTODON_TOKEN", raising=False)


def source_of(kind: str, server: FakeService, **config: Any) -> SourceConfig:
    usual = {"terms": Terms.accepted, "max_cost_usd": 1e6}
    return SourceConfig(kind=SourceKind(kind), api_url=server.url, **(usual | config))


def fetch(kind: str, server: FakeService, known: frozenset[str] = frozenset(), **config: Any):
    source = source_of(kind, server, **config)
    return fetch_timeline(source, HANDLES[kind], known=known, patience=quick())


def bodies(timeline: Timeline) -> list[str]:
    return [post.text.split()[1] for post in timeline.posts]


# --- Whole timelines


@pytest.mark.parametrize("kind", SERVICES)
def test_with_a_third_of_the_requests_failing_nothing_differs(
    large: FakeService, kind: str
) -> None:
    large.trouble = lambda path: None
    undisturbed = fetch(kind, large)
    assert len(undisturbed.posts) == 3200
    assert bodies(undisturbed) == [str(n) for n in range(3199, -1, -1)]
    large.disturb(0.3, seed=1)
    before = len(large.requests)
    assert fetch(kind, large) == undisturbed
    pages = 80 if kind == "mastodon" else 32
    assert len(large.requests) - before > 1.15 * pages, "the disturbance did not take place"
    assert not partial_path(kind, HANDLES[kind]).exists()


@pytest.mark.parametrize("kind", SERVICES)
def test_an_interrupted_fetch_goes_on_where_it_stopped(server: FakeService, kind: str) -> None:
    whole = fetch(kind, server)
    asked = server.count(PAGES[kind])
    left = iter([None] * 2)
    server.trouble = lambda path: next(left, "500") if PAGES[kind] in path else None
    with pytest.raises(UnavailableError):
        fetch(kind, server)
    partial = partial_path(kind, HANDLES[kind])
    with partial.open("ab") as file:  # a kill in mid-write
        file.write(b'{"cursor": "x", "fou')
    server.trouble = lambda path: None
    server.requests.clear()
    assert fetch(kind, server) == whole
    assert server.count(PAGES[kind]) == asked - 2
    assert not partial.exists()


@pytest.mark.parametrize("kind", SERVICES)
def test_a_fetch_whose_cursor_is_refused_begins_anew(server: FakeService, kind: str) -> None:
    whole = fetch(kind, server)
    left = iter([None] * 2)
    server.trouble = lambda path: next(left, "500") if PAGES[kind] in path else None
    with pytest.raises(UnavailableError):
        fetch(kind, server)
    assert partial_path(kind, HANDLES[kind]).exists()
    marks = ("cursor=", "max_id=", "pagination_token=")
    refused = iter(["400"])

    def refuse(path: str) -> str | None:
        return next(refused, None) if any(mark in path for mark in marks) else None

    server.trouble = refuse
    if kind == "x_api":  # a new beginning costs money, which the next start may spend
        with pytest.raises(UnavailableError, match="is dropped; run the same command again"):
            fetch(kind, server)
    assert fetch(kind, server) == whole
    assert not partial_path(kind, HANDLES[kind]).exists()


@pytest.mark.parametrize("kind", SERVICES)
def test_what_another_request_left_is_not_used(server: FakeService, kind: str) -> None:
    left = iter([None] * 2)
    server.trouble = lambda path: next(left, "500") if PAGES[kind] in path else None
    with pytest.raises(UnavailableError):
        fetch(kind, server)
    server.trouble = lambda path: None
    assert len(fetch(kind, server, max_posts=130).posts) == 130


@pytest.mark.parametrize("kind", SERVICES)
def test_only_newer_posts_are_asked_for(server: FakeService, kind: str) -> None:
    known = frozenset(post.id for post in fetch(kind, server).posts[7:])
    server.requests.clear()
    assert bodies(fetch(kind, server, known)) == ["449", "448", "447", "446", "445", "444", "443"]
    assert server.count(PAGES[kind]) == 1
    everything = known | {post.id for post in fetch(kind, server).posts}
    assert fetch(kind, server, everything).posts == ()


@pytest.mark.parametrize("kind", SERVICES)
def test_a_cursor_that_leads_back_ends_and_is_noted(server: FakeService, kind: str) -> None:
    ask = server.answer
    back = {"pagination_token": "100", "cursor": "100", "max_id": "1410"}

    def answer(path: str, query: dict[str, str]):
        status, value, headers = ask(path, {key: query[key] for key in query if key not in back})
        if PAGES[kind] in path and any(key in query for key in back):
            return ask(path, query | {key: back[key] for key in query if key in back})
        return status, value, headers

    server.answer = answer  # type: ignore[method-assign]
    timeline = fetch(kind, server)
    assert any("leads back to an earlier page" in note for note in timeline.notes)
    assert len({post.id for post in timeline.posts}) == len(timeline.posts) > 60


@pytest.mark.parametrize("kind", SERVICES)
def test_expected_and_received_are_noted(kind: str) -> None:
    with serving(texts(3)) as server:
        assert fetch(kind, server).notes == ()
        server.posts.pop()
        for path, key in (
            ("/2/users/by/username/ann", None),
            ("/xrpc/app.bsky.actor.getProfile", "postsCount"),
            ("/api/v1/accounts/lookup", "statuses_count"),
        ):
            status, value, _ = server.answer(path, {})
            if key is None:
                value["data"]["public_metrics"]["tweet_count"] = 3
            else:
                value[key] = 3
            server.answers[path] = (status, value)
        assert any(
            "counts 3 posts" in note and "2 came" in note for note in fetch(kind, server).notes
        )


@pytest.mark.parametrize("kind", SERVICES)
def test_an_answer_of_too_much_is_cut(kind: str) -> None:
    with serving([]) as server:
        posts = [{"id": str(n), "text": "x" * 10, "content": "x" * 10} for n in range(20_000)]
        posts[0] |= {"text": "y" * 60_000, "content": "y" * 60_000}
        feed = [
            {"post": {"uri": p["id"], "author": {"did": DID}, "record": p}}  # as Bluesky nests it
            for p in posts
        ]
        server.answers = {
            "/2/users/7/tweets": (200, {"data": posts}),
            "/api/v1/accounts/7/statuses": (200, posts),
            "/xrpc/app.bsky.feed.getAuthorFeed": (200, {"feed": feed}),
        }
        timeline = fetch(kind, server)
        assert len(timeline.posts) == 1000
        assert max(len(post.text) for post in timeline.posts) == 25_000
        assert any("cut to 25000" in note for note in timeline.notes)


@pytest.mark.parametrize("kind", SERVICES)
def test_a_cache_that_cannot_be_written_stops_nothing(
    server: FakeService,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path / "file"))
    assert len(fetch(kind, server).posts) == 450
    assert caplog.text.count("cannot be written") == 1


@pytest.mark.parametrize("kind", SERVICES)
def test_through_the_common_door(server: FakeService, kind: str) -> None:
    source = source_of(kind, server)
    check_source(source)
    timeline = load_timeline(source, HANDLES[kind])
    assert (timeline.display_name, len(timeline.posts)) == ("Ann A.", 450)


@pytest.mark.parametrize("kind", SERVICES)
def test_nobody_of_that_name_is_one_sentence(server: FakeService, kind: str) -> None:
    server.answers = {
        "/2/users/by/username/ann": (200, {"errors": [{"detail": "Could not find user"}]}),
        "/xrpc/app.bsky.actor.getProfile": (400, {"error": "InvalidRequest", "message": "no"}),
        "/api/v1/accounts/lookup": (404, {"error": "Record not found"}),
    }
    with pytest.raises(SourceError, match=r"^user: .*expected a person.*check the spelling"):
        fetch(kind, server)


# --- X


def test_x_gets_the_token_and_nobody_else(server: FakeService) -> None:
    fetch("x_api", server)
    assert all(headers["Authorization"] == "Bearer t0ken" for headers in server.headers)
    server.headers.clear()
    fetch("bluesky", server)
    fetch("mastodon", server)
    assert not any("Authorization" in headers for headers in server.headers)


def test_x_long_posts_come_whole_and_retweets_are_marked(server: FakeService) -> None:
    server.answers["/2/users/7/tweets"] = (
        200,
        {
            "data": [
                {"id": "3", "text": "cut…", "note_tweet": {"text": "cut no more"}},
                {
                    "id": "2",
                    "text": "RT @bob: hi",
                    "referenced_tweets": [{"type": "retweeted", "id": "1"}],
                },
            ],
            "meta": {"result_count": 2},
        },
    )
    first, second = fetch("x_api", server).posts
    assert (first.text, first.is_retweet, second.is_retweet) == ("cut no more", False, True)


def test_x_wants_terms_and_token(server: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"foundation or frontier model.*source.terms=accepted"):
        check_source(source_of("x_api", server, terms=Terms.unread))
    monkeypatch.delenv("X_BEARER_TOKEN")
    with pytest.raises(ConfigError, match="set X_BEARER_TOKEN"):
        check_source(source_of("x_api", server))
    assert server.requests == []


def test_x_spends_nothing_that_was_not_allowed(server: FakeService) -> None:
    assert estimate_usd(10**6) == pytest.approx(16.01)

    def read(spending: Spending, **config: Any) -> Timeline:
        source = source_of("x_api", server, **config)
        return read_x_api("ann", source, patience=quick(), spending=spending)

    with pytest.raises(
        ConfigError, match=r"got none; expected 16.01 or more, as the posts of @ann"
    ):
        read(Spending(), max_cost_usd=None)
    with pytest.raises(ConfigError, match=r"got 16; expected 16.01"):
        read(Spending(), max_cost_usd=16)
    assert server.requests == []
    spending = Spending()
    assert len(read(spending, max_posts=200, max_cost_usd=2.5).posts) == 200
    assert spending.usd == pytest.approx(1.01)
    assert server.count("/2/users/7/tweets") == 2
    read(spending, max_posts=200, max_cost_usd=2.5)
    with pytest.raises(ConfigError, match=r"got 2.5; expected 3.03"):
        read(spending, max_posts=200, max_cost_usd=2.5)  # the limit is for all people together
    read(spending, max_posts=400, max_cost_usd=100)
    few = server.posts[:30]
    server.posts = few
    read(spending, max_posts=400, max_cost_usd=100)
    assert spending.usd == pytest.approx(1.01 + 1.01 + 2.01 + 0.16)  # what was not there is free


def test_what_a_failed_fetch_did_not_pay_is_free_for_others(server: FakeService) -> None:
    spending = Spending()
    left = iter([None] * 2)
    server.trouble = lambda path: next(left, "500") if PAGES["x_api"] in path else None
    source = source_of("x_api", server, max_posts=400, max_cost_usd=100)
    with pytest.raises(UnavailableError):
        read_x_api("ann", source, patience=quick(), spending=spending)
    assert spending.usd == pytest.approx(0.01 + 200 * 0.005)
    server.trouble = lambda path: None
    read_x_api("ann", source, patience=quick(), spending=spending)
    assert spending.usd == pytest.approx(0.02 + 400 * 0.005)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_x_refusing_the_token_is_not_asked_twice(server: FakeService, status: int) -> None:
    server.answers["/2/users/by/username/ann"] = (status, {"title": "Unauthorized"})
    with pytest.raises(SourceError, match=rf"HTTP {status}: 'Unauthorized'.*X_BEARER_TOKEN"):
        fetch("x_api", server)
    assert len(server.requests) == 1


def test_x_protected_posts_are_left_alone(server: FakeService) -> None:
    user = {"id": "7", "name": "Ann", "protected": True}
    server.answers["/2/users/by/username/ann"] = (200, {"data": user})
    with pytest.raises(SourceError, match="protected"):
        fetch("x_api", server)


# --- Bluesky


@pytest.mark.parametrize("use", ["training", "syntheticContent"])
def test_bluesky_wishes_about_ai_are_honoured(server: FakeService, use: str) -> None:
    path = "/xrpc/com.atproto.repo.getRecord"
    server.answers[path] = (200, {"value": {"preferences": {use: {"allow": False}}}})
    with pytest.raises(SourceError, match=r"ann.bsky.social declares no .*leave this person out"):
        fetch("bluesky", server)
    assert server.count("getAuthorFeed") == 0
    server.answers[path] = (200, {"value": {"preferences": {use: {"allow": True}}}})
    assert len(fetch("bluesky", server).posts) == 450


@pytest.mark.parametrize(
    "record",
    [
        "x",
        {"preferences": [1]},
        {"preferences": {"training": {"allow": "false"}}},
        {"preferences": {"training": {"allow": 0}}},
        {"preferences": {"training": False}},
    ],
    ids=str,
)
def test_bluesky_wishes_that_nobody_can_read_are_no_consent(
    server: FakeService, record: object
) -> None:
    server.answers["/xrpc/com.atproto.repo.getRecord"] = (200, {"value": record})
    with pytest.raises(SourceError, match="leave this person out"):
        fetch("bluesky", server)
    assert server.count("getAuthorFeed") == 0


def test_bluesky_wishes_that_cannot_be_had_are_no_consent(server: FakeService) -> None:
    server.trouble = lambda path: "500" if "getRecord" in path else None
    with pytest.raises(UnavailableError, match=r"could not be looked up.*no consent"):
        fetch("bluesky", server)


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("https://morel.us-east.host.bsky.network", "https://morel.us-east.host.bsky.network"),
        ("http://pds.example.org", None),
        ("https://127.0.0.1", None),
        ("https://localhost", None),
        ("https://user@pds.example.org", None),
        ("https://pds.example.org:22", None),
        ("file:///etc/passwd", None),
        (7, None),
    ],
)
def test_bluesky_records_are_asked_for_at_hosts_with_names_alone(
    endpoint: object, host: str | None
) -> None:
    service = {"id": "#atproto_pds", "serviceEndpoint": endpoint}
    assert host_of({"service": [{"id": "#other"}, service]}) == host
    assert host_of({"service": service}) is None
    assert host_of([]) is None


def test_bluesky_people_hidden_from_strangers_are_left_alone(server: FakeService) -> None:
    labels = [{"val": "!no-unauthenticated"}]
    path = "/xrpc/app.bsky.actor.getProfile"
    server.answers[path] = (200, {"did": DID, "labels": labels})
    with pytest.raises(SourceError, match="logged-in people only"):
        fetch("bluesky", server)


def test_bluesky_shortened_links_are_made_whole(server: FakeService) -> None:
    _, page, _ = server.answer("/xrpc/app.bsky.feed.getAuthorFeed", {"limit": "3"})
    whole = page["feed"][0]["post"]
    page["feed"] = [
        {"post": {**whole, "uri": whole["uri"] + str(n), "record": dict(whole["record"])}}
        for n in (3, 2, 1)
    ]
    first, second, third = (item["post"]["record"] for item in page["feed"])
    shown = "pond.example/2024/a-ve..."
    first["text"] = f"é☕ read {shown} now"
    start = len("é☕ read ".encode())
    link = {"$type": "app.bsky.richtext.facet#link", "uri": "https://pond.example/2024/a-very-long"}
    first["facets"] = [
        {"index": {"byteStart": start, "byteEnd": start + len(shown)}, "features": [link]},
        {"index": {"byteStart": 1, "byteEnd": 3}, "features": [link]},  # amid a letter
        {"index": {"byteStart": 5, "byteEnd": 4000}, "features": [link]},
        {"index": None, "features": 3},
    ]
    second["text"] = f"{shown} pond.example/2023/b-very... t.example/c/…"
    third["text"] = "no link... a/b... v1.2/x... is fine"
    server.answers["/xrpc/app.bsky.feed.getAuthorFeed"] = (200, {"feed": page["feed"]})
    texts = [clean_text(post.text, CleaningConfig()) for post in fetch("bluesky", server).posts]
    assert sorted(texts) == ["", third["text"], "é☕ read now"]


def test_bluesky_pinned_posts_stay_and_reposts_of_oneself_go(server: FakeService) -> None:
    _, page, _ = server.answer("/xrpc/app.bsky.feed.getAuthorFeed", {"limit": "3"})
    page["feed"][0]["reason"] = {"$type": "app.bsky.feed.defs#reasonPin"}
    page["feed"][2]["reason"] = {"$type": "app.bsky.feed.defs#reasonRepost"}
    server.answers["/xrpc/app.bsky.feed.getAuthorFeed"] = (200, {"feed": page["feed"]})
    assert bodies(fetch("bluesky", server)) == ["449", "447"]


def test_bluesky_plain_names_are_of_the_usual_domain(server: FakeService) -> None:
    fetch_timeline(source_of("bluesky", server), "ann", patience=quick())
    assert server.count("actor=ann.bsky.social") == 1


# --- Mastodon


def test_mastodon_rules_about_ai_need_to_be_accepted(
    server: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    rule = {"id": "2", "text": "No scraping and no training of language models."}
    server.answers["/api/v1/instance/rules"] = (200, [{"text": "Be kind."}, rule])
    with caplog.at_level("INFO"), pytest.raises(ConfigError, match=r"No scraping.*terms=accepted"):
        fetch("mastodon", server, terms=Terms.unread)
    assert "rule 1: 'Be kind.'" in caplog.text
    assert server.count("statuses") == 0
    assert len(fetch("mastodon", server).posts) == 450


def test_mastodon_rules_that_cannot_be_read_need_to_be_accepted(server: FakeService) -> None:
    server.answers["/api/v1/instance/rules"] = (200, "no rules")
    with pytest.raises(ConfigError, match="could not be read"):
        fetch("mastodon", server, terms=Terms.unread)
    assert server.count("statuses") == 0


def test_mastodon_terms_of_service_count_as_rules(server: FakeService) -> None:
    terms = {"content": "<p>You may not use it for <b>LLM</b>s.</p>"}
    server.answers["/api/v1/instance/terms_of_service"] = (200, terms)
    with pytest.raises(ConfigError, match="You may not use it for LLM"):
        fetch("mastodon", server, terms=Terms.unread)


def test_mastodon_closed_posts_and_boosts_are_dropped(
    server: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTODON_TOKEN", "0wn")
    statuses = [
        {"id": "4", "content": "<p>for all</p>", "visibility": "unlisted"},
        {"id": "3", "content": "<p>for friends</p>", "visibility": "private"},
        {"id": "2", "content": "<p>for one</p>", "visibility": "direct"},
        {"id": "1", "content": "", "reblog": {"id": "0"}, "visibility": "public"},
    ]
    server.answers["/api/v1/accounts/7/statuses"] = (200, statuses)
    timeline = fetch("mastodon", server)
    assert [post.text for post in timeline.posts] == ["for all"]
    assert server.headers[-1]["Authorization"] == "Bearer 0wn"


def test_mastodon_needs_to_know_the_server() -> None:
    with pytest.raises(ConfigError, match=r"user=alice@mastodon.social"):
        load_timeline(SourceConfig(kind=SourceKind.mastodon), "alice")


def test_mastodon_people_of_other_servers_are_asked_for_by_their_whole_name(
    server: FakeService,
) -> None:
    fetch_timeline(source_of("mastodon", server), "ann.example.org", patience=quick())
    assert server.count("acct=ann%40example.org") == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<p>one</p><p>two<br>three</p>", "one\n\ntwo\nthree"),
        ("<p>a &lt;b&gt; &amp;amp; c</p>", "a <b> &amp; c"),
        ('<p><span class="h-card"><a href="x">@<span>bob</span></a></span> hi</p>', "@bob hi"),
        (
            '<a href="https://a.b/c"><span class="invisible">https://</span>'
            '<span class="ellipsis">a.b</span><span class="invisible">/c</span></a>',
            "https://a.b/c",
        ),
        ("<script>alert(1)</script>hi<style>x{}</style>", "hi"),
        (
            '<p class="quote-inline">RE: <a href="https://a.b/1">a.b</a></p><p>so true</p>',
            "so true",
        ),
        ('<p>again<span class="quote-inline"><br/><br/>RE: <span>x</span></span></p>', "again"),
        ('<p class="other quote-inline">RE: x</p>', ""),
        ('<p class="quote">RE: x</p>', "RE: x"),
        ("<p>one</p><blockquote>a<blockquote>b</blockquote></blockquote><p>two</p>", "one\n\ntwo"),
        ("one<blockquote>a</blockquote>two", "one\n\ntwo"),
        ("<p", "<p"),
        ("", ""),
    ],
)
def test_html_becomes_what_a_reader_sees(content: str, text: str) -> None:
    assert html_to_text(content) == text


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<!",
        "<!--",
        "<a ",
        "</",
        "&",
        "&#",
        "<p>",
        "<blockquote>",
        "<![CDATA[",
        "<a b='",
        "<?",
        "\0",
    ],
)
def test_hostile_html_takes_no_time(piece: str) -> None:
    done = threading.Event()
    thread = threading.Thread(
        target=lambda: (html_to_text(piece * (100_000 // len(piece))), done.set()), daemon=True
    )
    thread.start()
    assert done.wait(5)


# --- Anything at all

KEYS = (
    "data id text meta next_token errors detail note_tweet feed cursor post author did record uri "
    "reason content account reblog visibility value preferences training createdAt created_at "
    "referenced_tweets labels displayName username"
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(KEYS.split()),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=25,
)
ROUTES = {
    "x_api": ["/2/users/by/username/ann", "/2/users/7/tweets"],
    "bluesky": [
        "/xrpc/app.bsky.actor.getProfile",
        "/xrpc/app.bsky.feed.getAuthorFeed",
        "/xrpc/com.atproto.repo.getRecord",
    ],
    "mastodon": [
        "/api/v1/accounts/lookup",
        "/api/v1/accounts/7/statuses",
        "/api/v1/instance/rules",
        "/api/v1/instance/terms_of_service",
    ],
}
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def check_any_answer(server: FakeService, kind: str, route: str, value: Any, status: int) -> None:
    """Answer one route with anything: a timeline comes out, or one sentence."""
    server.answers = {route: (status, value)}
    source = source_of(kind, server)
    start = time.monotonic()
    try:
        timeline = fetch_timeline(source, HANDLES[kind], patience=quick(max_attempts=2))
    except HuggingtweetsError as err:
        sentence = str(err)
        assert sentence.isprintable() and len(sentence) < 1500  # noqa: PT018
    else:
        assert len({post.id for post in timeline.posts}) == len(timeline.posts)
        json.dumps([post.text for post in timeline.posts])
    assert time.monotonic() - start < 5
    partial_path(kind, HANDLES[kind]).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def small() -> Iterator[FakeService]:
    with serving(texts(3)) as running:
        yield running


STATUS = st.sampled_from([200, 200, 200, 200, 400, 403, 404, 418])


@pytest.mark.parametrize("kind", SERVICES)
@FEW
@given(data=st.data())
def test_any_answer(small: FakeService, kind: str, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(ROUTES[kind]))
    check_any_answer(small, kind, route, data.draw(JSON), data.draw(STATUS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVICES)
@settings(FEW, max_examples=3400)
@given(data=st.data())
def test_any_answer_many_times(small: FakeService, kind: str, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(ROUTES[kind]))
    check_any_answer(small, kind, route, data.draw(JSON), data.draw(STATUS))


def test_the_fake_services_do_what_they_are_for(server: FakeService) -> None:
    """Every route of the fuzz tests is asked for by an ordinary fetch."""
    for kind in SERVICES:
        server.requests.clear()
        fetch(kind, server)
        for route in ROUTES[kind]:
            assert server.count(route) >= 1


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("bluesky", "/xrpc/app.bsky.feed.getAuthorFeed"),
        ("mastodon", "/api/v1/accounts/7/statuses"),
    ],
)
def test_an_answer_kept_in_a_file_gives_the_same_posts(
    tmp_path: Path, kind: str, path: str
) -> None:
    with serving(texts(30)) as server:
        live = fetch(kind, server).posts
        _, page, _ = server.answer(path, {"limit": "40"})
    (tmp_path / "ann.json").write_text(json.dumps(page))
    config = SourceConfig(kind=SourceKind.jsonl, path=str(tmp_path / "ann.json"))
    kept = [post for post in load_timeline(config, HANDLES[kind]).posts if not post.is_retweet]
    assert len(live) == 30
    assert [(post.id, post.created_at) for post in live] == [
        (post.id, post.created_at) for post in kept
    ]
    if kind == "mastodon":
        assert [post.text for post in live] == [post.text for post in kept]


def test_reposting_ones_own_post_does_not_hide_it(server: FakeService) -> None:
    _, page, _ = server.answer("/xrpc/app.bsky.feed.getAuthorFeed", {"limit": "2"})
    again = {**page["feed"][0], "reason": {"$type": "app.bsky.feed.defs#reasonRepost"}}
    answer = {"feed": [again, *page["feed"]]}
    server.answers["/xrpc/app.bsky.feed.getAuthorFeed"] = (200, answer)
    timeline = fetch("bluesky", server)
    assert (len(timeline.posts), timeline.notes[1:]) == (2, ())
