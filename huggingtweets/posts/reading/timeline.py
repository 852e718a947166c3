"""What every source yields, and the one way it becomes a `Timeline`: each once, newest first."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from huggingtweets.errors import SourceError
from huggingtweets.posts.records import Post, Timeline

MAX_POSTS = 1_000_000
"""Posts of one person."""
MAX_SKIPS = 1_000_000
"""Things in one file that are not posts; with more, it is not a file of posts."""
MAX_TEXT_CHARS = 25_000
"""The longest post X allows; more is cut."""
MAX_TOTAL_CHARS = 1 << 28
"""Of all posts of one person."""
MAX_ID_CHARS = 200
_NUMBER = re.compile(r"[0-9]{1,40}")
_BROKEN_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?[eE]\+?[0-9]+")
_MAX_NAME_CHARS = 200
_PICTURE_URL = re.compile(r"https://[A-Za-z0-9.:-]{1,260}/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{1,1000}")
_THUMBNAIL = re.compile(r"_(?:mini|normal|bigger)(\.[a-z]{3,4})\Z")
_MAX_REASONS = 20


@dataclass(frozen=True, slots=True)
class RawPost:
    """One post as found in a file."""

    text: str
    id: str | None = None
    created_at: str | None = None
    is_retweet: bool | None = None
    author_name: str | None = None
    author_picture: str | None = None
    """Address of the author's picture."""
    older_ids: tuple[str, ...] = ()
    """Earlier versions that this post replaces."""
    is_outdated: bool = False
    """Whether a later version replaces this post."""

    def cut(self) -> "RawPost":
        """Return it without what is far too long; one character more shows that it was longer."""
        most = MAX_TEXT_CHARS + 1
        return self if len(self.text) <= most else replace(self, text=self.text[:most])


@dataclass(frozen=True, slots=True)
class Skip:
    """One thing in a file that is not a post, and why."""

    reason: str
    line: int | None = None


_REPEATED = "came more than once and count once"
_OUTDATED = "were edited later; the last version counts"
_CUT = f"were cut to {MAX_TEXT_CHARS} characters"


class _Tally:
    """What was left out so far."""

    def __init__(self) -> None:
        self.skipped: dict[str, tuple[int, int | None]] = {}
        """Per reason: how many, and the first line."""
        self.num_skipped = 0
        self.posts = dict.fromkeys((_REPEATED, _OUTDATED, _CUT), 0)
        """How many posts met with what."""

    def skip(self, skip: Skip) -> None:
        is_room = skip.reason in self.skipped or len(self.skipped) < _MAX_REASONS
        reason = skip.reason if is_room else "other reasons"
        count, line = self.skipped.get(reason, (0, skip.line))
        self.skipped[reason] = (count + 1, line)
        self.num_skipped += 1

    def skips(self) -> list[str]:
        return [
            f"{count} skipped: {reason}" + ("" if line is None else f" (first: line {line})")
            for reason, (count, line) in self.skipped.items()
        ]

    def notes(self, where: str) -> list[str]:
        met = [f"{num} posts {what}" for what, num in self.posts.items() if num]
        return [f"{where}: {one}" for one in (*self.skips(), *met)]


def make_timeline(
    where: str,
    handle: str,
    found: Iterable[RawPost | Skip],
    *,
    display_name: str | None = None,
    notes: Sequence[str] = (),
    picture_url: object = None,
    how: Sequence[str] = (),
) -> Timeline:
    """Gather the posts of one person, newest first, each id once.

    Args:
        where: the file, for messages.
        handle: canonical (lower case).
        found: what the file holds of this person, in its order.
        display_name: from outside the posts; else the posts' author name, else the handle.
        notes: sentences that go before our own.
        picture_url: likewise from outside the posts, as received; else the posts' author picture.
        how: what the file was taken for, read once all of `found` is.

    Raises:
        SourceError: there are things that are not posts, and none that is.
    """
    tally = _Tally()
    by_id: dict[str, Post] = {}
    older: set[str] = set()
    own_name: str | None = None
    own_picture: str | None = None
    num_chars = 0
    for number, item in enumerate(found, start=1):
        if isinstance(item, Skip):
            tally.skip(item)
        elif item.is_outdated:
            tally.posts[_OUTDATED] += 1
        else:
            # Two posts without ids are two posts, be their texts equal: cleaning drops repeats.
            key = item.id if item.id is not None else f"row-{number}"
            if key in by_id:
                tally.posts[_REPEATED] += 1
                continue
            text = item.text[:MAX_TEXT_CHARS]
            tally.posts[_CUT] += len(item.text) > MAX_TEXT_CHARS
            num_chars += len(text)
            by_id[key] = Post(key, text, item.created_at, item.is_retweet)
            older.update(item.older_ids)
            own_name = own_name or item.author_name
            own_picture = own_picture or item.author_picture
        check_amount(where, len(by_id), num_chars, tally.num_skipped)
    for outdated in older & by_id.keys():
        tally.posts[_OUTDATED] += 1
        del by_id[outdated]
    posts = tuple(_newest_first(list(by_id.values())))
    if not posts and tally.skipped:  # an empty file is just an empty timeline
        raise SourceError(
            f"{where}: got no readable post ({'; '.join(tally.skips()[:3])}); "
            "expected the posts of one person; check source= and source.path="
        )
    name = (display_name or own_name or handle)[:_MAX_NAME_CHARS]
    picture = parse_picture_url(picture_url) or own_picture
    return Timeline(handle, name, posts, (*notes, *tally.notes(where)), picture, tuple(how))


def check_amount(where: str, num_posts: int, num_chars: int, num_skips: int = 0) -> None:
    """Refuse more than anybody posts.

    Raises:
        SourceError: it is more.
    """
    if num_posts > MAX_POSTS or num_chars > MAX_TOTAL_CHARS or num_skips > MAX_SKIPS:
        raise SourceError(
            f"{where}: got more than {MAX_POSTS} posts, {MAX_TOTAL_CHARS} characters or "
            f"{MAX_SKIPS} things that are not posts; expected the posts of one person; "
            "split the file"
        )


def _newest_first(posts: list[Post]) -> list[Post]:
    """By number of the id where all have one, else by date, else as they stand."""
    if all(_NUMBER.fullmatch(post.id) for post in posts):
        return sorted(posts, key=lambda post: int(post.id), reverse=True)
    if all(post.created_at for post in posts):
        return sorted(posts, key=lambda post: post.created_at or "", reverse=True)
    return posts


def parse_id(value: object) -> str | None:
    """Return an id as text; None for what lost digits on its way through a spreadsheet."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        # From 2**53 on a float has lost digits: it would be the id of another post.
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else None
    text = str(value).strip() if isinstance(value, int | str) else ""
    if not text or len(text) > MAX_ID_CHARS or _BROKEN_NUMBER.fullmatch(text):
        return None
    return text[:-2] if text.endswith(".0") and _NUMBER.fullmatch(text[:-2]) else text


def parse_picture_url(value: object) -> str | None:
    """Return the address of a profile picture; None for what is not a plain address by https.

    X names a thumbnail; the same with another ending is large enough to show.
    """
    if not isinstance(value, str) or not _PICTURE_URL.fullmatch(value):
        return None
    return _THUMBNAIL.sub(r"_400x400\1", value)


_FIRST_YEAR = 1971
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_API_DATE = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{2}) (\d{2}):(\d{2}):(\d{2}) \+0000 (\d{4})", re.ASCII
)


_DAY = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2\d{4}", re.ASCII)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_PAGES = ("%b %d, %Y · %I:%M %p UTC", "%I:%M %p - %d %b %Y", "%I:%M %p · %b %d, %Y", "%b %d, %Y")


def parse_date(value: object) -> str | None:
    """Return a date as `2022-04-28T00:45:59Z`; None where it cannot be read.

    Reads ISO 8601 and its usual variants, the date of the v1.1 API, what web pages and
    spreadsheets write, seconds, milliseconds and microseconds since 1970. Dates without a zone are
    taken for UTC.
    """
    try:
        moment = _moment(value)
        if moment is None or moment.year < _FIRST_YEAR:
            return None
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None


def _moment(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str) and len(value) <= 64:
        text = value.strip()
        if match := _API_DATE.fullmatch(text):  # by hand: strptime takes as long as all else here
            month = _MONTHS.index(match[1]) // 3 + 1
            day, hour, minute, second, year = (int(match[number]) for number in range(2, 7))
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if re.fullmatch(r"\d{10}(?:\.\d{1,9})?|\d{13}|\d{16}", text, re.ASCII):
            return _moment(float(text))
        iso = re.sub(r"\s*(UTC|GMT)$", "+00:00", text)
        try:
            parsed = datetime.fromisoformat(re.sub(r"\s+(?=[+-]\d\d:?\d\d$)", "", iso))
        except ValueError:
            parsed = _as_pages_write(text)
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # By size: as seconds 1e11 is the year 5138, as milliseconds 1e14 is. Less than 1e8 seconds
        # (1973) is a count rather than a time.
        seconds = value / (1e6 if abs(value) >= 1e14 else 1000 if abs(value) >= 1e11 else 1)
        return datetime.fromtimestamp(seconds, tz=UTC) if abs(seconds) >= 1e8 else None
    return None


def _as_pages_write(text: str) -> datetime:
    """Read `21/03/2006 20:50`, where it is plain which is the day, and what X and Nitter show.

    Raises:
        ValueError: it is neither.
    """
    forms: Iterable[str] = _PAGES
    if match := _DAY.match(text):
        mark, day_first = match[2], match[2] == "." or int(match[1]) > 12
        if not day_first and int(match[3]) <= 12:
            raise ValueError("day or month")
        day = f"%d{mark}%m{mark}%Y" if day_first else f"%m{mark}%d{mark}%Y"
        forms = (day + time for time in _TIMES)
    for form in forms:
        with suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=UTC)
    raise ValueError("no date")
