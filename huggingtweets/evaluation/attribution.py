"""Whose voice it is: samples of many models, attributed by a classifier of human posts.

Multinomial naive Bayes over hashed runs of 1 to 4 characters, trained on the training posts of
every person, all held equally likely; the held-out posts show how well it tells people apart.
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
LogProbs = npt.NDArray[np.float32]


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
    names = sorted(voices)
    if len(names) > MAX_USERS:
        names = sorted(random.Random(f"attribution/{seed}").sample(names, MAX_USERS))
    chosen = [voices[name] for name in names]
    log_probs = _learn([voice.train for voice in chosen])
    samples_frac, of_samples = _attribute([voice.samples for voice in chosen], log_probs)
    heldout_frac, of_heldout = _attribute([voice.heldout for voice in chosen], log_probs)
    per_voice = zip(of_samples, of_heldout, strict=True)
    return Attribution(
        samples_frac, heldout_frac, 1 / len(names), dict(zip(names, per_voice, strict=True))
    )


def _learn(posts: Sequence[Sequence[str]]) -> LogProbs:
    """Return the log-probability of each bucket in each voice's posts, (buckets, voices)."""
    counts = np.full((len(posts), 1 << BUCKET_BITS), SMOOTHING, np.float32)
    for row, texts in zip(counts, posts, strict=True):
        for text in texts:  # post by post: all at once would take 64 bytes per character
            np.add.at(row, _buckets(text), 1)
    log_probs: LogProbs = np.log(counts / counts.sum(axis=1, keepdims=True))
    return log_probs.T.copy()  # the voices of a bucket side by side, as they are read


def _attribute(
    texts: Sequence[Sequence[str]], log_probs: LogProbs
) -> tuple[float | None, list[float | None]]:
    """Return the share of all voices' texts that are likeliest in their own, and that of each."""
    right = [
        sum(log_probs[_buckets(text)].sum(axis=0).argmax() == voice for text in own)
        for voice, own in enumerate(texts)
    ]
    sizes = list(map(len, texts))
    return _share(sum(right), sum(sizes)), list(map(_share, right, sizes))


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def read_voices(output_dir: Path) -> dict[str, Voice]:
    """Read the posts and samples of every finished job of an output folder.

    Jobs with somebody who opted out are left out, and with a warning those that are damaged.

    Raises:
        ConfigError: a list of people who opted out was named and cannot be read.
        DataError: there is no such folder.
    """
    if not output_dir.is_dir():
        raise DataError(
            f"attribution: got {output_dir}, which is not a folder; expected the output_dir of a "
            "run; check the path"
        )
    voices = {}
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
    # Blanks around it: runs at the ends of a post are runs at the ends of words.
    data = to_encodable(f" {text} ").encode("utf-32-le")
    codes = np.frombuffer(data, dtype=np.uint32).astype(np.uint64)
    found = []
    keys = np.zeros(len(codes) + 1, dtype=np.uint64)
    for n in range(1, MAX_CHARS + 1):
        # Polynomial hashing modulo 2**64 by FNV's prime, then the well-mixed high bits of a product
        # with 2**64 over the golden ratio (Fibonacci hashing).
        keys = keys[: len(codes) - n + 1] * np.uint64(0x100000001B3) + codes[n - 1 :] + np.uint64(n)
        found.append((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - BUCKET_BITS))
    return np.concatenate(found).astype(np.int64)
