"""What one record says about its author: names, numbers, and the addresses of people and posts."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from huggingtweets.posts.reading.by_handle import name_key
from huggingtweets.posts.reading.flat import ADDRESSES, Flat, flat_of, is_empty, is_foreign
from huggingtweets.posts.reading.names import Who, words_of

_MAX_DEPTH = 7
_MAX_VALUE_CHARS = 200
_ADDRESS = re.compile(
    r"https?://(?:(?:www\.|mobile\.|m\.)?(?:twitter|x)\.com/(?:intent/user\?screen_name=)?"
    r"|[^/\s]{1,100}/(?:@|users/|u/|profile/|ap/users/))@?([\w.@-]{1,90})/?",
    re.ASCII,
)
"""Of a person's page, on X, Mastodon, Bluesky; other addresses are of anything."""
_PERMALINK = re.compile(
    r"(?:https?://[\w.-]{1,100})?/(?:"
    r"@?([\w.-]{1,90})/status(?:es)?/(?=\d)"  # X
    r"|(?:users?|u|profile)/@?([\w.:-]{1,90})/(?:status(?:es)?|posts?|comments|notes)/"
    r"|@([\w.-]{1,90})(?:@[\w.-]{1,90})?/(?:posts?/|video/)?"  # Mastodon, Threads, TikTok
    r")([\w-]{1,90})",
    re.ASCII,
)
"""Of a post, with whoever wrote it: on X, Mastodon, Bluesky, Threads, Reddit."""
_NOBODY = ("i", "anyuser", "user", "status", "web")
_HANDLE = re.compile(r"@?(?:\w{1,30}|[\w-]{1,63}(?:[.@][\w-]{1,63}){1,6})", re.ASCII)
_PRINTED_USER = re.compile(r"\b(?:screen_name|username)='(\w{1,30})'", re.ASCII)
"""In an object of tweepy or snscrape as Python prints it."""


class Field(NamedTuple):
    """One thing that a record says about its author."""

    who: Who
    depth: int
    """How deep it is nested; the shallower counts."""
    path: str
    value: str
    """As it is compared: a handle lower case without `@`, an id or a name as written."""
    written: str = ""


def is_handle(text: str) -> bool:
    """Whether a text has the form of a handle."""
    return bool(_HANDLE.fullmatch(text))


def squeezed(name: str) -> str:
    """Return a name without what handles cannot have: `Pond Keeper` is `pondkeeper`."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKD", name)).lower()


def is_same(key: str, handle: str, path: str) -> bool:
    """Whether a handle, as a column has it, is the one asked for.

    On Mastodon a server leaves its own name out, on Bluesky people leave out `.bsky.social`.
    """
    if key in (handle, f"{handle}.bsky.social"):
        return True
    name, dot, _ = handle.partition(".")
    words = words_of(path)
    return bool(dot) and key == name and ("account" in words or words[-1:] in ADDRESSES)


def is_called(name: str, handle: str, path: str) -> bool:
    """Whether a value of a column that is told to name authors stands for a handle.

    What is no handle itself does by its letters and digits: `Ann Marsh` is `ann_marsh`.
    """
    key = name_key(name)
    is_alike = not is_handle(key) and squeezed(key) == squeezed(handle)
    return is_alike or is_same(key, handle, path)


def typed_handle(name: str) -> str | None:
    """Return the handle to type for a name, None where handles lack its letters."""
    key = name_key(name).replace(":", ".")
    parts = re.findall(r"[a-z0-9]+", re.sub(r"[^\w\s-]", "", unicodedata.normalize("NFKD", key)))
    found = key if is_handle(key) else "_".join(parts)
    return found if is_handle(found) and squeezed(found) == squeezed(name) else None


def writer_of(address: str) -> str | None:
    """Return the handle or DID in the address of a post; None: it is not one."""
    match = _PERMALINK.match(address)
    return name_key(match[1] or match[2] or match[3]) if match else None


def named(value: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return the handle that an object gives for its author, None where it gives none.

    Args:
        value: the object.
        prefix: `user.` where the object is itself the author, whatever it is called.
    """
    handles = [one for one in fields_of(flat_of(value, prefix)) if one.who < Who.display]
    return min(handles).value if handles else None


def says_author(value: Mapping[str, Any]) -> bool:
    """Whether an object names its author, be it by a display name."""
    return any(one.who <= Who.display for one in fields_of(flat_of(value)))


def fields_of(flat: Flat, own_id: str | None = None) -> Iterator[Field]:
    """Yield what a record says about its author; an address without `own_id` is of another post."""
    for place, who in flat.layout.authors:
        path, value = flat.items[place]
        if isinstance(value, str) and value.startswith("at://did:") and not is_foreign(path):
            yield Field(Who.id, path.count("."), path, value[5:_MAX_VALUE_CHARS].partition("/")[0])
        if who is None:
            if isinstance(value, str) and (own_id in value if own_id else not is_foreign(path)):
                yield from _permalink(path, value, own_id)
            continue
        if isinstance(value, bool | float | list | dict) or is_empty(value):
            continue
        text = str(value).strip()
        if text.startswith("User(") and (match := _PRINTED_USER.search(text)):
            text, who = match[1], Who.handle
        text = text[:_MAX_VALUE_CHARS]
        depth = path.count(".")
        if who is Who.id:
            yield Field(who, depth, path, text.rpartition(":")[2] if "twitter" in text else text)
            continue
        if match := _ADDRESS.fullmatch(text):
            text, who = match[1], max(who, Who.username)
        elif "://" in text or text.startswith("/"):  # of anything; `Ann Lee (she/her)` is a name
            continue
        if who is not Who.display and not is_handle(text):
            who = Who.display
        yield Field(who, depth, path, text if who is Who.display else name_key(text), text)


def _permalink(path: str, value: str, own_id: str | None) -> Iterator[Field]:
    """Yield the author whom the address of the post itself names: `x.com/ann/status/<own id>`."""
    match = _PERMALINK.match(value)
    name = match and writer_of(value)
    if match and name and own_id in (match[4], None) and name not in _NOBODY:
        who = Who.id if name.startswith("did:") else Who.someone
        yield Field(who, path.count(".") + _MAX_DEPTH, path, name)
