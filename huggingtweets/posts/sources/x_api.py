"""Posts of a person from the X API v2, with the user's own token. Every request costs money.

Prices and terms as of November 2026; docs/sources.md says where to look them up.
"""

import logging
import os
import re
from typing import Any

from huggingtweets.config.posts_schema import SourceConfig, SourceKind, Terms
from huggingtweets.errors import ConfigError, SourceError
from huggingtweets.posts.asking import ask_yes, is_somebody_there
from huggingtweets.posts.reading.gather import posts_of_x
from huggingtweets.posts.reading.json_values import dig, dig_text
from huggingtweets.posts.reading.shapes import records_of
from huggingtweets.posts.reading.timeline import make_timeline
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.http import Answer, Patience, Service
from huggingtweets.posts.sources.paging import Page, Partial, collect_pages
from huggingtweets.posts.spending import Spending

logger = logging.getLogger(__name__)

API_URL = "https://api.x.com"
TOKEN_KEY = "X_BEARER_TOKEN"
PAGE_POSTS = 100
MAX_POSTS = 3200
"""X gives no older ones."""
USD_A_USER = 0.010
USD_A_POST = 0.005
_HANDLE = re.compile(r"[a-z0-9_]{1,15}")
_USER_ID = re.compile(r"[0-9]{1,20}")
_FIELDS = "created_at,note_tweet,referenced_tweets,edit_history_tweet_ids"


SPENDING = Spending()
"""One for the process, and where a batch shares it, for all its processes."""


def _approve(spending: Spending, handle: str, usd: float, most_usd: float | None) -> None:
    """Have an expense allowed, by the configured limit or by somebody at the terminal.

    Raises:
        ConfigError: it goes beyond the limit, or there is none and nobody to ask.
        SourceError: the answer was no.
    """
    what = (
        f"the posts of @{handle} cost up to {usd:.2f} USD at X ({USD_A_POST} USD a post, "
        f"{USD_A_USER} USD a look-up)"
    )

    def allow(before: float) -> None:
        logger.info("%s; before: %.2f USD", what, before)
        if most_usd is None and is_somebody_there():
            if not ask_yes(f"{what[0].upper()}{what[1:]}. Fetch them?"):
                raise SourceError(f"source: the posts of @{handle} were not paid for; nothing done")
        elif most_usd is None or not before + usd <= most_usd:
            got = "none" if most_usd is None else f"{most_usd:g}"
            raise ConfigError(
                f"source.max_cost_usd: got {got}; expected {before + usd:.2f} or more, as {what}; "
                "set it, or lower source.max_posts"
            )

    spending.spend(usd, allow)


def check_x_api(config: SourceConfig) -> None:
    """Check what can be checked before anything is asked or paid.

    Raises:
        ConfigError: the terms are not accepted, or there is no token.
    """
    if config.terms is not Terms.accepted:
        raise ConfigError(
            "source.terms: got unread; expected accepted, because X's developer agreement forbids "
            "using its API or content to train 'a foundation or frontier model', and whether a "
            "small model of one person is one is for you to judge; read it (docs/sources.md), then "
            "set source.terms=accepted, or use your archive: source=x_archive"
        )
    if not os.environ.get(TOKEN_KEY, "").strip():
        raise ConfigError(
            f"source: got no token for the X API; expected your own in the environment; set "
            f"{TOKEN_KEY}, or use your archive: source=x_archive"
        )


def estimate_usd(max_posts: int) -> float:
    """Return the most that the posts of one person can cost."""
    return USD_A_USER + USD_A_POST * min(max_posts, MAX_POSTS)


def read_x_api(
    handle: str,
    config: SourceConfig,
    *,
    known: frozenset[str] = frozenset(),
    patience: Patience | None = None,
    spending: Spending = SPENDING,
) -> Timeline:
    """Look a person up and fetch their newest posts; retweets are not asked for, as they cost.

    Args:
        handle: canonical.
        config: `api_url`, `terms`, `max_posts`, `max_cost_usd`.
        known: ids of posts that are there already; only newer ones are asked for.
        patience: with the service.
        spending: adds up what was allowed.

    Raises:
        ConfigError: terms, token or money are missing.
        SourceError: there is no such person, or X refuses.
        UnavailableError: X does not answer.
    """
    check_x_api(config)
    if not _HANDLE.fullmatch(handle):
        raise SourceError(f"user: {handle} is no name on X; expected 1 to 15 letters, digits and _")
    headers = {"Authorization": f"Bearer {os.environ[TOKEN_KEY].strip()}"}
    service = Service(config.api_url or API_URL, headers=headers, patience=patience)
    since = max((int(one) for one in known if _USER_ID.fullmatch(one)), default=0)
    max_posts = min(config.max_posts, MAX_POSTS)
    request = f"{service.host} {handle} {max_posts} {since}"
    partial = Partial(SourceKind.x_api, handle, request)
    paid_before = sum(len(page.found) for page in partial.pages)
    left = max(0, max_posts - paid_before)
    _approve(spending, handle, estimate_usd(left), config.max_cost_usd)

    def get_page(cursor: str | None) -> Page:
        params: dict[str, str | int] = {
            "max_results": PAGE_POSTS,
            "exclude": "retweets",
            "tweet.fields": _FIELDS,
        }
        params |= {"since_id": since} if since else {}
        params |= {"pagination_token": cursor} if cursor else {}
        answer = service.get(f"/2/users/{user['id']}/tweets", params, is_whole=_is_page)
        _check_allowed(service, answer)
        if not answer.is_ok:
            raise SourceError(
                f"{service.host}: got {answer.complaint} for @{handle}; expected their posts"
            )
        token = dig_text(answer.value, "meta", "next_token") or None
        return Page(tuple(posts_of_x(records_of(answer.value))), token)

    try:
        user = _user(service, handle)
        fetched = collect_pages(get_page, partial, max_posts=max_posts, known=known, is_paid=True)
    finally:
        paid_now = sum(len(page.found) for page in partial.pages) - paid_before
        spending.give_back(USD_A_POST * max(0, left - paid_now))
    timeline = make_timeline(
        service.host,
        handle,
        fetched.found,
        display_name=str(user.get("name") or "") or None,
        notes=(*_count_notes(user, handle, fetched.num_posts, bool(since)), *fetched.notes),
        picture_url=user.get("profile_image_url"),
    )
    partial.discard()
    return timeline


def _user(service: Service, handle: str) -> dict[str, Any]:
    answer = service.get(
        f"/2/users/by/username/{handle}",
        {"user.fields": "public_metrics,protected,profile_image_url"},
        is_whole=lambda value: isinstance(value, dict) and ("data" in value or "errors" in value),
    )
    _check_allowed(service, answer)
    user = answer.value.get("data") if answer.is_ok else None
    if not isinstance(user, dict) or not _USER_ID.fullmatch(str(user.get("id"))):
        raise SourceError(
            f"user: X knows no @{handle} ({answer.complaint}); expected a person's name there; "
            "check the spelling"
        )
    if user.get("protected", False) is not False:
        raise SourceError(
            f"user: the posts of @{handle} are protected; expected posts open to everyone; "
            "if they are yours, use source=x_archive"
        )
    return user


def _check_allowed(service: Service, answer: Answer) -> None:
    """Refuse at once what no second attempt changes."""
    if answer.status in (401, 402, 403):
        raise SourceError(
            f"{service.host}: got {answer.complaint}; expected a token that may read posts; check "
            f"{TOKEN_KEY} and the credits of your project at X"
        )


def _is_page(value: Any) -> bool:
    """Whether it is a page of posts, an empty one or a refusal among them."""
    kinds = {"data": list, "meta": dict, "errors": list}
    return any(isinstance(dig(value, key), kind) for key, kind in kinds.items())


def _count_notes(user: dict[str, Any], handle: str, received: int, is_update: bool) -> list[str]:
    """Say how many posts X counts and how many came."""
    total = dig(user, "public_metrics", "tweet_count")
    if is_update or not isinstance(total, int) or received >= total:
        return []
    return [
        f"X counts {total} posts of @{handle}, retweets among them; {received} came (retweets are "
        f"not asked for, and X gives the newest {MAX_POSTS} at most)"
    ]
