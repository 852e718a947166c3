"""HTML of posts, as Mastodon and its like give them, as text."""

import re
from html import unescape

MAX_CONTENT_CHARS = 100_000
_TAG = re.compile(r"<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9]{0,20})\b[^<>]*>|<[!?/][^<>]*>")
"""Not html.parser, which takes quadratic time on what is broken on purpose."""
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_UNSHOWN = ("script", "style", "template")
_NEW_LINE = ("br", "li", "blockquote", "pre", "h1", "h2", "h3", "h4", "h5", "h6")
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
