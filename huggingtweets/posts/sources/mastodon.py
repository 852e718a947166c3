"""Posts of a person on a Mastodon server, whose rules on AI are shown and kept to."""

import logging
import os
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from huggingtweets.config.posts_schema import SourceConfig, SourceKind, Terms
from huggingtweets.errors import ConfigError, SourceError
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.reading.gather import is_repost, posts_of_account
from huggingtweets.posts.reading.json_values import dig, dig_text
from huggingtweets.posts.reading.rich_text import html_to_text
from huggingtweets.posts.reading.timeline import make_timeline, parse_id
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.http import Answer, Patience, Service
from huggingtweets.posts.sources.paging import Page, Partial, collect_pages

logger = logging.getLogger(__name__)

TOKEN_KEY = "MASTODON_TOKEN"
PAGE_POSTS = 40
_OPEN = ("public", "unlisted")
_NEXT = re.compile(r"<([^<>]{1,2000})>\s{0,9};\s{0,9}rel=\"?next\"?")
_ID = re.compile(r"[0-9A-Za-z_-]{1,40}")
_ABOUT_AI = re.compile(
    r"\b(?:AI|A\.I\.|LLMs?|GPT|scrap(?:e|es|ing|ers?)|crawl\w*|train(?:ing)?|machine[- ]learning|"
    r"artificial intelligence|(?:language|generative) models?|data[- ]?mining)\b",
    re.IGNORECASE,
)
_MAX_SHOWN_RULES = 30


def read_mastodon(
    handle: str, config: SourceConfig, *, known: frozenset[str], patience: Patience | None
) -> Timeline:
    """Fetch a person's own open posts, newest first, as text; boosts are dropped.

    Args:
        handle: canonical; `alice.mastodon.social` is `@alice@mastodon.social`.
        config: `api_url` (the server to ask; null: the person's own), `terms`, `max_posts`.
        known: ids of posts that are there already; only newer ones are asked for.
        patience: with the service.

    Raises:
        ConfigError: the server is not known, or its rules are about such use and not accepted.
        SourceError: there is no such person.
        UnavailableError: the server does not answer.
    """
    url, account_name = _whereabouts(handle, config)
    token = os.environ.get(TOKEN_KEY, "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    service = Service(url, headers=headers, patience=patience)
    _check_rules(service, config)
    account = _account(service, account_name)
    # Ids count up: the largest known is that of the newest post.
    since = max((int(one) for one in known if one.isdecimal()), default=0)

    def get_page(cursor: str | None) -> Page:
        params: dict[str, str | int] = {"limit": PAGE_POSTS, "exclude_reblogs": 1}
        params |= {"since_id": since} if since else {}
        params |= {"max_id": cursor} if cursor else {}
        answer = service.get(
            f"/api/v1/accounts/{account['id']}/statuses",
            params,
            is_whole=lambda value: isinstance(value, list),
        )
        if not answer.is_ok:
            raise SourceError(
                f"{service.host}: got {answer.complaint} for {account_name}; expected posts open "
                f"to everyone; if the server wants a login, set {TOKEN_KEY} to your own token"
            )
        own = (status for status in answer.value if _is_open(status, str(account["id"])))
        found = (post for post in posts_of_account(own) if not is_repost(post))
        return Page(tuple(found), _next_id(answer))

    request = f"{service.host} {account['id']} {config.max_posts} {since}"
    partial = Partial(SourceKind.mastodon, handle, request)
    fetched = collect_pages(get_page, partial, max_posts=config.max_posts, known=known)
    total, notes = account.get("statuses_count"), []
    if isinstance(total, int) and not known and fetched.num_posts < min(total, config.max_posts):
        notes.append(
            f"{service.host} counts {total} posts of {account_name}, boosts and closed ones "
            f"among them; {fetched.num_posts} came"
        )
    timeline = make_timeline(
        service.host,
        handle,
        fetched.found,
        display_name=dig_text(account, "display_name") or None,
        notes=(*notes, *fetched.notes),
        picture_url=account.get("avatar_static") or account.get("avatar"),
    )
    partial.discard()
    return timeline


def _whereabouts(handle: str, config: SourceConfig) -> tuple[str, str]:
    """Return the server to ask and what to call the person there."""
    name, _, home = handle.partition(".")
    if config.api_url is None:
        if not home:
            raise ConfigError(
                f"user: got {handle} with source=mastodon; expected the person's server too, as in "
                "user=alice@mastodon.social; or set source.api_url=https://SERVER"
            )
        return f"https://{home}", name
    is_home = not home or urlsplit(config.api_url).hostname == home
    return config.api_url, name if is_home else f"{name}@{home}"


def _account(service: Service, name: str) -> dict[str, Any]:
    answer = service.get(
        "/api/v1/accounts/lookup",
        {"acct": name},
        is_whole=lambda value: bool(_ID.fullmatch(parse_id(dig(value, "id")) or "")),
    )
    if not answer.is_ok:
        raise SourceError(
            f"user: {service.host} says {answer.complaint} for {name}; expected a person it knows; "
            f"check the spelling; if the server wants a login, set {TOKEN_KEY} to your own token"
        )
    account: dict[str, Any] = answer.value
    return account


def _next_id(answer: Answer) -> str | None:
    """Return `max_id` of the link to the next page; only this, so the link leads nowhere else."""
    match = _NEXT.search(answer.headers.get("link", "")[:8000])
    try:
        ids = parse_qs(urlsplit(match[1]).query).get("max_id", []) if match else []
    except ValueError:  # no address at all
        return None
    return ids[0] if ids and _ID.fullmatch(ids[0]) else None


def _is_open(status: Any, account_id: str) -> bool:
    """Whether a status is the person's and open to everyone: with one's own token others come."""
    if not isinstance(status, dict):
        return True  # told as what it is
    account = status.get("account")
    author = account.get("id") if isinstance(account, dict) else account_id
    return str(author) == account_id and status.get("visibility", "public") in _OPEN


# --- Rules


def _check_rules(service: Service, config: SourceConfig) -> None:
    """Show the server's rules; those about AI or scraping need `source.terms=accepted`.

    Raises:
        ConfigError: there are such, and they are not accepted.
    """
    rules = _rules(service)
    for number, rule in enumerate(rules[:_MAX_SHOWN_RULES], start=1):
        logger.info("%s rule %d: %s", service.host, number, show(rule, 300))
    about = next((match for rule in rules if (match := _ABOUT_AI.search(rule))), None)
    if about is None or config.terms is Terms.accepted:
        return
    start = max(0, about.start() - 100)
    raise ConfigError(
        f"source.terms: got unread; expected accepted, because the rules of {service.host} speak "
        f"of such use: {show(about.string[start : start + 240], 240)}; read them at "
        f"https://{service.host}/about, then set source.terms=accepted if they allow it"
    )


def _rules(service: Service) -> list[str]:
    """Return rules and terms of service as text; empty where a server shows none."""
    texts = []
    answer = service.get("/api/v1/instance/rules")
    rules = answer.value
    if answer.status not in (404, 410) and not (answer.is_ok and isinstance(rules, list)):
        texts.append(f"AI or not: the rules could not be read ({answer.complaint})")
    for rule in rules if isinstance(rules, list) else []:
        parts = [dig_text(rule, "text"), dig_text(rule, "hint")]
        texts.append(" ".join(filter(None, parts)))
    terms = dig_text(service.get("/api/v1/instance/terms_of_service").value, "content")
    if terms is not None:
        texts.append(html_to_text(terms))
    return texts
