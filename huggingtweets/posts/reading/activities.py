"""What some services alone have: activities, Meta's downloads, texts in HTML, kinds of events."""

import re
from collections.abc import Mapping
from typing import Any

from huggingtweets.posts.reading.json_values import dig, dig_list, dig_text
from huggingtweets.posts.reading.record import CLOSED, RICH
from huggingtweets.posts.reading.rich_text import whole_links
from huggingtweets.posts.reading.timeline import Skip

Record = dict[str, Any]

_PUBLIC = frozenset({"https://www.w3.org/ns/activitystreams#Public", "as:Public", "Public"})
_ACTIVITIES = frozenset({"create", "announce"})
_NOTES = (1, 20, 1111, 30023)
"""Kinds of Nostr's events that are posts for all, comments and articles among them."""
_ON_A_TIMELINE = re.compile(r" wrote on .+ timeline\b")
_NAME = re.compile(r"((?:(?![a-z])[\w.'-]+ ){1,4})(?=\w)")
"""Before the first word that begins with a small letter: Facebook says who did what."""


def rich(record: Record) -> Record | Skip:
    """Mark what is HTML by its shape, and make Bluesky's shortened links whole.

    What a server of Mastodon says is not a post of ours: closed ones, and profiles with a `note`.
    """
    if RICH in record:
        return record
    if isinstance(record.get("content"), str) and any(
        key in record for key in ("reblog", "visibility", "spoiler_text", "attributedTo")
    ):
        return {**record, RICH: "html"}
    if "pubkey" in record and "sig" in record and record.get("kind") not in _NOTES:
        return Skip("an event of Nostr that is no note")
    if "acct" in record and "note" in record and "content" not in record:
        return Skip("a profile, no post")
    if "facets" in record or str(record.get("$type", "")).startswith("app.bsky."):
        return whole_links(record)
    return record


# --- ActivityPub


def activity_of(value: Record) -> Record | Skip | None:
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


# --- What people download of themselves from Threads, Instagram and Facebook


def meta_post(value: Record) -> Record | Skip | None:
    """Read `{"media": [{"title": ...}]}`, the text being that of the first picture, or outside.

    Instagram has comments as `{"string_map_data": {"Comment": ...}}`, Facebook posts as
    `{"data": [{"post": ...}], "title": "Ann Marsh updated her status."}`.
    """
    comment = dig_text(value, "string_map_data", "Comment", "value")
    if comment is not None:
        when = dig(value, "string_map_data", "Time", "timestamp")
        return {"text": comment, "created_at": when}
    data = dig_list(value, "data") if "timestamp" in value else []
    post = next((text for one in data if (text := dig_text(one, "post"))), None)
    if post is not None:
        title = str(value.get("title") or "")[:300]
        if _ON_A_TIMELINE.search(title):
            return Skip("written on a timeline by whoever is named there")
        name = _NAME.match(title)
        by = {"author": {"name": name[1]}} if name else {}
        return {"text": post, "created_at": value["timestamp"], **by}
    first = next(iter(dig_list(value, "media")), None)
    when = dig(first, "creation_timestamp")
    text = value.get("title") or dig(first, "title")
    return {"text": text, "created_at": when} if when and isinstance(text, str) else None
