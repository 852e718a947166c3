"""Bluesky's texts: the app shortens links and keeps the address beside the text."""

import re
from collections.abc import Mapping
from typing import Any

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
    spans = sorted(_links(record.get("facets")), reverse=True)
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


def _links(facets: Any) -> list[tuple[int, int, str]]:
    found = []
    for facet in facets[:_MAX_FACETS] if isinstance(facets, list) else []:
        index = facet.get("index") if isinstance(facet, dict) else None
        features = facet.get("features") if isinstance(facet, dict) else None
        if not isinstance(index, dict) or not isinstance(features, list):
            continue
        start, end = index.get("byteStart"), index.get("byteEnd")
        for feature in features:
            uri = feature.get("uri") if isinstance(feature, dict) else None
            is_address = isinstance(uri, str) and re.fullmatch(r"https?://[!-~]{1,2000}", uri)
            if is_address and type(start) is int and type(end) is int:
                found.append((start, end, str(uri)))
    return found


def _is_boundary(data: bytes, index: int) -> bool:
    return index == len(data) or data[index] & 0xC0 != 0x80
