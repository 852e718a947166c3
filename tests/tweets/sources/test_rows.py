"""Rows with named columns."""

from typing import Any

import pytest

from huggingtweets.config.schema import SourceConfig, SourceKind
from huggingtweets.errors import SourceError
from huggingtweets.tweets.sources.posts import Post, Skip
from huggingtweets.tweets.sources.rows import Columns, choose_columns, row_to_post


def choose(names: list[str], *, is_of_one_user: bool = False, **config: Any) -> Columns:
    source = SourceConfig(kind=SourceKind.csv, path="f", **config)
    return choose_columns(names, source, "f.csv", is_of_one_user=is_of_one_user)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["id", "created_at", "text"], Columns("text", None, "id", "created_at")),
        (
            ["id", "id_str", "full_text", "text", "is_retweet"],
            Columns("full_text", None, "id_str", None, "is_retweet"),
        ),
        (
            ["tweet_id", "timestamp", "text", "retweeted_status_id"],
            Columns("text", None, "tweet_id", "timestamp", "retweeted_status_id"),
        ),
        (
            ["id", "text", "isRetweet", "retweets", "date"],
            Columns("text", None, "id", "date", "isRetweet"),
        ),
        (["Username", "Tweet"], Columns("Tweet", "Username")),
        (["author", "content", "retweeted"], Columns("content", "author")),
    ],
)
def test_usual_columns_are_found(names: list[str], expected: Columns) -> None:
    assert choose(names) == expected


def test_a_file_called_by_its_user_needs_no_user_column() -> None:
    names = ["user", "text"]
    assert choose(names, is_of_one_user=True).user is None
    assert choose(names, is_of_one_user=True, user_column="user").user == "user"
    assert choose(names, user_column="").user is None


def test_configured_columns_go_first() -> None:
    columns = choose(["text", "body", "id", "key"], text_column="body", id_column="key")
    assert (columns.text, columns.id) == ("body", "key")


def test_a_misspelt_column_gets_its_nearest() -> None:
    with pytest.raises(SourceError, match=r"source.text_column=bodi; .*nearest: 'body'"):
        choose(["body", "id"], text_column="bodi")


def test_no_text_column_names_the_columns() -> None:
    with pytest.raises(SourceError, match=r"columns 'a', 'b'; .*source.text_column="):
        choose(["a", "b"])


@pytest.mark.parametrize(
    ("value", "column", "expected"),
    [
        (True, "is_retweet", True),
        (False, "is_retweet", False),
        ("True", "is_retweet", True),
        ("t", "isRetweet", True),
        ("f", "isRetweet", False),
        ("0", "is_retweet", False),
        (1, "is_retweet", True),
        (0, "is_retweet", False),
        (None, "is_retweet", None),
        ("", "is_retweet", None),
        ("", "retweeted_status_id", False),
        (None, "retweeted_status_id", False),
        ("1070423072140873728", "retweeted_status_id", True),
    ],
)
def test_retweet_flags_in_any_spelling(value: object, column: str, expected: bool | None) -> None:
    post = row_to_post({"text": "x", column: value}, Columns("text", retweet=column))
    assert isinstance(post, Post)
    assert post.is_retweet is expected


@pytest.mark.parametrize("text", [None, 3, float("nan"), [], {}, True])
def test_a_row_whose_text_is_none_is_skipped(text: object) -> None:
    assert isinstance(row_to_post({"text": text}, Columns("text")), Skip)
    assert isinstance(row_to_post({}, Columns("text")), Skip)


@pytest.mark.parametrize("user", [None, "", " ", float("nan"), True])
def test_a_row_without_a_user_belongs_to_nobody(user: object) -> None:
    assert isinstance(row_to_post({"text": "x", "user": user}, Columns("text", "user")), Skip)
