"""On what ground people's posts are used: stated, asked for once, or missed aloud."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from huggingtweets.config.compose import load_config
from huggingtweets.config.posts_schema import SourceKind
from huggingtweets.config.schema import Consent, TrainConfig
from huggingtweets.errors import ConfigError
from huggingtweets.handles import Job
from huggingtweets.logs import rank
from huggingtweets.posts.asking import ask, is_somebody_there
from huggingtweets.storage.paths import JobPaths

logger = logging.getLogger(__name__)

_MEANINGS = {
    "own-archive": "the posts are my own",
    "permission": "the people gave their permission",
    "public-figure-research": "research on public figures",
    "public-donation": "the people donated their posts to the public",
}


def settle_consent(config: TrainConfig, jobs: Sequence[Job]) -> TrainConfig:
    """Return the configuration with the ground stated, as far as it can be had.

    What an earlier attempt at a single job stated stays. Somebody at the terminal is asked about a
    single job; a batch is never held up. Where it stays unstated, a warning says so.
    """
    if config.consent is not Consent.unstated or config.source.kind is SourceKind.demo:
        return config
    if len(jobs) == 1:
        earlier = _stated_before(config, jobs[0])
        if earlier is Consent.unstated and is_somebody_there():
            earlier = _ask(jobs[0])
        if earlier is not Consent.unstated:
            return replace(config, consent=earlier)
    if rank() == 0:
        logger.warning(
            "consent=unstated: say on what ground these people's posts are used, with "
            "consent=%s; nothing is published on the Hub without",
            "|".join(_MEANINGS),
        )
    return config


def _stated_before(config: TrainConfig, job: Job) -> Consent:
    path = JobPaths(Path(config.output_dir) / job.slug).config
    if path.exists():
        with suppress(ConfigError):  # the job itself says what is wrong
            return load_config(path).consent
    return Consent.unstated


def _ask(job: Job) -> Consent:
    """Ask on what ground the posts are used; anything but a number or a name leaves it unstated."""
    who = " and ".join(f"@{handle}" for handle in job.handles)
    lines = [f"On what ground do you use the posts of {who}?"]
    grounds = {str(number): ground for number, ground in enumerate(_MEANINGS, start=1)}
    lines += [f"  {n}  {_MEANINGS[ground]} ({ground})" for n, ground in grounds.items()]
    answer = ask("\n".join([*lines, "Number, or nothing to leave it unstated:"]))
    ground = grounds.get(answer, answer)
    return Consent(ground) if ground in _MEANINGS else Consent.unstated
