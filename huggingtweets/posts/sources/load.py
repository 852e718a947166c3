"""The one door to all sources: a configured source and a handle in, a timeline out."""

from collections.abc import Sequence
from pathlib import Path

from huggingtweets.config.posts_schema import ARCHIVES, SERVICES, SourceConfig, SourceKind
from huggingtweets.errors import ConfigError, SourceError
from huggingtweets.posts.optout import all_optouts, check_opted_out
from huggingtweets.posts.reading.by_handle import (
    Said,
    find_user_file,
    name_key,
    nearest,
    show,
    user_of,
)
from huggingtweets.posts.reading.gather import gather
from huggingtweets.posts.reading.who import Asked
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources import csv_file, jsonl, parquet, text
from huggingtweets.posts.sources.bluesky import read_bluesky
from huggingtweets.posts.sources.csv_file import read_csv
from huggingtweets.posts.sources.demo import demo_timeline
from huggingtweets.posts.sources.http import Patience, check_base_url
from huggingtweets.posts.sources.jsonl import read_jsonl
from huggingtweets.posts.sources.mastodon import read_mastodon
from huggingtweets.posts.sources.own_archives import (
    find_owner,
    read_bluesky_archive,
    read_mastodon_archive,
)
from huggingtweets.posts.sources.parquet import read_hub, read_parquet
from huggingtweets.posts.sources.text import read_text
from huggingtweets.posts.sources.x_api import check_x_api, read_x_api
from huggingtweets.posts.sources.x_archive import find_x_owner, read_x_archive
from huggingtweets.storage.paths import expanded

_OWN = {
    SourceKind.mastodon_archive: read_mastodon_archive,
    SourceKind.bluesky_archive: read_bluesky_archive,
}
_SERVICES = {
    SourceKind.x_api: read_x_api,
    SourceKind.bluesky: read_bluesky,
    SourceKind.mastodon: read_mastodon,
}
_READERS = {
    SourceKind.jsonl: read_jsonl,
    SourceKind.csv: read_csv,
    SourceKind.parquet: read_parquet,
    SourceKind.text: read_text,
}
SUFFIXES = {
    SourceKind.jsonl: jsonl.SUFFIXES,
    SourceKind.csv: csv_file.SUFFIXES,
    SourceKind.parquet: parquet.SUFFIXES,
    SourceKind.text: text.SUFFIXES,
    SourceKind.x_archive: (".zip", ".js"),
    SourceKind.bluesky_archive: (".car",),
}
_ALSO = {
    ".zip": (SourceKind.mastodon_archive,),
    ".js": (SourceKind.jsonl,),
    ".json": (SourceKind.mastodon_archive, SourceKind.x_archive),
}
"""What else may come in a file of this name."""


def load_timeline(source: SourceConfig, handle: str, optout_file: str | None = None) -> Timeline:
    """Read all posts of one person, as received, newest first.

    Args:
        source: where from.
        handle: whose; canonical, as `parse_handle` returns it.
        optout_file: as configured; people on the list are left out of any file.

    Raises:
        ConfigError: `source.path` is not there or of another kind.
        SourceError: the posts of this person cannot be read.
    """
    check_source(source)
    path = expanded(source.path or "")
    if source.kind is SourceKind.demo:
        return demo_timeline(handle)
    if source.kind in SERVICES:
        return fetch_timeline(source, handle)
    if source.kind is SourceKind.x_archive:
        return read_x_archive(path, handle)
    if source.kind in _OWN:
        # `alice` may be typed for alice.server, who may be on the list under the whole name.
        owner = archive_owner(source)
        check_opted_out([owner] if owner else [], optout_file)
        return _OWN[source.kind](path, handle)
    optouts = all_optouts(optout_file)
    if source.kind is SourceKind.hub:
        asked = Asked(str(source.path), handle, source, optouts=optouts)
        return gather(asked, read_hub(asked))
    read = _READERS[source.kind]
    file = find_user_file(path, handle, SUFFIXES[source.kind]) if path.is_dir() else path
    is_named_for = name_key(user_of(file, SUFFIXES[source.kind]) or "") == handle
    asked = Asked(file.name, handle, source, is_named_for, optouts)
    said = Said(source.encoding)
    return gather(asked, read(file, asked, said), said)


def fetch_timeline(
    config: SourceConfig,
    handle: str,
    *,
    known: frozenset[str] = frozenset(),
    patience: Patience | None = None,
) -> Timeline:
    """Fetch the posts of one person that are not among the known ones, newest first.

    An interrupted fetch goes on where it stopped, within a day.

    Args:
        config: with the kind of a service.
        handle: canonical.
        known: ids.
        patience: None: the usual.

    Raises:
        ConfigError: address, terms, token or money are missing.
        SourceError: there is no such person, or the service or the person refuses.
        UnavailableError: the service does not answer.
    """
    return _SERVICES[config.kind](handle, config, known=known, patience=patience)


def archive_owner(source: SourceConfig, handle: str = "") -> str | None:
    """Return whose archive `source.path` is, canonical; None: it does not say, or is none.

    Args:
        source: where it is.
        handle: of a folder of archives, the one called so is looked at.

    Raises:
        ConfigError: the path is not there.
        SourceError: the archive cannot be read.
    """
    if source.kind not in ARCHIVES:
        return None
    check_source(source)
    if source.kind is SourceKind.x_archive:
        owner = find_x_owner(expanded(source.path or ""), handle)
        return name_key(owner) if owner else None
    found = find_owner(source, expanded(source.path or ""))
    return found.handle if found else None


def check_owner(source: SourceConfig, handle: str) -> None:
    """Refuse an archive that is somebody else's, before anything heavy starts.

    Raises:
        ConfigError: the path is not there.
        SourceError: the archive cannot be read, or says that it is another person's.
    """
    owner = archive_owner(source, handle)
    # A repository of Bluesky says no handle; a server of Mastodon may be left out.
    is_open = source.kind is SourceKind.bluesky_archive and not handle.startswith("did.")
    is_short = source.kind is SourceKind.mastodon_archive and "." not in handle
    same = owner.partition(".")[0] if owner and is_short else owner
    if owner is not None and not is_open and same != handle:
        raise SourceError(
            f"source.path: {source.path} is the archive of {owner}, not of {handle}; use "
            f"user={owner}, or leave user= out"
        )


def check_source(source: SourceConfig) -> None:
    """Check cheaply, before anything heavy starts, that the posts are where they are said to be.

    Raises:
        ConfigError: the path is not there, neither file nor folder, or plainly of another kind.
    """
    if source.kind is SourceKind.demo:
        return
    if source.kind in SERVICES:
        if source.api_url is not None:
            check_base_url(source.api_url)
        if source.kind is SourceKind.x_api:
            check_x_api(source)
        return
    path = expanded(source.path or "")
    if source.kind is SourceKind.hub and not _is_local(source.path or ""):
        return
    try:
        is_there, is_usable = path.exists(), path.is_file() or path.is_dir()
    except (OSError, ValueError) as err:
        raise ConfigError(f"source.path: {show(str(path))} cannot be looked at ({err})") from err
    if not is_there:
        raise ConfigError(
            f"source.path: {path} does not exist{_nearest_path(path)}; check the name"
        )
    if not is_usable:
        raise ConfigError(f"source.path: {path} is neither a file nor a folder")
    if path.is_file():
        _check_suffix(source.kind, path)


def check_demo(source: SourceConfig, handles: Sequence[str]) -> None:
    """Refuse real people where no source was named: the default invents its own.

    Raises:
        SourceError: somebody is not one of the invented people.
    """
    if source.kind is SourceKind.demo:
        for handle in handles:
            demo_timeline(handle)


def _is_local(name: str) -> bool:
    """Whether a dataset's name is meant as a path: `a/b` may be both, and the Hub is asked."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _nearest_path(path: Path) -> str:
    """Look for the first folder on the way that is there, and what in it comes nearest."""
    while not path.parent.is_dir():
        path = path.parent
    try:
        names = [child.name for child in path.parent.iterdir()]
    except OSError:
        names = []
    return f" (in {path.parent}{nearest(path.name, names)})" if names else ""


def _check_suffix(kind: SourceKind, path: Path) -> None:
    """Refuse a file whose name says that it belongs to another source."""
    for other, suffixes in SUFFIXES.items():
        if kind in _ALSO.get(path.suffix.lower(), ()):
            return
        if other not in (kind, SourceKind.text) and user_of(path, suffixes) is not None:
            wanted = f"source={other} for such a file"
            if path.suffix.lower() == ".zip":
                wanted = (
                    f"source={other} or {SourceKind.mastodon_archive} for an archive of theirs; "
                    "unpack any other and name the file in it with source.path="
                )
            raise ConfigError(f"source: got {kind} for {path.name}; expected {wanted}")
