"""Keep people's posts in a folder, so that training needs no network; the next time add the newer.

One `HANDLE.jsonl.gz` a person, which `source=jsonl source.path=FOLDER` reads.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingtweets.config.posts_schema import SERVICES, SourceConfig, SourceKind
from huggingtweets.errors import SourceError
from huggingtweets.posts.cleaning import is_retweet
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.posts.records import Post, Timeline
from huggingtweets.posts.sources.http import Patience
from huggingtweets.posts.sources.load import fetch_timeline, load_timeline
from huggingtweets.storage.files import write_jsonl


@dataclass(frozen=True)
class Imported:
    """What an import did for one person."""

    handle: str
    path: Path
    num_before: int
    num_new: int
    notes: tuple[str, ...]


def import_posts(
    source: SourceConfig,
    handle: str,
    folder: Path,
    *,
    optout_file: str | None = None,
    patience: Patience | None = None,
) -> Imported:
    """Fetch or read the posts of a person and add the new ones to the file in the folder.

    Args:
        source: where from; a service is asked only for what is newer than the file.
        handle: canonical.
        folder: made if need be.
        optout_file: as configured.
        patience: with a service.

    Raises:
        OptedOutError: the person wants no model.
        SourceError: the posts cannot be had, or the file there cannot be read or written.
    """
    check_opted_out([handle], optout_file)
    path = folder / f"{handle}.jsonl.gz"
    before = _read_before(path, handle)
    known = {post.id: post for post in before.posts} if before else {}
    if source.kind in SERVICES:
        timeline = fetch_timeline(source, handle, known=frozenset(known), patience=patience)
    else:
        timeline = load_timeline(source, handle, optout_file)
    new = [post for post in timeline.posts if post.id not in known]
    # A person without new posts has no name in an empty timeline.
    name = timeline.display_name if timeline.posts or before is None else before.display_name
    picture = timeline.picture_url or (before.picture_url if before else None)
    rows = [_row(post, handle, name, picture) for post in (*new, *known.values())]
    try:
        write_jsonl(path, rows)
    except OSError as err:
        raise SourceError(
            f"{path}: cannot be written ({err.strerror}); expected a folder with room and write "
            "permission; choose another with --to"
        ) from err
    return Imported(handle, path, len(known), len(new), timeline.notes)


def _read_before(path: Path, handle: str) -> Timeline | None:
    if not path.exists():
        return None
    if not path.is_file():
        raise SourceError(f"{path}: got no file; expected one, or nothing there; move it away")
    timeline = load_timeline(SourceConfig(kind=SourceKind.jsonl, path=str(path)), handle)
    if timeline.notes:  # rewriting would lose what could not be read
        raise SourceError(
            f"{path}: is damaged ({timeline.notes[0]}); expected a file as this command writes "
            "it; move it away"
        )
    # So would rewriting lose columns of somebody else's file.
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:  # its last line as well
            rows = [json.loads(line) for line in file]
        names = {name for row in rows for name in (*row, *row["user"].keys())}
        others = sorted(names - _NAMES)
        if any(row.get("retweeted_status") for row in rows):
            others.append("whole retweets")
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError):
        others = ["another form"]
    if others:
        raise SourceError(
            f"{path}: got {', '.join(others[:4])}; expected a file as this command writes it; move "
            "it away, or choose another folder with --to"
        )
    return timeline


_NAMES = frozenset(
    {"id_str", "full_text", "created_at", "user", "screen_name", "name", "profile_image_url_https",
     "retweeted_status"}
)  # fmt: skip
"""All that a row may have; see `_row`."""


def _row(post: Post, handle: str, display_name: str, picture: str | None) -> dict[str, Any]:
    """A post in the form of X's v1.1 API, which has a place for the name, and which others read."""
    row: dict[str, Any] = {"id_str": post.id, "full_text": post.text}
    if post.created_at is not None:
        row["created_at"] = post.created_at
    row["user"] = {"screen_name": handle, "name": display_name}
    if picture is not None:
        row["user"]["profile_image_url_https"] = picture
    if is_retweet(post):
        row["retweeted_status"] = {}
    return row
