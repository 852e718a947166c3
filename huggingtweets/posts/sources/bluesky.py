"""Posts of a person on Bluesky, from the public author feed. People who refuse are left out."""

import re
from typing import Any
from urllib.parse import quote

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.reading.gather import is_repost, posts_of_account
from huggingtweets.posts.reading.json_values import dig, dig_list, dig_text
from huggingtweets.posts.reading.timeline import make_timeline
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.http import Answer, Patience, Service, UnavailableError
from huggingtweets.posts.sources.paging import Page, Partial, collect_pages

API_URL = "https://public.api.bsky.app"
DIRECTORY_URL = "https://plc.directory"
"""Says on which host a person's own records lie."""
PAGE_POSTS = 100
_PREFERENCE = "community.lexicon.preference.ai"
_REFUSALS = {"training": "no training of models", "syntheticContent": "no synthetic content"}
"""Uses in the record above that making a model of a person comes down to."""
_HIDDEN_LABEL = "!no-unauthenticated"
_NO_RECORD = (400, 404)
"""Bluesky's own servers answer 400 (`RecordNotFound`) where there is no record."""
_HOST_URL = re.compile(r"https://(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}/?")
_DID = re.compile(r"did:(?:plc:[a-z2-7]{24}|web:[A-Za-z0-9.-]{1,200})")


def read_bluesky(
    handle: str, config: SourceConfig, *, known: frozenset[str], patience: Patience | None
) -> Timeline:
    """Fetch a person's own posts and replies, newest first; reposts are dropped by author.

    Args:
        handle: canonical; without a dot it is one of `.bsky.social`.
        config: `api_url`, `max_posts`.
        known: ids of posts that are there already; older ones are not asked for.
        patience: with the service.

    Raises:
        SourceError: there is no such person, or the person does not want this.
        UnavailableError: the service does not answer.
    """
    service = Service(config.api_url or API_URL, patience=patience)
    actor = handle if "." in handle else f"{handle}.bsky.social"
    profile = _profile(service, actor)
    did = profile["did"]
    _check_label(actor, profile)
    _check_preference(actor, did, config, patience)
    notes: list[str] = []

    def get_page(cursor: str | None) -> Page:
        params: dict[str, str | int] = {
            "actor": did,
            "limit": PAGE_POSTS,
            "filter": "posts_with_replies",
        }
        answer = service.get(
            "/xrpc/app.bsky.feed.getAuthorFeed",
            params | ({"cursor": cursor} if cursor else {}),
            is_whole=lambda value: isinstance(dig(value, "feed"), list),
        )
        if not answer.is_ok:
            raise SourceError(
                f"{service.host}: got {answer.complaint} for {actor}; expected its posts"
            )
        # Reposts are by others; what says no author is told as no post.
        authors = ((item, _author_of(item)) for item in answer.value["feed"])
        own = (item if by == did else None for item, by in authors if by in (did, None))
        return Page(
            tuple(post for post in posts_of_account(own) if not is_repost(post)),
            dig_text(answer.value, "cursor") or None,
        )

    request = f"{service.host} {did} {config.max_posts} {max(known, default='')} {len(known)}"
    partial = Partial(SourceKind.bluesky, handle, request)
    fetched = collect_pages(get_page, partial, max_posts=config.max_posts, known=known)
    total = profile.get("postsCount")
    if isinstance(total, int) and not known and fetched.num_posts < min(total, config.max_posts):
        notes.append(
            f"Bluesky counts {total} posts of {actor}, reposts and deleted ones perhaps among "
            f"them; {fetched.num_posts} came"
        )
    timeline = make_timeline(
        service.host,
        handle,
        fetched.found,
        display_name=dig_text(profile, "displayName") or None,
        notes=(*notes, *fetched.notes),
        picture_url=profile.get("avatar"),
    )
    partial.discard()
    return timeline


def _profile(service: Service, actor: str) -> dict[str, Any]:
    answer = service.get(
        "/xrpc/app.bsky.actor.getProfile",
        {"actor": actor},
        is_whole=lambda value: bool(_DID.fullmatch(dig_text(value, "did") or "")),
    )
    if not answer.is_ok:
        raise SourceError(
            f"user: Bluesky says {answer.complaint} for {actor}; expected a person's handle, such "
            "as alice.bsky.social; check the spelling"
        )
    profile: dict[str, Any] = answer.value
    return profile


def _author_of(item: Any) -> object:
    """Return the account that wrote an entry of a feed; None: it does not say."""
    author = dig(item, "post", "author")
    return author.get("did", "") if isinstance(author, dict) else None


# --- What a person says about such use


def _check_label(actor: str, profile: dict[str, Any]) -> None:
    """Honour the account setting against showing posts to people who are not logged in."""
    labels = profile.get("labels")
    if labels is not None and not isinstance(labels, list):
        raise SourceError(
            f"user: the labels of {actor} came as {type(labels).__name__}; expected a list, as "
            "without it nobody can tell whether the posts are open to everyone"
        )
    values = [one.get("val") for one in labels or [] if isinstance(one, dict)]
    if _HIDDEN_LABEL in values:
        raise SourceError(
            f"user: {actor} asks that posts be shown to logged-in people only; expected posts open "
            "to everyone; if they are yours, or you have them from the person, use a file of them"
        )


def _check_preference(
    actor: str, did: str, config: SourceConfig, patience: Patience | None
) -> None:
    """Honour the person's record on the use of posts by AI; an answer that is an error is no yes.

    Raises:
        SourceError: the person says no.
        UnavailableError: what the person says cannot be had just now.
    """
    try:
        answer = _preference(did, config, patience)
    except SourceError as err:
        raise UnavailableError(
            f"user: what {actor} says about use by AI could not be looked up ({err}); expected an "
            "answer, as none is no consent; run the same command again later"
        ) from err
    if answer is None:
        return
    record = answer.value.get("value")
    preferences = record.get("preferences", {}) if isinstance(record, dict) else None
    for use, words in _REFUSALS.items():
        said = preferences.get(use, {"allow": True}) if isinstance(preferences, dict) else None
        if not isinstance(said, dict) or said.get("allow", True) is not True:
            raise SourceError(
                f"user: {actor} declares {words} with their posts, or something that nobody can "
                f"read ({_PREFERENCE}); expected no such wish; leave this person out"
            )


def _preference(did: str, config: SourceConfig, patience: Patience | None) -> Answer | None:
    """Ask the host where the person's records lie; with a service of one's own, that one."""
    host = config.api_url
    if host is None:
        url, path = DIRECTORY_URL, f"/{quote(did)}"
        if did.startswith("did:web:"):
            url, path = f"https://{did.removeprefix('did:web:')}", "/.well-known/did.json"
        if not _HOST_URL.fullmatch(url):
            raise SourceError(f"{show(did)}: is no place where a person's records lie")
        host = host_of(Service(url, patience=patience).get(path).value)
        if host is None:
            raise SourceError(f"{url}: got no host for {show(did)}")
    params = {"repo": did, "collection": _PREFERENCE, "rkey": "self"}
    answer = Service(host, patience=patience).get("/xrpc/com.atproto.repo.getRecord", params)
    if answer.is_ok:
        if not isinstance(answer.value, dict):
            raise SourceError(f"{host}: got a record of another form")
        return answer
    if answer.status in _NO_RECORD:  # most people have none
        return None
    raise SourceError(f"{host}: got {answer.complaint}")


def host_of(document: Any) -> str | None:
    """Return where a person's records lie by what the directory says; the person wrote it.

    None: it is missing, or no address by https of a host with a name, which may be asked.
    """
    for one in dig_list(document, "service"):
        url = dig_text(one, "serviceEndpoint") or ""
        if str(dig(one, "id")).endswith("#atproto_pds") and _HOST_URL.fullmatch(url):
            return url
    return None
