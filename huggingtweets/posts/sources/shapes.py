"""JSON of any tool taken apart into records: wrappers, pages, activities, tables, JSON in JSON."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.sources.chats import refuse_json_chat
from huggingtweets.posts.sources.facets import whole_links
from huggingtweets.posts.sources.flat import flatten, roles_of
from huggingtweets.posts.sources.json_values import parse_json
from huggingtweets.posts.sources.names import words_of, words_set
from huggingtweets.posts.sources.posts import Skip
from huggingtweets.posts.sources.reading import show
from huggingtweets.posts.sources.record import RICH, named

Record = dict[str, Any]

_LISTS = (
    "tweets", "tweet", "statuses", "status", "data", "records", "orderedItems", "posts", "items",
    "feed", "results", "toots", "timeline", "messages", "response", "rows", "objects", "entries",
    "documents", "archive", "content", "hits",
)  # fmt: skip
"""Keys under which tools keep their list of posts: the Community Archive and people's own
(`tweets`), X v1.1's search and mastodon-archive (`statuses`), X v2 and twarc (`data`), ATProto
(`records`, `feed`), ActivityPub (`orderedItems`), scrapers' caches."""
_NOT_POSTS = words_set(
    "like likes liked favourites bookmarks follower following mutes blocks lists users media "
    "errors includes account accounts profile notetweet communitytweet directmessages favorites "
    "favorited favourited"
)
"""What else has texts in it; the words of longer names count too: `liked_tweets`."""
_HOISTED = (
    "tweet", "status", "post", "node", "value", "record", "commit", "item", "toot", "legacy", "doc",
    "_source",
)  # fmt: skip
"""Keys of objects that wrap one post."""
_MAX_DEPTH = 8
_PUBLIC = frozenset({"https://www.w3.org/ns/activitystreams#Public", "as:Public", "Public"})
_ACTIVITIES = frozenset({"create", "announce"})
CLOSED = Skip("a post that is not open to everyone")


def records_of(value: Any, depth: int = 0) -> Iterator[Record | str | Skip]:
    """Yield the records in one JSON value: objects, bare texts, and what is none.

    Raises:
        SourceError: it is a chat.
    """
    if depth > _MAX_DEPTH:
        yield Skip("a value nested too deep")
    elif isinstance(value, str):
        inner = inner_value(value)
        if inner is None:
            yield value
        else:
            yield from records_of(inner, depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from records_of(one, depth + 1)
    elif isinstance(value, dict):
        yield from _of_object(value, depth)
    else:
        yield Skip("a value that is no post")


def inner_value(text: str) -> Any:
    """Return the object or objects that a text holds, as JSON or as Python prints them, or None."""
    stripped = text.strip()
    if not stripped.startswith(('{"', "{'", '[{"', "[{'")) or not stripped.endswith(("}", "]")):
        return None
    try:
        value = parse_json(stripped)
    except ValueError:
        try:
            value = ast.literal_eval(stripped)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, dict | list) and value else None


def has_text(value: object) -> bool:
    """Whether an object has a text of its own, however it is called."""
    return isinstance(value, dict) and any(
        isinstance(inner, str | list) and roles_of(path).text is not None
        for path, inner in flatten(value)
    )


def _of_object(value: Record, depth: int) -> Iterator[Record | str | Skip]:
    refuse_json_chat(value)
    activity = _activity(value)
    if activity is not None:
        yield activity
        return
    is_post = any(
        isinstance(one, str) and roles_of(key).text is not None for key, one in value.items()
    )
    for key in () if is_post else _HOISTED:
        inner = value.get(key)
        if isinstance(inner, dict) and (has_text(inner) or len(value) == 1):
            yield from records_of(_hoist(value, key, inner), depth + 1)
            return
    list_key = None if is_post else _list_key(value)
    if not is_post and _is_page(value):
        yield from _page(value, depth)
    elif (table := _table(value)) is not None:
        yield from table
    elif list_key is not None:
        yield from _owned(value[list_key], _owner(value, list_key), depth)
    elif not is_post and (inner := _only_inner(value)) is not None:
        yield from records_of(inner, depth + 1)
    elif not is_post and not has_text(value) and (error := _error(value)) is not None:
        yield Skip(f"the API answered {error}")
    else:
        yield rich(value)


def _only_inner(value: Record) -> Record | None:
    """Return the one object inside that holds a list of posts: `{"response": {"tweets": []}}`."""
    inner = [one for one in value.values() if isinstance(one, dict) and _list_key(one) is not None]
    return inner[0] if len(inner) == 1 and not has_text(value) else None


def _web_results(value: Any, depth: int = 0) -> Iterator[Record]:
    """Yield the posts of an answer of X's web pages, wherever they are: `tweet_results.result`."""
    if isinstance(value, list):
        for one in value:
            yield from _web_results(one, depth + 1)
    elif isinstance(value, dict) and depth < _MAX_WEB_DEPTH:
        found = value.get("tweet_results")
        result = found.get("result") if isinstance(found, dict) else None
        if isinstance(result, dict):
            post = result.get("tweet")
            yield post if isinstance(post, dict) else result
            return
        for one in value.values():
            if isinstance(one, list | dict):
                yield from _web_results(one, depth + 1)


_MAX_WEB_DEPTH = 24


def _owned(posts: Any, owner: Record | None, depth: int) -> Iterator[Record | str | Skip]:
    """Yield the records of a list, those that name nobody as by whom the list is."""
    for one in records_of(posts, depth + 1):
        record = {"text": one} if isinstance(one, str) and owner else one
        if owner and isinstance(record, dict) and KNOWN not in record and not named(record):
            record = {**record, "author": owner}
        yield record


def _owner(value: Record, list_key: str) -> Record | None:
    """Return whose list it is: what stands beside it says so, or its own name, `@ann`."""
    account = value.get("account")
    account = account[0] if isinstance(account, list) and account else account
    account = account.get("account", account) if isinstance(account, dict) else None
    name = account.get("username") if isinstance(account, dict) else None
    if not isinstance(account, dict) or not isinstance(name, str):
        beside = {key: one for key, one in value.items() if not isinstance(one, list)}
        handle = list_key if list_key.startswith("@") else named(beside)
        return {"screen_name": handle} if handle else None
    return {"screen_name": name, "name": str(account.get("accountDisplayName") or name)}


def _hoist(value: Record, key: str, inner: Record) -> Record:
    """Unwrap one post, keeping what stands beside it: its author, its mark, its id."""
    beside = {name: one for name, one in value.items() if name not in (key, "reply", "reason")}
    uri = str(inner.get("uri") or value.get("uri") or "")
    if uri.startswith("at://"):  # ATProto: account and key of the record
        beside.setdefault("author", {"did": uri.split("/")[2]})
        beside["id"] = uri.rpartition("/")[2]
    reason = value.get("reason")
    if isinstance(reason, dict) and "repost" in str(reason.get("$type", "")).lower():
        beside["is_repost"] = True
    return {**beside, **inner}


def rich(record: Record) -> Record | Skip:
    """Mark what is HTML by its shape, and make Bluesky's shortened links whole.

    What a server of Mastodon says is no post of ours: closed ones, and profiles with their `note`.
    """
    if RICH in record:
        return record
    if isinstance(record.get("content"), str) and any(
        key in record for key in ("reblog", "visibility", "spoiler_text", "attributedTo")
    ):
        if record.get("visibility", "public") not in ("public", "unlisted"):
            return CLOSED
        return {**record, RICH: "html"}
    if "acct" in record and "note" in record and "content" not in record:
        return Skip("a profile, no post")
    if "facets" in record or str(record.get("$type", "")).startswith("app.bsky."):
        return whole_links(record)
    return record


# --- Pages of X's API v2


def _is_page(value: Mapping[str, Any]) -> bool:
    if "columns" in value:
        return False
    meta = value.get("meta")
    return isinstance(value.get("data"), dict | list) or (
        isinstance(meta, dict) and "result_count" in meta
    )


def _page(page: Record, depth: int) -> Iterator[Record | str | Skip]:
    """Read `{"data": ..., "includes": ...}`. What is only included is not by this person."""
    data = page.get("data")
    posts = [data] if isinstance(data, dict) else data if isinstance(data, list) else []
    if isinstance(data, dict) and not has_text(data):
        posts = list(_web_results(data)) or posts
    included = page.get("includes")
    included = included if isinstance(included, dict) else {}
    users, originals = _by_id(included.get("users")), _by_id(included.get("tweets"))
    if users:
        yield {KNOWN: {number: str(one.get("username", "")) for number, one in users.items()}}
    says_references = any(isinstance(one, dict) and "referenced_tweets" in one for one in posts)
    for post in posts:
        if not isinstance(post, dict):
            yield Skip("an entry that is no post")
            continue
        author = users.get(str(post.get("author_id", ""))[:40])
        merged: Record = {"author": author, **post} if author else post
        if says_references:  # then a post without is known to be no retweet
            merged = {"referenced_tweets": [], **merged}
        references = post.get("referenced_tweets")
        for one in references if isinstance(references, list) else []:
            if isinstance(one, dict) and one.get("type") == "retweeted":
                merged = {**merged, "retweeted_status": originals.get(str(one.get("id")), {})}
        yield from records_of(merged, depth + 1)
    error = None if posts else _error(page)
    if error is not None:
        yield Skip(f"the API answered {error}")


KNOWN = "\0known"
"""Key of a value that is no record: the handles that stand for numbers."""


def _by_id(items: Any) -> dict[str, Mapping[str, Any]]:
    every = items if isinstance(items, list) else []
    return {str(one.get("id")): one for one in every if isinstance(one, dict)}


def _error(value: Mapping[str, Any]) -> str | None:
    errors = value.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else value
    keys = ("detail", "message", "error")
    texts = [
        first[key] for key in keys if isinstance(first, dict) and isinstance(first.get(key), str)
    ]
    return show(texts[0], 120) if texts else None


# --- ActivityPub


def _activity(value: Record) -> Record | Skip | None:
    """Read an activity: what somebody did with an object. Only what was created counts."""
    verb = str(value.get("type") or "").lower()
    if not isinstance(value.get("actor"), str) or verb not in _ACTIVITIES:
        return None
    inner = value.get("object")
    if not isinstance(inner, dict) or verb == "announce":
        return {"text": "", "account_url": value["actor"], "is_reblog": True, "id": value.get("id")}
    if not _PUBLIC.intersection([*_listed(inner, "to"), *_listed(inner, "cc")]):
        return CLOSED
    return {**inner, "account_url": inner.get("attributedTo") or value["actor"], RICH: "html"}


def _listed(value: Mapping[str, Any], key: str) -> list[str]:
    found = value.get(key)
    return [str(one) for one in found] if isinstance(found, list) else [str(found)]


# --- Tables of pandas, and lists under a key


def _table(value: Record) -> Iterator[Record | str | Skip] | None:
    """Read what `DataFrame.to_json` writes: split, by column, by row."""
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        names = [str(one) for one in columns]
        return (
            dict(zip(names, row, strict=False))
            if isinstance(row, list)
            else Skip("no row of a table")
            for row in data
        )
    inner = list(value.values())
    if len(inner) < 1 or not all(isinstance(one, dict) and one for one in inner):
        return None
    texts = [key for key in value if roles_of(key).text is not None]
    keys = list(inner[0])
    if texts and all(isinstance(one, str) or one is None for one in value[texts[0]].values()):
        keys = list(value[texts[0]])
        return ({name: column.get(key) for name, column in value.items()} for key in keys)
    if len(inner) > 1 and all(map(has_text, inner[:20])):
        return ({"id": key, **one} for key, one in value.items())
    return None


def _list_key(value: Record) -> str | None:
    """Return the key with the list of posts: a usual one, or the only one there is."""
    lists = [
        key
        for key, one in value.items()
        if isinstance(one, list) and any(isinstance(item, dict | str) for item in one[:20])
    ]
    for key in _LISTS:
        if key in lists:
            return key
    rest = [
        key
        for key in lists
        if "".join(words_of(key)) not in _NOT_POSTS and _NOT_POSTS.isdisjoint(words_of(key))
    ]
    with_posts = [key for key in rest if any(_holds_text(one) for one in value[key][:20])]
    if len(with_posts) > 1:
        names = ", ".join(map(show, with_posts[:4]))
        raise SourceError(
            f"source.path: got several lists that may be posts ({names}); expected one; leave the "
            "others out of the file"
        )
    return with_posts[0] if with_posts else None


def _holds_text(one: Any) -> bool:
    if isinstance(one, str):
        return True
    if not isinstance(one, dict):
        return False
    inner = next((one[key] for key in _HOISTED if isinstance(one.get(key), dict)), one)
    return has_text(one) or has_text(inner)
