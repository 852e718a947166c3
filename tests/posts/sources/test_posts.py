"""What every source yields, and how it becomes a timeline."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading import timeline as posts
from huggingtweets.posts.reading.timeline import RawPost, Skip, make_timeline, parse_date, parse_id


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Wed Oct 19 20:07:25 +0000 2022", "2022-10-19T20:07:25Z"),
        ("2020-01-23T04:45:58.000Z", "2020-01-23T04:45:58Z"),
        ("2022-04-28T00:45:59Z", "2022-04-28T00:45:59Z"),
        ("2018-12-06 05:30:02 +0000", "2018-12-06T05:30:02Z"),
        ("2018-12-06T05:30:02+02:00", "2018-12-06T03:30:02Z"),
        ("2018-12-06 05:30:02", "2018-12-06T05:30:02Z"),
        ("2018-12-06 05:30:02 UTC", "2018-12-06T05:30:02Z"),
        ("2018-12-06", "2018-12-06T00:00:00Z"),
        (1650000000, "2022-04-15T05:20:00Z"),
        (1650000000000, "2022-04-15T05:20:00Z"),
        ("1650000000", "2022-04-15T05:20:00Z"),
        (1650000000.5, "2022-04-15T05:20:00Z"),
        (datetime(2020, 1, 2, 3, 4, 5), "2020-01-02T03:04:05Z"),
        (datetime(2020, 1, 2, 3, tzinfo=timezone(timedelta(hours=1))), "2020-01-02T02:00:00Z"),
        (datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00Z"),
        (date(2020, 1, 2), "2020-01-02T00:00:00Z"),
        ("yesterday", None),
        ("Wed Foo 19 20:07:25 +0000 2022", None),
        ("Wed Feb 31 20:07:25 +0000 2022", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9" * 100, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**30, None),
        (True, None),
        (12, None),
        (None, None),
        ({}, None),
        ("21/03/2006 20:50", "2006-03-21T20:50:00Z"),
        ("3/21/2006 8:50 PM", "2006-03-21T20:50:00Z"),
        ("01.03.2006", "2006-03-01T00:00:00Z"),
        ("01/03/2006 20:50", None),
        ("Mar 21, 2006 · 8:50 PM UTC", "2006-03-21T20:50:00Z"),
        ("8:50 PM - 21 Mar 2006", "2006-03-21T20:50:00Z"),
        ("1617220000.0", "2021-03-31T19:46:40Z"),
        ("1617220000000000", "2021-03-31T19:46:40Z"),
        (1617220000000000, "2021-03-31T19:46:40Z"),
    ],
)
def test_parse_date(value: object, expected: str | None) -> None:
    assert parse_date(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1582825767519809536", "1582825767519809536"),
        (1582825767519809536, "1582825767519809536"),
        (" 17 ", "17"),
        ("17.0", "17"),
        (17.0, "17"),
        ("3kabc.0", "3kabc.0"),
        ("1.58283E+18", None),
        ("1e5", None),
        (1.582825767519809536e18, None),
        (float("nan"), None),
        ("", None),
        (None, None),
        (True, None),
        ("9" * 5000, None),
        ([1], None),
    ],
)
def test_parse_id(value: object, expected: str | None) -> None:
    assert parse_id(value) == expected


def test_make_timeline_puts_larger_ids_first_by_number() -> None:
    timeline = make_timeline(
        "f", "a", [RawPost("x", id="9"), RawPost("y", id="10"), RawPost("z", id="8")]
    )
    assert [post.id for post in timeline.posts] == ["10", "9", "8"]


def test_make_timeline_sorts_by_date_where_ids_are_no_numbers() -> None:
    found = [
        RawPost("old", id="3kb", created_at="2020-01-01T00:00:00Z"),
        RawPost("new", id="3ka", created_at="2021-01-01T00:00:00Z"),
    ]
    assert [post.text for post in make_timeline("f", "a", found).posts] == ["new", "old"]


def test_make_timeline_keeps_the_order_where_nothing_dates_a_post() -> None:
    timeline = make_timeline("f", "a", [RawPost("x"), RawPost("y", id="7"), RawPost("x")])
    assert [post.text for post in timeline.posts] == ["x", "y", "x"]
    assert len({post.id for post in timeline.posts}) == 3


def test_make_timeline_keeps_the_first_of_equal_ids_and_says_so() -> None:
    timeline = make_timeline("f", "a", [RawPost("x", id="7"), RawPost("y", id="7")])
    assert [post.text for post in timeline.posts] == ["x"]
    assert timeline.notes == ("f: 1 posts came more than once and count once",)


def test_make_timeline_drops_superseded_versions_wherever_they_stand() -> None:
    found = [
        RawPost("b", id="2", older_ids=("1",)),
        RawPost("a", id="1"),
        RawPost("c", is_outdated=True),
    ]
    timeline = make_timeline("f", "a", found)
    assert [post.text for post in timeline.posts] == ["b"]
    assert timeline.notes == ("f: 2 posts were edited later; the last version counts",)


def test_make_timeline_takes_the_first_name_there_is() -> None:
    found = [RawPost("x"), RawPost("y", author_name="N.A.S.A."), RawPost("z", author_name="NASA")]
    assert make_timeline("f", "nasa", found).display_name == "N.A.S.A."
    assert make_timeline("f", "nasa", found[:1]).display_name == "nasa"


def test_make_timeline_of_nothing_is_empty_but_of_damage_an_error() -> None:
    assert make_timeline("f", "a", []).posts == ()
    with pytest.raises(SourceError, match=r"2 skipped: not JSON \(first: line 3\)"):
        make_timeline("f", "a", [Skip("not JSON", 3), Skip("not JSON", 5)])


def test_make_timeline_caps_and_counts_long_texts() -> None:
    timeline = make_timeline("f", "a", [RawPost("x" * 30_000), RawPost("y" * 25_000)])
    assert [len(post.text) for post in timeline.posts] == [25_000, 25_000]
    assert timeline.notes == ("f: 1 posts were cut to 25000 characters",)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("MAX_POSTS", (RawPost("x") for _ in range(100))),
        ("MAX_SKIPS", (Skip("bad") for _ in range(100))),
        ("MAX_TOTAL_CHARS", (RawPost("x" * 20_000) for _ in range(100))),
    ],
)
def test_make_timeline_refuses_more_than_anybody_posts(
    name: str, found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posts, name, 50)
    with pytest.raises(SourceError, match="expected the posts of one person"):
        make_timeline("f", "a", found)  # type: ignore[arg-type]


def test_make_timeline_counts_a_reason_on_that_was_there_before_there_were_many() -> None:
    many = [Skip(f"reason {number}") for number in range(30)]
    notes = make_timeline("f", "a", [RawPost("x"), *many, Skip("reason 0"), Skip("reason 3")]).notes
    assert [note for note in notes if "2 skipped" in note] == [
        "f: 2 skipped: reason 0",
        "f: 2 skipped: reason 3",
    ]


def test_make_timeline_limits_the_notes_on_many_reasons() -> None:
    found = [RawPost("x"), *(Skip(f"reason {number}") for number in range(500))]
    assert len(make_timeline("f", "a", found).notes) < 30
