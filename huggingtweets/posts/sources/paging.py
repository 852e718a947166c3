"""A timeline fetched page by page, kept on disk meanwhile, so that nothing is asked for twice."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import has_bad_bytes
from huggingtweets.posts.reading.timeline import RawPost, Skip
from huggingtweets.posts.sources.http import UnavailableError
from huggingtweets.storage.files import read_jsonl, write_jsonl
from huggingtweets.storage.paths import cache_dir

logger = logging.getLogger(__name__)

MAX_PAGES = 1000
MAX_PAGE_POSTS = 1000
"""No service gives more than 100; what else is in an answer is not looked at."""
MAX_AGE_S = 24 * 3600.0
"""An older half is thrown away: its cursor has expired, and posts may have been deleted since."""
_MAX_CURSOR_BYTES = 8192
_ASK_AGAIN = 3
"""Times a page is asked for whose cursor leads back."""


@dataclass(frozen=True)
class Page:
    """One answer of a service."""

    found: tuple[RawPost | Skip, ...]
    cursor: str | None
    """What to ask for the next page with; None: this is the last."""


@dataclass(frozen=True)
class Fetched:
    """What a service gave."""

    found: tuple[RawPost | Skip, ...]
    notes: tuple[str, ...]
    num_posts: int
    """Distinct ones."""


class Partial:
    """The pages fetched so far, in a file of the cache; one person of one service each."""

    def __init__(self, service: str, handle: str, request: str) -> None:
        """Read what an interrupted fetch has left; what answers another request is dropped.

        Args:
            service: name of the service.
            handle: whose posts; stands in the file's name as a hash only.
            request: all that decides what is asked for, as text.
        """
        self._path = partial_path(service, handle)
        self._head = {"request": hashlib.sha256(request.encode()).hexdigest()}
        self._is_kept = True
        self.pages: list[Page] = self._read()
        self.is_resumed = bool(self.pages)
        """Whether it goes on from what an earlier fetch has left."""

    @property
    def cursor(self) -> str | None:
        """Where to go on; None at the beginning."""
        return self.pages[-1].cursor if self.pages else None

    @property
    def is_complete(self) -> bool:
        """Whether the last page is there."""
        return bool(self.pages) and self.pages[-1].cursor is None

    def add(self, page: Page) -> None:
        """Keep a page, on disk when this returns; a full disk costs a warning, not the fetch."""
        is_first = not self.pages
        self.pages.append(page)
        if not self._is_kept:
            return
        try:
            if is_first:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_jsonl(self._path, [self._head | {"started": time.time()}])
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_sealed(asdict(page))) + "\n")
                file.flush()
                os.fsync(file.fileno())  # X has been paid for it
        except OSError as err:
            self._is_kept = False
            self._remove()  # a page would be missing in it
            logger.warning("%s cannot be written (%s)", self._path.parent, err.strerror)

    def discard(self) -> None:
        """Remove the file: what was in it is kept elsewhere, or no good."""
        self.pages = []
        self.is_resumed = False
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> list[Page]:
        try:
            rows = read_jsonl(self._path)
            head, pages = rows[0], [_page(_unsealed(row)) for row in rows[1:]]
            is_fresh = 0 <= time.time() - head["started"] < MAX_AGE_S
            if head["request"] != self._head["request"] or not is_fresh:
                return []
            write_jsonl(self._path, rows)  # without a last line that was cut short
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return []
        return pages


def partial_path(service: str, handle: str) -> Path:
    """Return where an unfinished fetch lies."""
    digest = hashlib.sha256(f"{service}/{handle}".encode()).hexdigest()[:32]
    return cache_dir() / "fetch" / f"{service}-{digest}.jsonl"


def collect_pages(
    get_page: Callable[[str | None], Page],
    partial: Partial,
    *,
    max_posts: int,
    known: Collection[str] = (),
    is_paid: bool = False,
) -> Fetched:
    """Fetch page after page until the last, `max_posts`, or a post that is known already.

    A service may refuse where an earlier fetch has stopped: its cursors expire. Then all that is
    kept of that fetch is dropped, and the fetch begins again, or, where posts cost money and a new
    beginning has to be allowed first, the next start does.

    Args:
        get_page: asks for the page at a cursor.
        partial: what there is already.
        max_posts: to be fetched.
        known: ids of posts that are there already.
        is_paid: whether every post costs.

    Raises:
        SourceError: as `get_page`; what came so far is kept in `partial`.
    """
    try:
        return _collect(get_page, partial, max_posts, known)
    except SourceError as err:
        if not partial.is_resumed or err.retryable:
            raise
        partial.discard()
        if is_paid:
            raise UnavailableError(
                f"{err}; what an earlier fetch has left is dropped; run the same command again to "
                "fetch the posts from the first one on"
            ) from err
        logger.warning("%s; what an earlier fetch has left is dropped, and it begins again", err)
    return _collect(get_page, partial, max_posts, known)


def _collect(
    get_page: Callable[[str | None], Page], partial: Partial, max_posts: int, known: Collection[str]
) -> Fetched:
    notes = []
    cursors = {page.cursor for page in partial.pages}
    ids = {post.id for page in partial.pages for post in _posts(page)}
    while not partial.is_complete and len(ids) < max_posts:
        if len(partial.pages) >= MAX_PAGES:
            notes.append(f"the service has more than {MAX_PAGES} pages; the rest is left out")
            break
        for _ in range(1 + _ASK_AGAIN):
            page = _cut(get_page(partial.cursor))
            if page.cursor not in cursors:
                break
        else:
            notes.append("the service leads back to an earlier page; what follows is missing")
            page = Page(page.found, None)
        if any(post.id in known for post in _posts(page)):
            page = Page(page.found, None)
        partial.add(page)
        cursors.add(page.cursor)
        ids.update(post.id for post in _posts(page))
    found = [item for page in partial.pages for item in page.found]
    chosen = _first(found, max_posts, known)
    return Fetched(tuple(chosen), tuple(notes), len(ids))


def _cut(page: Page) -> Page:
    """Bound what is kept of an answer; a cursor that cannot be sent back ends the fetch."""
    found = tuple(
        item.cut() if isinstance(item, RawPost) else item for item in page.found[:MAX_PAGE_POSTS]
    )
    cursor = page.cursor
    if cursor and (has_bad_bytes(cursor) or len(cursor.encode()) > _MAX_CURSOR_BYTES):
        cursor = None
    return Page(found, cursor)


def _first(
    found: list[RawPost | Skip], max_posts: int, known: Collection[str]
) -> list[RawPost | Skip]:
    """Leave out known posts, and what goes beyond the number asked for; repeats stay, uncounted."""
    ids: set[str | None] = set()
    chosen: list[RawPost | Skip] = []
    for item in found:
        if isinstance(item, RawPost):
            if item.id in known or (item.id not in ids and len(ids) >= max_posts):
                continue
            ids.add(item.id)
        chosen.append(item)
    return chosen


def _posts(page: Page) -> list[RawPost]:
    return [item for item in page.found if isinstance(item, RawPost)]


def _sealed(row: dict[str, Any]) -> dict[str, Any]:
    """Add what shows whether a row is as it was written."""
    return row | {"sha256": hashlib.sha256(json.dumps(row).encode()).hexdigest()}


def _unsealed(row: dict[str, Any]) -> dict[str, Any]:
    """Return what was sealed.

    Raises:
        ValueError: something in it has changed since.
    """
    plain = {key: value for key, value in row.items() if key != "sha256"}
    if row.get("sha256") != _sealed(plain)["sha256"]:
        raise ValueError("a page is not as it was written")
    return plain


def _page(row: dict[str, Any]) -> Page:
    found = (
        Skip(**item)
        if "reason" in item
        else RawPost(**{**item, "older_ids": tuple(item["older_ids"])})
        for item in row["found"]
    )
    return Page(tuple(found), row["cursor"])
