"""The account archive that people download from X, zip or folder, of any age.

Read are posts, community posts, long posts, and the names in account.js and manifest.js. Circle
posts, deleted posts, likes, messages, advertising data and the e-mail address are not.
"""

import bisect
import html
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import (
    Said,
    decode,
    guard,
    iter_lines,
    list_folder,
    name_key,
    nearest,
    open_bytes,
    show,
)
from huggingtweets.posts.reading.gather import Row, posts_of_x
from huggingtweets.posts.reading.json_values import dig, dig_list, dig_text, iter_values, parse_json
from huggingtweets.posts.reading.timeline import (
    MAX_POSTS,
    MAX_TEXT_CHARS,
    RawPost,
    Skip,
    make_timeline,
    parse_date,
    parse_id,
)
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.csv_file import csv_rows
from huggingtweets.posts.sources.members import Members, open_members

_POSTS = r"(?:tweets?|community-tweet)(?:-part\d{1,4})?\.js|js/tweets/\d{4}_\d{2}\.js"
_NOTES = r"note-tweet(?:-part\d{1,4})?\.js"
_OWNER = r"account\.js|manifest\.js|js/user_details\.js"
_WANTED = re.compile(
    rf"(?P<base>(?:[^/]+/)*?)(?:(?P<posts>{_POSTS})|(?P<notes>{_NOTES})|{_OWNER}|(?P<csv>tweets\.csv))",
    re.ASCII,
)
_MAX_ENTRY_CHARS = 4 << 20
_MAX_LINE_CHARS = 1 << 20
_SHORT_NUMBER = re.compile(r"[0-9]{1,20}")
_HANDLE = re.compile(r"[A-Za-z0-9_]{1,30}")
_MENTIONS = re.compile(r"\A(?:@\w{1,30}\s{1,9}){1,100}", re.ASCII)
_LAST_LINKS = re.compile(r"(?:\s{0,9}https?://t\.co/\w{1,20}){1,9}\s{0,9}\Z", re.ASCII)
_NOTE_WINDOW_MS = 1000
"""How long after its long text a post comes; 41 at most were seen."""
_COMPARED_CHARS = 60
_MAX_CANDIDATES = 50
_MAX_LISTED = 20
_MAX_COMMUNITY_CHARS = 1 << 28
_COMMUNITY_LISTS = ("tweets", "note-tweet", "account", "community-tweet")


Entries = Mapping[str, Callable[[], Iterator[Any]]]
"""What the files of an archive hold, by their names without folders."""


def read_x_archive(path: Path, handle: str) -> Timeline:
    """Read the posts of the owner of an archive.

    Args:
        path: a zip, the folder it unpacks to or one of the .js files in it, then that file alone;
            a folder of such, each called by a handle; the JSON file of the Community Archive.
        handle: the owner, canonical. An archive that does not say whose it is belongs to anyone.

    Raises:
        SourceError: it is somebody else's, holds no posts, is damaged beyond use or hostile.
    """
    archive = _archive_of(path, handle)
    with _open(archive) as files:
        username, display_name = _owner(files)
        if username is not None and name_key(username) != handle:
            raise SourceError(
                f"{archive}: is the archive of {username}, not of {handle}; use user={username}"
            )
        found = list(_found(files, only=archive.name if archive.suffix == ".js" else None))
        notes = [*_join_notes(found, files), *_missing_parts(files)]
        how = (
            f"author: the archive of {username or 'somebody unnamed'}",
            "retweets: texts that begin with RT @",
            "text: full_text and note-tweet.js",
        )
        return make_timeline(
            archive.name, handle, found, display_name=display_name, notes=notes, how=how
        )


def find_x_owner(path: Path, handle: str = "") -> str | None:
    """Return whose archive it is, as written there; None: it does not say.

    Args:
        path: as for `read_x_archive`.
        handle: of a folder of archives, the one called so is looked at.

    Raises:
        SourceError: it cannot be read, or is several.
    """
    with _open(_archive_of(path, handle) if handle else path) as files:
        return _owner(files)[0]


@contextmanager
def _open(archive: Path) -> Iterator[Entries]:
    """Give what the files of an archive hold, whatever form it has."""
    if archive.suffix == ".json":
        yield _community_files(archive)
        return
    is_file = archive.suffix == ".js"
    with open_members(archive.parent if is_file else archive, _WANTED) as members:
        base = "" if is_file else _find_base(members, archive)
        own = {name: name.removeprefix(base) for name in members if name.startswith(base)}
        yield {own[name]: partial(_entries, own[name], members[name]) for name in own}


def _community_files(path: Path) -> Entries:
    """Read what the site of the Community Archive hands out: one object of lists.

    Raises:
        SourceError: it is something else.
    """
    with open_bytes(path, []) as stream:
        text = decode(stream).read(_MAX_COMMUNITY_CHARS)
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if not isinstance(dig(value, "tweets"), list):
        raise SourceError(
            f"{path}: got no list of tweets; expected an archive from X, or the JSON file of the "
            "Community Archive; check source=, which is jsonl for other files of JSON"
        )
    lists = {key: dig_list(value, key) for key in _COMMUNITY_LISTS if key in value}
    return {f"{key}.js": partial(iter, lists[key]) for key in lists}


def _archive_of(path: Path, handle: str) -> Path:
    """Return the archive itself, or that of the handle in a folder of archives."""
    if not path.is_dir() or (path / "data").is_dir():
        return path
    users = {child: child.name.removesuffix(".zip") for child in list_folder(path)}
    hits = [child for child, user in users.items() if name_key(user) == handle]
    if len(hits) > 1:
        names = " and ".join(show(hit.name) for hit in sorted(hits)[:2])
        raise SourceError(f"{path}: got {names} for user {handle}; expected one; remove one")
    zips = [user for child, user in users.items() if child.suffix == ".zip"]
    if zips and not hits:
        raise SourceError(
            f"{path}: got no archive of user {handle}; expected {handle}.zip or a folder {handle}; "
            f"there are {len(zips)}{nearest(handle, zips)}"
        )
    return hits[0] if hits else path


def _find_base(members: Members, archive: Path) -> str:
    """Return the folder inside the archive that holds the posts, ending in `/` or empty."""
    matches = [match for name in members if (match := _WANTED.fullmatch(name))]
    bases = {match["base"] for match in matches if match["posts"]}
    bases = bases or {match["base"] for match in matches if match["csv"]}
    if len(bases) == 1:
        return bases.pop()
    if bases:
        first, second = sorted(bases)[:2]
        raise SourceError(
            f"{archive}: holds more than one archive ({show(first)}, {show(second)}); "
            "expected one, or one per user, each called by its handle"
        )
    raise SourceError(
        f"{archive}: got no data/tweets.js, data/tweet.js, data/js/tweets/*.js or tweets.csv; "
        "expected the account archive from X; Mastodon's is source=mastodon_archive, and of other "
        "services unpack it and use source=jsonl or csv"
    )


def _found(files: Entries, only: str | None = None) -> Iterator[RawPost | Skip]:
    """Yield what the files of posts hold; the old tweets.csv only stands in for missing ones."""
    wanted = (name for name in files if re.fullmatch(_POSTS, name))
    names = sorted(name for name in wanted if only is None or name.rpartition("/")[2] == only)
    if only is not None and not names:
        raise SourceError(
            f"{only}: is no file of posts of an archive from X; expected tweets.js or the like"
        )
    entries = (_unwrapped(entry) for name in names or ["tweets.csv"] for entry in files[name]())
    yield from posts_of_x(islice(entries, 2 * MAX_POSTS))  # enough to be refused


def _unwrapped(entry: Any) -> dict[str, Any] | Skip:
    """Take an entry out of its wrapper, `{"tweet": {...}}`; before 2019 it had none."""
    if isinstance(entry, dict) and len(entry) == 1:
        entry = next(iter(entry.values()))
    return entry if isinstance(entry, dict | Skip) else Skip("an entry that is not a post")


def _entries(name: str, open_file: Callable[[], IO[bytes]]) -> Iterator[Any]:
    """Yield the entries of one `window.YTD.… = [...]` file, and a `Skip` where it is damaged."""
    damage: list[str] = []
    with open_file() as raw:
        data = guard(raw, name, None, damage)
        if name.endswith(".csv"):
            lines = iter_lines(decode(data, newline=""), _MAX_LINE_CHARS)
            for row in csv_rows(lines, name, Said()):
                yield row.fields if isinstance(row, Row) else row
        elif data.peek(1):
            try:
                yield from iter_values(decode(data), max_chars=_MAX_ENTRY_CHARS)
            except ValueError:
                yield Skip(f"{name} is cut off or damaged from there on")
        else:
            yield Skip(f"{name} is empty")
    yield from (Skip(f"{name}: {problem}") for problem in damage)


def _small_file(files: Entries, name: str) -> Any:
    """Return the value of a file about the archive; None where it is missing or unreadable."""
    values = files[name]() if name in files else iter(())
    first = next(values, None)
    return None if isinstance(first, Skip) else first


def _owner(files: Entries) -> tuple[str | None, str | None]:
    """Return username and display name, each None where no file says it. Takes nothing else."""
    for name, wrappers, keys in (
        ("account.js", ["account"], ("username", "accountDisplayName")),
        ("manifest.js", ["userInfo"], ("userName", "displayName")),
        ("js/user_details.js", [], ("screen_name", "full_name")),
    ):
        value = _small_file(files, name)
        username, display_name = (dig_text(value, *wrappers, key) for key in keys)
        if username is not None and _HANDLE.fullmatch(username):
            return username, display_name
    return None, None


def _missing_parts(files: Entries) -> list[str]:
    """Say which files of posts the manifest lists but the archive lacks."""
    listed = dig_list(_small_file(files, "manifest.js"), "dataTypes", "tweets", "files")
    paths = [str(one.get("fileName")) for one in listed[:_MAX_LISTED] if isinstance(one, dict)]
    names = [path.rsplit("/", 1)[-1] for path in paths]
    return [
        f"manifest.js lists {show(name)}, which is missing" for name in names if name not in files
    ]


@dataclass(frozen=True)
class _Note:
    """The whole text of a long post, which says itself not of which."""

    id: int
    created_at: str | None
    text: str


def _notes(files: Entries) -> Iterator[_Note]:
    for name in sorted(name for name in files if re.fullmatch(_NOTES, name)):
        for entry in files[name]():
            note = dig(entry, "noteTweet")
            text, number = dig_text(note, "core", "text"), parse_id(dig(note, "noteTweetId"))
            if text is not None and number and _SHORT_NUMBER.fullmatch(number):
                yield _Note(int(number), parse_date(dig(note, "createdAt")), text[:MAX_TEXT_CHARS])


def _join_notes(found: list[RawPost | Skip], files: Entries) -> list[str]:
    """Put the whole texts into the posts of `found`; return a sentence on those without a post."""
    posts = {
        index: post
        for index, post in enumerate(found)
        if isinstance(post, RawPost) and post.id and _SHORT_NUMBER.fullmatch(post.id)
    }
    ids = sorted((int(post.id or 0), index) for index, post in posts.items())
    by_second: dict[str | None, list[int]] = {}
    for _, index in ids:
        by_second.setdefault(posts[index].created_at, []).append(index)
    joined: set[int] = set()
    notes = list(islice(_notes(files), MAX_POSTS))
    for note in notes:
        first = bisect.bisect_left(ids, (note.id, 0))
        # An id of X holds the milliseconds of its making above 22 bits.
        last = bisect.bisect_left(ids, (note.id + (_NOTE_WINDOW_MS << 22), 0))
        near = [index for _, index in ids[first : min(last, first + _MAX_CANDIDATES)]]
        near += by_second.get(note.created_at, [])[:_MAX_CANDIDATES] if note.created_at else []
        for index in near:
            post = posts[index]
            if index not in joined and _begins(post.text, note.text):
                found[index] = replace(post, text=_whole_text(post.text, note.text))
                joined.add(index)
                break
    if len(joined) == len(notes):
        return []
    unmatched = len(notes) - len(joined)
    return [f"{unmatched} of {len(notes)} long posts in note-tweet.js belong to no post; left out"]


def _begins(cut: str, note_text: str) -> bool:
    """Whether a cut text is the beginning of a long one, links and mentions aside."""
    visible = html.unescape(_LAST_LINKS.sub("", _MENTIONS.sub("", cut[:1000])))
    beginning = visible.rstrip("… ")[:_COMPARED_CHARS]
    return bool(beginning) and _MENTIONS.sub("", note_text[:1000]).startswith(beginning)


def _whole_text(cut: str, note_text: str) -> str:
    """The whole text as the post would have it: with its leading mentions, escaped."""
    mentions = _MENTIONS.match(cut[:1000])
    head = mentions.group() if mentions and not note_text.startswith("@") else ""
    return head + html.escape(note_text, quote=False)
