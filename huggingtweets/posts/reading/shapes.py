"""JSON of any tool taken apart into records: wrappers, pages, activities, tables, JSON in JSON."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.reading.byline import named
from huggingtweets.posts.reading.chats import refuse_json_chat
from huggingtweets.posts.reading.flat import roles_of
from huggingtweets.posts.reading.json_values import dig, dig_list, dig_text, parse_json
from huggingtweets.posts.reading.names import TABLES, words_of
from huggingtweets.posts.reading.record import RICH, has_text
from huggingtweets.posts.reading.rich_text import whole_links
from huggingtweets.posts.reading.tables import is_table, may_be_handle, table_of
from huggingtweets.posts.reading.timeline import Skip

Record = dict[str, Any]

_LISTS = (
    "tweets", "tweet", "statuses", "status", "data", "records", "orderedItems", "posts", "items",
    "feed", "results", "toots", "timeline", "messages", "response", "rows", "objects", "entries",
    "documents", "archive", "content", "hits", "edges", "children", "orderedCollection",
)  # fmt: skip
"""Keys under which tools keep their list of posts: the Community Archive and people's own
(`tweets`), X v1.1's search and mastodon-archive (`statuses`), X v2 and twarc (`data`), ATProto
(`records`, `feed`), ActivityPub (`orderedItems`), scrapers' caches."""
_NOT_POSTS = TABLES["no posts"]
_HOISTED = (
    "tweet", "status", "post", "node", "value", "record", "commit", "item", "toot", "legacy", "doc",
    "_source",
)  # fmt: skip
"""Keys of objects that wrap one post."""
_PEOPLE = ("users", "accounts")
"""Keys of profiles mostly; where each has a list of posts, of people and their posts."""
_ENVELOPE = frozenset({"status", "message"})
"""What an API says of its answer, beside the list: `{"status": "ok", "data": [...]}`."""
_MAX_DEPTH = 8
_PUBLIC = frozenset({"https://www.w3.org/ns/activitystreams#Public", "as:Public", "Public"})
_ACTIVITIES = frozenset({"create", "announce"})
_CLOSED = ("private", "direct", "followers", "specified", "limited", "mutuals_only", "local")
"""As Mastodon, Misskey and Pleroma call it."""
CLOSED = Skip("a post that is not open to everyone")


def records_of(
    value: Any, depth: int = 0, *, is_row: bool = False
) -> Iterator[Record | str | Skip]:
    """Yield the records in one JSON value: objects, bare texts, and what is none.

    Args:
        value: a line, or an element of a list.
        depth: how deep it stood in the file's own value.
        is_row: whether it is an element of a list of lists.

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
        is_tabular = is_row or depth == 0 or any(isinstance(one, list) for one in value)
        for one in value:
            if is_tabular and not isinstance(one, list | dict):
                yield Skip("a table without names of its columns")  # nobody can tell which is what
            else:
                yield from records_of(one, depth + 1, is_row=is_tabular)
    elif isinstance(value, dict):
        yield from _of_object(value, depth)
    else:
        yield Skip("a value that is not a post")


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


def _names_text(key: str) -> bool:
    return roles_of(key).text is not None


def _of_object(value: Record, depth: int) -> Iterator[Record | str | Skip]:
    refuse_json_chat(value)
    activity = _activity(value) or _meta_post(value)
    if activity is not None:
        yield activity
        return
    texts = {key for key, one in value.items() if isinstance(one, str) and _names_text(key)}
    is_post = bool(texts) and not (texts <= _ENVELOPE and _lists_directly(value))
    for key in () if is_post else _HOISTED:
        inner = value.get(key)
        if isinstance(inner, dict) and (has_text(inner) or len(value) == 1):
            yield from records_of(_hoist(value, key, inner), depth + 1)
            return
    if not is_post and _is_page(value):
        yield from _page(value, depth)
    elif (table := table_of(value)) is not None:
        yield from table
    elif not is_post and (lists := _lists(value)):
        beside = {key: one for key, one in value.items() if key not in lists}
        for key, posts in lists.items():
            yield from _owned(posts, _owner(beside, key, posts), depth)
        users = _by_id(beside.get("users"))
        yield from () if not users else (_known(users),)
    elif not is_post and not has_text(value) and (found := list(_web_results(value))):
        for one in found:
            yield from records_of(one, depth + 1)
    elif not is_post and not has_text(value) and (error := _error(value)) is not None:
        yield Skip(f"the API answered {error}")
    elif not has_text(value) and not {*_PEOPLE}.isdisjoint(value):
        yield Skip("people without posts; expected a file that has what they wrote")
    else:
        yield rich(value)


def _web_results(value: Any, depth: int = 0) -> Iterator[Record]:
    """Yield the posts of an answer of X's web pages, wherever they are: `tweet_results.result`."""
    if isinstance(value, list):
        for one in value:
            yield from _web_results(one, depth + 1)
    elif isinstance(value, dict) and depth < _MAX_WEB_DEPTH:
        result = dig(value, "tweet_results", "result")
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


def _owner(beside: Record, key: str, posts: Any) -> Record | None:
    """Return whose list it is: what stands beside it says so, or its own key, `ann_marsh`."""
    account = beside.get("account")
    account = account[0] if isinstance(account, list) and account else account
    account = dig(account, "account") or account
    name = dig_text(account, "username")
    if name is not None:
        return {"screen_name": name, "name": str(dig(account, "accountDisplayName") or name)}
    handle = named({name: one for name, one in beside.items() if not _is_long(one)})
    if handle is None and may_be_handle(key) and not _is_connection(posts):
        handle = key
    return {"screen_name": handle} if handle else None


def _is_long(value: Any) -> bool:
    """Whether it is a list of several; of one author, `authors` is a list as well."""
    return isinstance(value, list) and len(value) != 1


def _is_connection(value: Any) -> bool:
    """Whether it is a list as GraphQL has it; what that is called is not a handle."""
    return isinstance(dig(value, "edges"), list)


def _hoist(value: Record, key: str, inner: Record) -> Record:
    """Unwrap one post, keeping what stands beside it: its author, its mark, its id."""
    beside = {name: one for name, one in value.items() if name not in (key, "reply", "reason")}
    uri = str(inner.get("uri") or value.get("uri") or "")
    if uri.startswith("at://"):  # ATProto: account and key of the record
        beside.setdefault("author", {"did": uri.split("/")[2]})
        beside |= {"id": uri.rpartition("/")[2], "facets": None}
    if "repost" in str(dig(value, "reason", "$type")).lower():
        beside["is_repost"] = True
    return {**beside, **inner}


def rich(record: Record) -> Record | Skip:
    """Mark what is HTML by its shape, and make Bluesky's shortened links whole.

    What a server of Mastodon says is not a post of ours: closed ones, and profiles with a `note`.
    """
    if RICH in record:
        return record
    if record.get("visibility") in _CLOSED:
        return CLOSED
    if isinstance(record.get("content"), str) and any(
        key in record for key in ("reblog", "visibility", "spoiler_text", "attributedTo")
    ):
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
    has_count = dig(value, "meta", "result_count") is not None
    return has_count or isinstance(value.get("data"), dict | list)


def _page(page: Record, depth: int) -> Iterator[Record | str | Skip]:
    """Read `{"data": ..., "includes": ...}`. What is only included is not by this person."""
    data = page.get("data")
    posts = [data] if isinstance(data, dict) else dig_list(page, "data")
    if isinstance(data, dict) and not has_text(data):
        posts = list(_web_results(data)) or posts
    users, originals = (_by_id(dig(page, "includes", key)) for key in ("users", "tweets"))
    if users:
        yield _known(users)
    says_references = any(isinstance(one, dict) and "referenced_tweets" in one for one in posts)
    for post in posts:
        if not isinstance(post, dict):
            yield Skip("an entry that is not a post")
            continue
        author = users.get(str(post.get("author_id", ""))[:40])
        merged: Record = {"author": author, **post} if author else post
        if says_references:  # then a post without is known to be no retweet
            merged = {"referenced_tweets": [], **merged}
        for one in dig_list(post, "referenced_tweets"):
            if dig(one, "type") == "retweeted":
                merged = {**merged, "retweeted_status": originals.get(str(one.get("id")), {})}
        yield from records_of(merged, depth + 1)
    error = None if posts else _error(page)
    if error is not None:
        yield Skip(f"the API answered {error}")


KNOWN = "\0known"
"""Key of a value that is not a record: the handles that stand for numbers."""


def _by_id(items: Any) -> dict[str, Mapping[str, Any]]:
    """Return people or posts by number; X's old pages keep them so already."""
    every = items.values() if isinstance(items, dict) else items if isinstance(items, list) else []
    return {str(one.get("id_str") or one.get("id")): one for one in every if isinstance(one, dict)}


def _known(users: Mapping[str, Mapping[str, Any]]) -> Record:
    names = {number: one.get("username", one.get("screen_name")) for number, one in users.items()}
    return {KNOWN: {number: name for number, name in names.items() if isinstance(name, str)}}


def _error(value: Mapping[str, Any]) -> str | None:
    first = next(iter(dig_list(value, "errors")), value)
    keys = ("detail", "message", "error")
    text = next((said for key in keys if (said := dig_text(first, key)) is not None), None)
    return None if text is None else show(text, 120)


# --- ActivityPub


def _activity(value: Record) -> Record | Skip | None:
    """Read an activity: what somebody did with an object. Only what was created counts."""
    verb = str(value.get("type") or "").lower()
    actor = value.get("actor")
    actor = (actor.get("id") or actor.get("url")) if isinstance(actor, dict) else actor
    if not isinstance(actor, str) or verb not in _ACTIVITIES:
        return None
    inner = value.get("object")
    if not isinstance(inner, dict) or verb == "announce" or _is_by_another(inner, actor):
        return {"text": "", "account_url": actor, "is_reblog": True, "id": value.get("id")}
    if not _PUBLIC.intersection([*_listed(inner, "to"), *_listed(inner, "cc")]):
        return CLOSED
    return {**inner, "account_url": inner.get("attributedTo") or actor, RICH: "html"}


def _is_by_another(inner: Record, actor: str) -> bool:
    """Whether an object names somebody else; addresses of one account end alike."""
    by = inner.get("attributedTo")
    ends = [one.rpartition("/")[2].lstrip("@").lower() for one in (str(by), actor)]
    return isinstance(by, str) and ends[0] != ends[1]


def _listed(value: Mapping[str, Any], key: str) -> list[str]:
    found = value.get(key)
    return [str(one) for one in found] if isinstance(found, list) else [str(found)]


# --- What people download of themselves from Threads and Instagram


def _meta_post(value: Record) -> Record | None:
    """Read `{"media": [{"title": ...}]}`, the text being that of the first picture, or outside."""
    first = next(iter(dig_list(value, "media")), None)
    when = dig(first, "creation_timestamp")
    text = value.get("title") or dig(first, "title")
    return {"text": text, "created_at": when} if when and isinstance(text, str) else None


# --- Lists under a key


def _lists(value: Record) -> dict[str, Any]:
    """Return the lists of posts by key: a usual one, the only one, or one for each handle.

    In the place of a list there may be an object that has one in it.
    """
    found = _lists_directly(value) or {
        key: one for key, one in value.items() if _is_wanted(key, one) and _has_posts(one)
    }
    if len(found) > 1 and not all(map(may_be_handle, found)):
        names = ", ".join(map(show, list(found)[:4]))
        raise SourceError(
            f"source.path: got several lists that may be posts ({names}); expected one, or one for "
            "each handle; leave the others out of the file"
        )
    return found


def _lists_directly(value: Record) -> dict[str, Any]:
    lists = {
        key: one
        for key, one in value.items()
        if isinstance(one, list) and any(isinstance(item, dict | str) for item in one[:20])
    }
    usual = next((key for key in _LISTS if key in lists), None)
    if usual is not None:
        return {usual: lists[usual]}
    return {
        key: one
        for key, one in lists.items()
        if _is_wanted(key) and any(map(_holds_text, one[:20]))
    }


def _is_wanted(key: str, value: Any = None) -> bool:
    words = words_of(key)
    is_other = "".join(words) in _NOT_POSTS or not _NOT_POSTS.isdisjoint(words)
    return not is_other or _is_connection(value) or (key in _PEOPLE and _has_posts(value))


def _has_posts(value: Any) -> bool:
    if isinstance(value, list):  # of people, each with a list
        return any(map(_has_list, value[:20]))
    return _has_list(value) or is_table(value)


def _has_list(value: Any, depth: int = 0) -> bool:
    if not isinstance(value, dict) or depth > _MAX_DEPTH or has_text(value):
        return False
    return bool(_lists_directly(value)) or any(
        _is_wanted(key, one) and (_has_list(one, depth + 1) or is_table(one))
        for key, one in value.items()
    )


def _holds_text(one: Any) -> bool:
    if isinstance(one, str):
        return True
    if not isinstance(one, dict):
        return False
    inner = next((one[key] for key in _HOISTED if isinstance(one.get(key), dict)), one)
    return has_text(one) or has_text(inner) or _meta_post(one) is not None
