"""The JSON forms in which the X API, twarc and archives hand out posts, recognised one by one."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from huggingtweets.tweets.sources.posts import Post, Skip, parse_date, parse_id, parse_picture_url
from huggingtweets.tweets.sources.reading import show

_MAX_VERSIONS = 100
_RETWEET_HEAD = re.compile(r"RT @\w{1,30}: ", re.ASCII)


def api_posts(value: Any) -> list[Post | Skip] | None:
    """Return the posts of one JSON value if it has one of the known forms, else None.

    Known: pages and single posts of the v2 API, posts of the v1.1 API with their `user`, entries
    of an archive (`{"tweet": ...}`), and error answers, which become a `Skip`.
    """
    if not isinstance(value, dict):
        return None
    entry = value.get("tweet")
    if isinstance(entry, dict) and len(value) == 1:
        return [archive_post(entry)]
    if "text" not in value and "full_text" not in value:
        if isinstance(value.get("data"), dict | list) or _is_empty_page(value):
            return list(_page(value))
        error = _error(value)
        return None if error is None else [Skip(f"the API answered {error}")]
    if isinstance(value.get("user"), dict):
        return [_v1_post(value)]
    if "author_id" in value or "edit_history_tweet_ids" in value:
        return [_v2_post(value, {}, {}, False)]
    return None


def archive_post(tweet: Mapping[str, Any]) -> Post | Skip:
    """Read an entry of an X archive of any age, or a post of the v1.1 API."""
    if isinstance(tweet.get("user"), dict):
        return _v1_post(tweet)
    text = _first_text(tweet, "full_text", "text")
    if text is None:
        return Skip("an entry without text")
    own_id = _own_id(tweet)
    versions = _edit_ids(tweet.get("edit_info"))
    return Post(
        text,
        own_id,
        parse_date(tweet.get("created_at")),
        is_outdated=bool(versions) and own_id in versions[:-1],
    )


def _v1_post(tweet: Mapping[str, Any]) -> Post | Skip:
    """A retweet is what has `retweeted_status`; `retweeted` is about the caller."""
    text = _full_text(tweet)
    if text is None:
        return Skip("an entry without text")
    original = tweet.get("retweeted_status")
    if isinstance(original, dict):
        text = _whole_retweet(text, _full_text(original))
    user = tweet["user"]
    return Post(
        text,
        _own_id(tweet),
        parse_date(tweet.get("created_at")),
        is_retweet=isinstance(original, dict),
        author=_first_text(user, "screen_name"),
        author_name=_first_text(user, "name"),
        author_picture=parse_picture_url(user.get("profile_image_url_https")),
    )


def _page(page: Mapping[str, Any]) -> Iterator[Post | Skip]:
    """Read `{"data": ..., "includes": ...}`. What is only included is not by this person."""
    data = page.get("data")
    tweets = [data] if isinstance(data, dict) else data if isinstance(data, list) else []
    included = page.get("includes")
    included = included if isinstance(included, dict) else {}
    users = _by_id(included.get("users"))
    originals = _by_id(included.get("tweets"))
    says_references = any(isinstance(one, dict) and "referenced_tweets" in one for one in tweets)
    for tweet in tweets:
        if isinstance(tweet, dict):
            yield _v2_post(tweet, users, originals, says_references)
        else:
            yield Skip("an entry that is no post")
    error = None if tweets else _error(page)
    if error is not None:
        yield Skip(f"the API answered {error}")


def _v2_post(
    tweet: Mapping[str, Any],
    users: Mapping[str, Mapping[str, Any]],
    originals: Mapping[str, Mapping[str, Any]],
    says_references: bool,
) -> Post | Skip:
    """Read a v2 post. Without any `referenced_tweets` on its page, retweets are not told apart."""
    note = tweet.get("note_tweet")
    text = _first_text(note, "text") if isinstance(note, dict) else None
    text = text if text is not None else _first_text(tweet, "text")
    if text is None:
        return Skip("an entry without text")
    references = tweet.get("referenced_tweets")
    retweeted = None
    for reference in references if isinstance(references, list) else []:
        if isinstance(reference, dict) and reference.get("type") == "retweeted":
            retweeted = str(reference.get("id"))
            text = _whole_retweet(text, _first_text(originals.get(retweeted, {}), "text"))
    author_id = str(tweet.get("author_id", ""))[:40]
    author = users.get(author_id, {})
    own_id = _own_id(tweet)
    versions = _id_list(tweet.get("edit_history_tweet_ids"))
    return Post(
        text,
        own_id,
        parse_date(tweet.get("created_at")),
        is_retweet=retweeted is not None if says_references or references is not None else None,
        author=_first_text(author, "username") or (f"id {author_id}" if users else None),
        author_name=_first_text(author, "name"),
        older_ids=tuple(one for one in versions[:-1] if one != own_id),
        is_outdated=own_id in versions[:-1],
    )


def _is_empty_page(value: Mapping[str, Any]) -> bool:
    meta = value.get("meta")
    return isinstance(meta, dict) and "result_count" in meta


def _error(value: Mapping[str, Any]) -> str | None:
    errors = value.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else value
    text = _first_text(first, "detail", "message", "error") if isinstance(first, dict) else None
    return None if text is None else show(text, 120)


def _full_text(tweet: Mapping[str, Any]) -> str | None:
    extended = tweet.get("extended_tweet")
    text = _first_text(extended, "full_text") if isinstance(extended, dict) else None
    return text if text is not None else _first_text(tweet, "full_text", "text")


def _whole_retweet(cut: str, whole: str | None) -> str:
    """Put the whole post behind `RT @name: ` where only its beginning stands."""
    head = _RETWEET_HEAD.match(cut)
    return cut if head is None or whole is None else head.group() + whole


def _first_text(value: Mapping[str, Any], *keys: str) -> str | None:
    return next((value[key] for key in keys if isinstance(value.get(key), str)), None)


def _own_id(tweet: Mapping[str, Any]) -> str | None:
    return parse_id(tweet.get("id_str")) or parse_id(tweet.get("id"))


def _by_id(items: Any) -> dict[str, Mapping[str, Any]]:
    every = items if isinstance(items, list) else []
    return {str(one.get("id")): one for one in every if isinstance(one, dict)}


def _id_list(value: Any) -> list[str]:
    last = value[-_MAX_VERSIONS:] if isinstance(value, list) else []
    return [one for one in last if isinstance(one, str)]


def _edit_ids(edit_info: Any) -> list[str]:
    """All versions of a post of an archive, oldest first; empty where nothing is said."""
    info = edit_info if isinstance(edit_info, dict) else {}
    edit = info.get("edit")
    first = edit.get("editControlInitial") if isinstance(edit, dict) else info.get("initial")
    return _id_list(first.get("editTweetIds")) if isinstance(first, dict) else []
