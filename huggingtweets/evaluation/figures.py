"""All figures about one trained model, beside those of its base and of the people themselves.

From scores and texts: imports nothing heavy. `quality` makes the scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from huggingtweets.evaluation.diversity import DiversityComparison, compare_diversity
from huggingtweets.evaluation.extraction import measure_extraction
from huggingtweets.evaluation.intervals import Interval, ratio_interval
from huggingtweets.evaluation.memorisation import (
    COPIED_WORDS,
    Memorisation,
    measure_memorisation,
)
from huggingtweets.evaluation.style import Style, measure_style
from huggingtweets.training.records import Extraction, PostScore

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ModelQuality:
    """What a model's likelihoods say; None where there was no post to ask about."""

    loss: Interval | None
    """Of the held-out loss, nats a token."""
    bits_per_byte: Interval | None
    """Of the held-out bits per byte."""
    train_bits_per_byte: float | None
    """Of some training posts: far below the held-out figure where posts are memorised."""
    extraction: Extraction | None


@dataclass(frozen=True)
class TextQuality:
    """What the samples say."""

    memorisation: Memorisation
    diversity: DiversityComparison
    samples_style: Style
    humans_style: Style


@dataclass(frozen=True)
class Quality:
    """How good one model is, and how far from a copying machine."""

    model: ModelQuality
    base: ModelQuality | None
    text: TextQuality | None
    """None when nothing was sampled."""


UNMEASURED = Quality(ModelQuality(None, None, None, None), None, None)
"""Of a model nobody asks about."""


def bits_per_byte(scores: Sequence[PostScore]) -> float:
    """Return the bits per UTF-8 byte of all posts together."""
    nats = math.fsum(score.nats for score in scores)
    return nats / math.log(2) / max(1, sum(score.num_bytes for score in scores))


def model_quality(
    heldout: Sequence[PostScore], known: Sequence[PostScore], *, seed: int
) -> ModelQuality:
    """Say what a model makes of held-out posts and of training posts; either may be none."""
    nats = [one.nats for one in heldout]
    num_bits = [one.nats / math.log(2) for one in heldout]
    num_tokens, num_bytes = ([getattr(one, key) for one in heldout] for key in _UNITS)
    return ModelQuality(
        ratio_interval(nats, num_tokens, seed=seed) if heldout else None,
        ratio_interval(num_bits, num_bytes, seed=seed) if heldout else None,
        bits_per_byte(known) if known else None,
        measure_extraction(known),
    )


_UNITS = ("num_tokens", "num_bytes")


def evaluate_text(
    samples: Sequence[tuple[str, str]],
    *,
    train: Sequence[str],
    heldout: Sequence[str],
    seed: int,
) -> tuple[TextQuality | None, list[Spans]]:
    """Measure samples against the people's posts; needs no model.

    Args:
        samples: prompt and whole post of each.
        train: posts the model was trained on.
        heldout: posts it was not.
        seed: of the draw of posts to compare with.

    Returns:
        The figures, and for each sample where it was copied, in characters of the whole post.
    """
    if not samples:
        return None, []
    whole = [text for _, text in samples]
    continuations = [text.removeprefix(prompt).strip() for prompt, text in samples]
    humans = [*train, *heldout]
    memorisation, runs = measure_memorisation(whole, train, heldout)
    quality = TextQuality(
        memorisation,
        compare_diversity(whole, continuations, humans, seed=seed),
        measure_style(whole),
        measure_style(humans),
    )
    return quality, [run.spans(COPIED_WORDS) for run in runs]
