"""What people download of themselves from Mastodon and Bluesky.

Mastodon: a zip, its folder, or the `outbox.json` in it. Bluesky: the repository as a CAR file.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import SelectionError, SourceError
from huggingtweets.handles import parse_handle
from huggingtweets.posts.reading.by_handle import decode, guard, open_bytes, show
from huggingtweets.posts.reading.gather import posts_of_account
from huggingtweets.posts.reading.json_values import dig, dig_text, parse_json
from huggingtweets.posts.reading.timeline import (
    MAX_ID_CHARS,
    MAX_POSTS,
    RawPost,
    Skip,
    make_timeline,
)
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.members import Members, open_members

_WANTED = re.compile(r"(?P<base>(?:[^/]+/)*?)(?P<name>outbox|actor)\.json")
_MAX_CHARS = 1 << 29
"""Of an outbox; 1,425 posts had 2.4 million."""
_MAX_CAR_BYTES = 1 << 29
_ACTOR = re.compile(
    r"https://([a-z0-9.-]{1,200})/(?:@|users/|u/|ap/users/)?([\w.-]{1,60})/?", re.ASCII | re.I
)
_DID = re.compile(r"did:(?:plc:[a-z2-7]{24}|web:[A-Za-z0-9.-]{1,200})")
_POSTS = "app.bsky.feed.post/"
_MAX_NODES = 2_000_000
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
"""What reading a damaged repository raises."""


@dataclass(frozen=True)
class Owner:
    """Whose archive it is."""

    handle: str
    """As `user=` would have it; of a CAR file without a telling name the DID, with dots."""
    name: str | None
    """The display name, if it says one."""


def find_owner(source: SourceConfig, path: Path) -> Owner | None:
    """Return whose archive it is; None: it does not say.

    Raises:
        SourceError: it cannot be read.
    """
    if source.kind is SourceKind.mastodon_archive:
        return _mastodon_owner(*_read_mastodon(path))
    did, records = _read_car(path)
    return _bluesky_owner(path, did, records)


# --- Mastodon


def read_mastodon_archive(path: Path, handle: str) -> Timeline:
    """Read the public and unlisted posts of an archive; boosts are none of the person's.

    Args:
        path: the zip, its folder or `outbox.json`.
        handle: the owner: `alice`, or with the server, `alice.mastodon.example`.

    Raises:
        SourceError: it is somebody else's, holds no posts, is damaged beyond use or hostile.
    """
    items, actor = _read_mastodon(path)
    owner = _mastodon_owner(items, actor)
    if owner and handle not in (owner.handle, owner.handle.partition(".")[0]):
        raise SourceError(
            f"{path}: is the archive of {owner.handle}, not of {handle}; use user={owner.handle}"
        )
    found = chain.from_iterable(map(_posts_of_entry, items[: MAX_POSTS + 1]))
    return make_timeline(
        path.name,
        handle,
        found,
        display_name=owner.name if owner else None,
        how=(
            f"author: the archive of {owner.handle if owner else 'somebody unnamed'}",
            "retweets: boosts (Announce)",
            "text: content, HTML",
        ),
    )


def _posts_of_entry(entry: Any) -> Iterator[RawPost | Skip]:
    """Read one entry of an outbox, also where the text stands by its language alone."""
    inner, texts = dig(entry, "object"), dig(entry, "object", "contentMap")
    if isinstance(inner, str) and dig(entry, "type") == "Create":  # GoToSocial
        return iter([Skip("an address in the place of a post")])
    if isinstance(texts, dict) and texts and inner.get("content") is None:
        entry = {**entry, "object": {**inner, "content": next(iter(texts.values()))}}
    return posts_of_account([entry])


def _read_mastodon(path: Path) -> tuple[list[Any], Any]:
    """Return the entries of the outbox, and what actor.json says, which may be missing.

    Raises:
        SourceError: there is no outbox, or it is damaged.
    """
    try:
        actor = None
        with _open(path) as files:
            with suppress(ValueError):
                actor = _json_of(files, "actor.json")
            box = _json_of(files, "outbox.json")
        if not isinstance(items := dig(box, "orderedItems"), list):
            raise ValueError("it is missing" if box is None else "it has no orderedItems")
    except ValueError as err:
        raise SourceError(
            f"{path}: outbox.json cannot be read ({show(str(err), 80)}); expected the archive that "
            "Mastodon hands out under Preferences, Import and export; check source.path="
        ) from err
    return items, actor


def _open(path: Path) -> AbstractContextManager[Members]:
    """Give the files of an archive: of a JSON file that one alone, and who it is beside it."""
    if not path.is_file() or path.suffix != ".json":
        return open_members(path, _WANTED)
    files: Members = {"outbox.json": lambda: path.open("rb")}
    actor = path.with_name("actor.json")
    if actor.is_file() and not actor.is_symlink():
        files["actor.json"] = lambda: actor.open("rb")
    return nullcontext(files)


def _json_of(files: Members, name: str) -> Any:
    """Return the value of one file; None where it is missing.

    Raises:
        ValueError: it is damaged.
    """
    names = sorted((one for one in files if one.rpartition("/")[2] == name), key=len)
    if not names:
        return None
    with files[names[0]]() as raw:
        text = decode(guard(raw, name, None, [])).read(_MAX_CHARS)
    return parse_json(text.lstrip("\ufeff"))


def _mastodon_owner(items: list[Any], actor: Any) -> Owner | None:
    """Return who wrote the first entry of the outbox; actor.json says more of the same account."""
    named = next(filter(None, (dig_text(one, "actor") for one in items)), None)
    address = named or dig_text(actor, "id") or ""
    if address != dig_text(actor, "id"):
        actor = None
    match = _ACTOR.fullmatch(address)
    if match is None:
        return None
    name = dig_text(actor, "preferredUsername") or match[2]
    try:
        return Owner(parse_handle(f"{name}.{match[1]}"), dig_text(actor, "name"))
    except SelectionError:
        return None


# --- Bluesky


def read_bluesky_archive(path: Path, handle: str) -> Timeline:
    """Read the posts and replies in a repository; reposts and likes are other records.

    Args:
        path: the CAR file.
        handle: the owner. A repository names its account by DID alone, so a handle is believed,
            and a DID (`did.plc.abc...`) compared.

    Raises:
        SourceError: it is somebody else's, holds no posts, or is damaged.
    """
    did, records = _read_car(path)
    if handle.startswith("did.") and handle != did.replace(":", ".").lower():
        raise SourceError(f"{path}: is the repository of {did}, not of {handle}; check user=")
    owner = _bluesky_owner(path, did, records)
    found = posts_of_account(
        {"facets": None, **record, "id": key.removeprefix(_POSTS)[:MAX_ID_CHARS]}
        if isinstance(record, dict)
        else record
        for key, record in records.items()
        if key.startswith(_POSTS)
    )
    return make_timeline(
        path.name,
        handle,
        found,
        display_name=owner.name,
        how=(
            f"author: the repository of {did}",
            "retweets: none in a repository",
            "text: text, links by facets",
        ),
    )


def _bluesky_owner(path: Path, did: str, records: dict[str, Any]) -> Owner:
    """Return the handle the file is called by, as tools do, else the DID."""
    name = dig_text(records, "app.bsky.actor.profile/self", "displayName")
    stem = re.sub(r"[-._]?\d{4}-?\d{2}-?\d{2}.*\Z", "", path.name.removesuffix(".car"))
    handle = did.replace(":", ".").lower()
    if "." in stem and not stem.startswith("did."):
        with suppress(SelectionError):
            handle = parse_handle(stem)
    return Owner(handle, name or None)


def _read_car(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        status = path.stat()
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err.strerror})") from err
    return _decode_car(path, status.st_mtime_ns, status.st_size)


# Once: whose it is is asked for before the posts are. Time and size, so that a new file is read.
@lru_cache(maxsize=1)
def _decode_car(path: Path, mtime_ns: int, size: int) -> tuple[str, dict[str, Any]]:
    """Return the account's DID and its records by key, `collection/rkey`; once per file.

    Raises:
        SourceError: it is not a CAR file of a repository.
    """
    import libipld

    if path.is_dir():
        raise SourceError(f"{path}: is a folder; expected the CAR file of a Bluesky repository")
    with open_bytes(path, []) as stream:
        data = stream.read(_MAX_CAR_BYTES + 1)
    if len(data) > _MAX_CAR_BYTES:
        raise SourceError(
            f"{path}: got more than {_MAX_CAR_BYTES >> 20} MiB; expected a repository"
        )
    try:
        header, blocks = libipld.decode_car(data)
        commit = blocks[header["roots"][0]]
        did, root = commit["did"], commit["data"]
        if not _DID.fullmatch(did):
            raise ValueError("no DID")
        return did, dict(_walk(blocks, root))
    except _DAMAGE as err:
        raise SourceError(
            f"{path}: cannot be read as a repository ({show(str(err), 80)}); expected the CAR file "
            "that Bluesky hands out under Settings, Account, Export my data; fetch it again"
        ) from err


def _walk(blocks: dict[bytes, Any], root: bytes) -> Iterator[tuple[str, Any]]:
    """Walk a Merkle search tree in order: keys share a prefix with the one before in their node."""
    stack: list[tuple[bytes, str] | bytes] = [root]
    seen: set[bytes] = set()
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            if item[0] in blocks:
                yield item[1], blocks[item[0]]
            continue
        if item in seen or item not in blocks or len(seen) > _MAX_NODES:
            continue
        seen.add(item)
        node = blocks[item]
        key = b""
        inner: list[tuple[bytes, str] | bytes] = [node["l"]] if node.get("l") else []
        for entry in node["e"]:
            key = key[: entry["p"]] + bytes(entry["k"])
            inner.append((entry["v"], key.decode("utf-8", "replace")))
            if entry.get("t"):
                inner.append(entry["t"])
        stack.extend(reversed(inner))
