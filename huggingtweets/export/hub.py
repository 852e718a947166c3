"""Publish finished models on the Hub afterwards: many, one after another, resumable."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingtweets.config.schema import Consent
from huggingtweets.errors import ConfigError, PublishError
from huggingtweets.export.finished import Finished
from huggingtweets.publishing.hub import PublishRefusedError, publish_model
from huggingtweets.storage.files import append_row, read_jsonl, set_aside

logger = logging.getLogger(__name__)

RECORD = "published.jsonl"
"""In the output folder: what was published already, by the state of its files."""


@dataclass(frozen=True)
class Published:
    """What became of all."""

    new: tuple[tuple[str, str], ...]
    """Slugs and addresses."""
    num_before: int
    failed: tuple[tuple[str, str], ...]
    """Slugs and sentences."""


def export_hub(
    jobs: Sequence[Finished],
    record: Path,
    *,
    org: str | None,
    private: bool,
    consent: Consent,
) -> Published:
    """Publish every job that is not there yet; the same command goes on after a kill.

    One after another: the Hub limits commits, and `publish_model` waits as long as it is asked to.

    Args:
        jobs: finished.
        record: a file of lines, see RECORD.
        org: user or organisation; None: the token's owner.
        private: of the repositories.
        consent: on what ground, where a job does not say; unstated: only jobs that do.

    Raises:
        ConfigError: nobody said on what ground the posts of some job are used.
        PublishRefusedError: the Hub does not accept the token.
    """
    silent = [job.slug for job in jobs if job.result.get("consent") in (None, Consent.unstated)]
    if silent and consent is Consent.unstated:
        grounds = ", ".join(ground for ground in Consent if ground is not Consent.unstated)
        raise ConfigError(
            f"consent: got unstated for {', '.join(silent[:3])}; expected on what ground the posts "
            f"are used; add --consent with one of {grounds}"
        )
    done = _read(record)
    new, failed, num_before = [], [], 0
    for job in jobs:
        state = _state(job, f"{org} {private} {consent}")
        if done.get(job.slug) == state:
            num_before += 1
            continue
        try:
            url = publish_model(
                job.paths.model, job.slug, org=org, private=private, consent=consent
            )
        except PublishRefusedError:
            raise
        except PublishError as err:
            failed.append((job.slug, str(err)))
            continue
        new.append((job.slug, url))
        append_row(record, {"slug": job.slug, "state": state, "url": url})
    return Published(tuple(new), num_before, tuple(failed))


def _state(job: Finished, asked: str) -> str:
    """Return what changes when the model does, or what is asked: its files' names, sizes, times."""
    digest = hashlib.sha256(asked.encode())
    for path in sorted(job.paths.model.iterdir()):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(record: Path) -> dict[str, str]:
    """Return what was published; a damaged record is begun again, and all is published again."""
    if not record.is_file():
        return {}
    try:
        return {row["slug"]: row["state"] for row in read_jsonl(record)}
    except (ValueError, LookupError, TypeError) as err:
        set_aside(record, f"cannot be read ({err})")
        return {}
