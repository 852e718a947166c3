"""Texts as services keep them, made plain: HTML of Mastodon and its like, facets of Bluesky."""

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

from huggingtweets.posts.reading.json_values import dig, dig_list, dig_text

MAX_CONTENT_CHARS = 100_000
_TAG = re.compile(r"<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9]{0,20})\b[^<>]*>|<[!?/][^<>]*>")
"""Not html.parser, which takes quadratic time on what is broken on purpose."""
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_UNSHOWN = ("script", "style", "template", "blockquote")
"""A `blockquote` holds what somebody else said."""
_NEW_LINE = ("br", "li", "pre", "h1", "h2", "h3", "h4", "h5", "h6")
_QUOTE_LINK = re.compile(r"class=[\"']?[^\"'>]{0,200}\bquote-inline\b")
"""`RE: <link>` for clients that show no quotes: before the post in Mastodon 4.5, behind it in
Akkoma and Misskey. Mastodon itself hides it."""


def html_to_text(content: str) -> str:
    """Return what a reader of a post sees; paragraphs and line breaks become line breaks.

    Links stay whole addresses, so that cleaning can drop them.
    """
    content = content[:MAX_CONTENT_CHARS]
    parts: list[str] = []
    start = depth_unshown = 0
    hidden = ""
    for tag in _TAG.finditer(content):
        if not depth_unshown:
            parts.append(content[start : tag.start()])
        start = tag.end()
        name = (tag["name"] or "").lower()
        is_hidden = name == hidden if depth_unshown and hidden else name in _UNSHOWN
        if not depth_unshown and name in ("p", "span") and _QUOTE_LINK.search(tag[0]):
            hidden, is_hidden = name, True
        if is_hidden:
            parts.append("\n" * (name == "blockquote"))
            depth_unshown = max(0, depth_unshown + (-1 if tag["end"] else 1))
            hidden = hidden if depth_unshown else ""
        elif depth_unshown:
            continue
        elif name in _NEW_LINE and not tag["end"]:
            parts.append("\n")
        elif name == "p" and tag["end"]:
            parts.append("\n\n")
    if not depth_unshown:
        parts.append(content[start:])
    text = _ENTITY.sub(lambda match: unescape(match[0]), "".join(parts))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


# --- Bluesky: the app shortens links and keeps the address beside the text

_SHORTENED = re.compile(
    r"(?<![\w@./-])(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}/"
    r"[^\s]{0,60}?(?:\.\.\.|…)(?=\s|$)"
)
"""As the app cuts a link: host, the beginning of the path, three dots. Posts of old clients have
no facets for it."""
_MAX_FACETS = 300


def whole_links(record: Mapping[str, Any]) -> dict[str, Any]:
    """Put the addresses of a post's links in the place of what is shown, for cleaning to see.

    `facets` count in bytes of UTF-8. What does not fit the text is passed over.
    """
    text = record.get("text")
    if not isinstance(text, str):
        return dict(record)
    data = text.encode("utf-8", "surrogatepass")
    spans = sorted(_links(record), reverse=True)
    end_of_next = len(data)
    for start, end, uri in spans:
        if (
            0 <= start < end <= end_of_next
            and _is_boundary(data, start)
            and _is_boundary(data, end)
        ):
            data = data[:start] + uri.encode() + data[end:]
            end_of_next = start
    text = data.decode("utf-8", "replace")
    return {
        **record,
        "facets": None,
        "text": _SHORTENED.sub(lambda match: f"https://{match[0]}", text),
    }


def _links(record: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    found = []
    for facet in dig_list(record, "facets")[:_MAX_FACETS]:
        start, end = (dig(facet, "index", key) for key in ("byteStart", "byteEnd"))
        for feature in dig_list(facet, "features"):
            uri = dig_text(feature, "uri") or ""
            is_address = re.fullmatch(r"https?://[!-~]{1,2000}", uri)
            if is_address and type(start) is int and type(end) is int:
                found.append((start, end, uri))
    return found


def _is_boundary(data: bytes, index: int) -> bool:
    return index == len(data) or data[index] & 0xC0 != 0x80
