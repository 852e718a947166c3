"""JSON of any tool taken apart into records: wrappers, pages, activities, tables, JSON in JSON."""

from collections.abc import Iterator, Mapping
from typing import Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.activities import activity_of, meta_post, rich
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.reading.byline import named, says_author
from huggingtweets.posts.reading.chats import refuse_json_chat
from huggingtweets.posts.reading.flat import is_empty, names_text, roles_of
from huggingtweets.posts.reading.json_values import (
    dig,
    dig_list,
    dig_text,
    parse_json,
    parse_python,
)
from huggingtweets.posts.reading.names import TABLES, words_of
from huggingtweets.posts.reading.record import RIVALS, has_text, text_path
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
_NOT_POSTS, _INSIDE = TABLES["no posts"], TABLES["inside posts"]
_HOISTED = (
    "tweet", "status", "post", "node", "value", "record", "commit", "item", "toot", "legacy", "doc",
    "_source",
)  # fmt: skip
"""Keys of objects that wrap one post."""
_ANSWERS = ("comment", "reply", "response")
"""The same where they say by whom they are; beside another text, nobody can tell which is whose."""
_PEOPLE = ("users", "accounts")
"""Keys of profiles mostly; where each has a list of posts, of people and their posts."""
_ENVELOPE = frozenset({"status", "message"})
"""What an API says of its answer, beside the list: `{"status": "ok", "data": [...]}`."""
_MAX_DEPTH = 8
_LOOKED_AT = 20
"""Items of a list by which it is judged: all posts of one list have one shape."""


def records_of(
    value: Any, depth: int = 0, *, is_row: bool = False
) -> Iterator[Record | str | Skip]:
    """Yield the records in one JSON value: objects, bare texts, and what is none.

    Args:
        value: a line, or an element of a list; a `Skip` stays one.
        depth: how deep it stood in the file's own value.
        is_row: whether it is an element of a list of lists.

    Raises:
        SourceError: it is a chat.
    """
    if isinstance(value, Skip):
        yield value
    elif depth > _MAX_DEPTH:
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
        value = parse_python(stripped)
    return value if isinstance(value, dict | list) and value else None


def _of_object(value: Record, depth: int) -> Iterator[Record | str | Skip]:
    refuse_json_chat(value)
    activity = activity_of(value) or meta_post(value)
    if activity is not None:
        yield activity
        return
    texts = {key for key, one in value.items() if isinstance(one, str) and names_text(key)}
    is_post = bool(texts) and not (texts <= _ENVELOPE and _lists_directly(value))
    is_post = is_post or "text_entities" in value  # Telegram, whose text may come in pieces
    if not is_post and (wrapped := _wrapped(value)):
        for one in wrapped:
            yield from (one,) if RIVALS in one else records_of(one, depth + 1)
    elif not is_post and _is_page(value):
        yield from _page(value, depth)
    elif (table := table_of(value)) is not None:
        yield from table
    elif not is_post and (lists := _lists(value)):
        beside = {key: one for key, one in value.items() if key not in lists}
        for key, posts in lists.items():
            yield from _owned(posts, _owner(beside, key, posts, len(lists)), depth)
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
        if owner and isinstance(record, dict) and KNOWN not in record:
            is_open = not named(record) or (LISTED in record and LISTED not in owner)
            record = {**record, **owner} if is_open else record
            if is_open and LISTED not in owner:
                record.pop(LISTED, None)
        yield record


LISTED = "\0listed"
"""Key of a record for the only key that may say whose it is."""


def _owner(beside: Record, key: str, posts: Any, num_lists: int) -> Record | None:
    """Return whose list it is: what stands beside it says so, or its own key, `ann_marsh`."""
    account = beside.get("account")
    account = account[0] if isinstance(account, list) and account else account
    account = dig(account, "account") or account
    name = dig_text(account, "username")
    if name is not None:
        display = str(dig(account, "accountDisplayName") or name)
        return {"author": {"screen_name": name, "name": display}}
    # Of one author, `authors` is a list as well; of several it says nothing about this list.
    said = {name: one for name, one in beside.items() if not isinstance(one, list) or len(one) == 1}
    handle = named(said)
    if handle is not None:
        return {"author": {"screen_name": handle}}
    if not may_be_handle(key) or _is_connection(posts):
        return None
    is_sure = num_lists > 1 or key.startswith("@")
    return {"author": {"screen_name": key}} | ({} if is_sure else {LISTED: key})


def _is_connection(value: Any) -> bool:
    """Whether it is a list as GraphQL has it; what that is called is not a handle."""
    return isinstance(dig(value, "edges"), list)


def _wrapped(value: Record) -> list[Record]:
    """Return the post that an object wraps, or those that it wraps and that name their authors."""
    found: dict[str, Record] = {
        key: value[key]
        for key in (*_HOISTED, *_ANSWERS)
        if isinstance(value.get(key), dict)
        and (has_text(value[key]) or (len(value) == 1 and key in _HOISTED))
    }
    if "comment" in found and "creator" in value:  # Lemmy: of the comment; the post is context
        return [_hoist(value, "comment", found["comment"])]
    by_whom = {key: one for key, one in found.items() if len(found) > 1 and named(one)}
    rest = [key for key in found if key not in by_whom]
    if len(rest) > 1:
        return [{**value, RIVALS: [f"{key}.{text_path(found[key])}" for key in rest]}]
    beside = {key: one for key, one in value.items() if key not in by_whom}
    is_open = by_whom or rest[:1] not in ([key] for key in _ANSWERS) or says_author(found[rest[0]])
    return [*by_whom.values(), *(_hoist(beside, key, found[key]) for key in rest if is_open)]


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
            if dig(one, "type") == "retweeted" and (key := str(one.get("id"))) in originals:
                merged = {**merged, "retweeted_status": originals[key]}
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


# --- Lists under a key


def _lists(value: Record) -> dict[str, Any]:
    """Return the lists of posts by key: a usual one, the only one, or one for each handle.

    In the place of a list there may be an object that has one in it.
    """
    found = _lists_directly(value) or {
        key: one for key, one in value.items() if _is_wanted(key, value) and _has_posts(one)
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
        if isinstance(one, list)
        and any(isinstance(item, dict | str) for item in one[:_LOOKED_AT])
        and not _is_about_one(key, value)
    }
    usual = next((key for key in _LISTS if key in lists), None)
    if usual is not None:
        return {usual: lists[usual]}
    return {
        key: one
        for key, one in lists.items()
        if _is_wanted(key, value)
        and any(_holds_text(item, key, value) for item in one[:_LOOKED_AT])
    }


def _is_about_one(key: str, value: Record) -> bool:
    """Whether a list is about one post, which has it: its tags, what others wrote below it."""
    is_inside = not _INSIDE.isdisjoint(words_of(key)) and words_of(key)[-1:] != ("caption",)
    return is_inside and _is_record({name: one for name, one in value.items() if name != key})


def _is_wanted(key: str, value: Record) -> bool:
    """Whether what stands under a key of an object may be posts."""
    one, words = value[key], words_of(key)
    if _is_about_one(key, value):
        return False
    is_other = "".join(words) in _NOT_POSTS or not _NOT_POSTS.isdisjoint(words)
    if is_other and not (_is_connection(one) or (key in _PEOPLE and _has_posts(one))):
        return False
    is_known = not may_be_handle(key) or names_text(key) or _is_connection(one)
    return is_known or not _is_record(value)


def _is_record(value: Record) -> bool:
    """Whether an object says which or of when it is, or has what may be its text, be it empty.

    Then it is a post, and lists under names that say nothing are none of posts. An author alone is
    none: `{"username": "ann", "rants": [...]}`.
    """
    has_author = any(roles_of(key).who is not None for key in value)
    for key, one in value.items():
        roles = roles_of(key)
        if isinstance(one, bool | list | dict) or key in _ENVELOPE or roles.who is not None:
            continue
        if names_text(key) or ((roles.id, roles.date) != (None, None) and not is_empty(one)):
            return True
        if isinstance(one, str) and one.strip() and (has_author or " " in one.strip()):
            return True
    return False


def _has_posts(value: Any) -> bool:
    if isinstance(value, list):  # of people, each with a list
        return any(map(_has_list, value[:_LOOKED_AT]))
    return _has_list(value) or is_table(value)


def _has_list(value: Any, depth: int = 0) -> bool:
    if not isinstance(value, dict) or depth > _MAX_DEPTH or has_text(value):
        return False
    return bool(_lists_directly(value)) or any(
        _is_wanted(key, value) and (_has_list(one, depth + 1) or is_table(one))
        for key, one in value.items()
    )


def _holds_text(one: Any, key: str, value: Record) -> bool:
    """Whether an item of a list may be a post; a text alone where the key or all else says so."""
    if isinstance(one, str):
        is_known = not may_be_handle(key) or names_text(key)
        return is_known or all(isinstance(beside, list) for beside in value.values())
    if not isinstance(one, dict):
        return False
    wrapped = (one[name] for name in (*_HOISTED, *_ANSWERS) if isinstance(one.get(name), dict))
    return has_text(one) or any(map(has_text, wrapped)) or meta_post(one) is not None
