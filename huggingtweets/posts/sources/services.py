"""The sources that are asked over the network, behind one function."""

from huggingtweets.config.schema import SourceConfig, SourceKind
from huggingtweets.posts.http import Patience, check_base_url
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.bluesky import read_bluesky
from huggingtweets.posts.sources.mastodon import read_mastodon
from huggingtweets.posts.sources.x_api import check_x_api, read_x_api


def check_service(config: SourceConfig) -> None:
    """Check address, terms and token before anything is asked.

    Raises:
        ConfigError: one is missing.
    """
    if config.api_url is not None:
        check_base_url(config.api_url)
    if config.kind is SourceKind.x_api:
        check_x_api(config)


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
    match config.kind:
        case SourceKind.x_api:
            return read_x_api(handle, config, known=known, patience=patience)
        case SourceKind.bluesky:
            return read_bluesky(handle, config, known=known, patience=patience)
        case _:
            return read_mastodon(handle, config, known=known, patience=patience)
