"""Whose voice it is: samples of many models, attributed by a classifier of human posts.

Multinomial naive Bayes over hashed runs of 1 to 4 characters, trained on the training posts of
every person; the held-out posts show how well it tells people apart at all.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from huggingtweets.data.tokens import to_encodable
from huggingtweets.errors import DataError, OptedOutError
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.standing import finished
from huggingtweets.storage.files import read_jsonl

logger = logging.getLogger(__name__)

MAX_CHARS = 4
BUCKET_BITS = 16
SMOOTHING = 0.03
MAX_USERS = 500
"""More are drawn from: a person is distinguished from some hundred others."""

Buckets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Voice:
    """The posts of one person, or of a cyborg, and what its model wrote."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Attribution:
    """Shares of posts attributed to the voice they belong to; `chance` is one in all voices.

    None where there are no posts to attribute.
    """

    samples_frac: float | None
    heldout_frac: float | None
    chance: float
    per_voice: Mapping[str, tuple[float | None, float | None]]
    """Slug to the shares of its samples and of its held-out posts."""


class VoiceClassifier:
    """Tells by character runs which of several voices a text is likest to."""

    def __init__(self, posts: Mapping[str, Sequence[str]]) -> None:
        """Learn from each voice's posts; all voices are held equally likely."""
        self.names = tuple(posts)
        counts = np.stack(
            [
                sum(
                    (np.bincount(_buckets(text), minlength=1 << BUCKET_BITS) for text in texts),
                    np.zeros(1 << BUCKET_BITS, np.int64),
                )
                for texts in posts.values()
            ]
        ).astype(np.float32)
        counts += SMOOTHING
        self._log_probs = np.log(counts / counts.sum(axis=1, keepdims=True)).T.copy()

    def attribute(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest voice of each text."""
        best = [int(self._log_probs[_buckets(text)].sum(axis=0).argmax()) for text in texts]
        return [self.names[index] for index in best]


def measure_attribution(voices: Mapping[str, Voice], *, seed: int) -> Attribution:
    """Train the classifier on all voices' training posts and attribute the rest.

    Raises:
        DataError: there are fewer than two voices.
    """
    if len(voices) < 2:
        raise DataError(
            f"attribution: got {len(voices)} finished job(s); expected at least 2 to tell apart; "
            "name a folder with more jobs"
        )
    chosen = sorted(voices)
    if len(chosen) > MAX_USERS:
        chosen = sorted(random.Random(f"attribution/{seed}").sample(chosen, MAX_USERS))
    classifier = VoiceClassifier({name: voices[name].train for name in chosen})
    right: dict[str, tuple[int, int]] = {}
    for name in chosen:
        voice = voices[name]
        right[name] = (
            classifier.attribute(voice.samples).count(name),
            classifier.attribute(voice.heldout).count(name),
        )
    num_samples = sum(len(voices[name].samples) for name in chosen)
    num_heldout = sum(len(voices[name].heldout) for name in chosen)
    return Attribution(
        samples_frac=_share(sum(samples for samples, _ in right.values()), num_samples),
        heldout_frac=_share(sum(heldout for _, heldout in right.values()), num_heldout),
        chance=1 / len(chosen),
        per_voice={
            name: (
                _share(samples, len(voices[name].samples)),
                _share(heldout, len(voices[name].heldout)),
            )
            for name, (samples, heldout) in right.items()
        },
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def read_voices(output_dir: Path) -> dict[str, Voice]:
    """Read the posts and samples of every finished job of an output folder.

    Jobs with somebody who opted out are left out, and with a warning those that are damaged.

    Raises:
        ConfigError: a list of people who opted out was named and cannot be read.
        DataError: there is no such folder.
    """
    voices = {}
    if not output_dir.is_dir():
        raise DataError(
            f"attribution: got {output_dir}, which is not a folder; expected the output_dir of a "
            "run; check the path"
        )
    for paths, result in finished(output_dir):
        try:
            check_opted_out(result.get("handles", ()))
            rows = read_jsonl(paths.dataset)
            train, heldout = (
                tuple(row["text"] for row in rows if row["side"] == side)
                for side in ("train", "heldout")
            )
            samples = tuple(
                row["prediction"].removeprefix(row["input"]).strip()
                for row in read_jsonl(paths.predictions)
            )
        except (OSError, ValueError, TypeError, LookupError, AttributeError, OptedOutError) as err:
            logger.warning("%s is left out: %s", paths.root, err)
            continue
        voices[str(result.get("slug", paths.root.name))] = Voice(train, heldout, samples)
    return voices


def _buckets(text: str) -> Buckets:
    """Return the hashed runs of 1 to `MAX_CHARS` characters of a text, one bucket each."""
    data = to_encodable(f" {text} ").encode("utf-32-le")
    codes = np.frombuffer(data, dtype=np.uint32).astype(np.uint64)
    found = []
    keys = np.zeros(len(codes) + 1, dtype=np.uint64)
    for n in range(1, MAX_CHARS + 1):
        # Polynomial hashing modulo 2**64, then the well-mixed high bits.
        keys = keys[: len(codes) - n + 1] * np.uint64(0x100000001B3) + codes[n - 1 :] + np.uint64(n)
        found.append((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - BUCKET_BITS))
    return np.concatenate(found).astype(np.int64)
