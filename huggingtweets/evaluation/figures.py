"""All figures about one trained model, beside those of its base and of the people themselves.

From scores and texts: imports nothing heavy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from huggingtweets.evaluation.diversity import DiversityComparison, compare_diversity
from huggingtweets.evaluation.intervals import Interval, ratio_intervals
from huggingtweets.evaluation.memorisation import (
    COPIED_WORDS,
    Memorisation,
    measure_memorisation,
)
from huggingtweets.evaluation.style import Style, measure_style
from huggingtweets.training.extraction import as_extraction, count_extracted
from huggingtweets.training.records import Extraction, PostScore, Scores

Spans = tuple[tuple[int, int], ...]
_LN_2 = math.log(2)


@dataclass(frozen=True)
class ModelQuality:
    """What a model's likelihoods say; None where there was no post to ask about."""

    loss: Interval | None
    """Of the held-out loss, nats per token."""
    bits_per_byte: Interval | None
    """Of the held-out bits per byte."""
    train_bits_per_byte: float | None
    """Of the training posts that are scored beside the held-out ones: far below these where posts
    are memorised."""
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
    return nats / _LN_2 / max(1, sum(score.num_bytes for score in scores))


def model_quality(scores: Scores, *, seed: int) -> ModelQuality:
    """Say what a model makes of held-out posts and of training posts; either may be none."""
    heldout, probe = scores.heldout, scores.probe
    num, whole, shares = count_extracted([one.greedy for one in probe])
    more, more_whole, more_shares = scores.rest
    loss, num_bits = None, None
    if heldout:
        nats = [one.nats for one in heldout]
        tokens = [float(one.num_tokens) for one in heldout]
        nats_of_bits = [one.num_bytes * _LN_2 for one in heldout]
        loss, num_bits = ratio_intervals(nats, [tokens, nats_of_bits], seed=seed)
    return ModelQuality(
        loss,
        num_bits,
        bits_per_byte(probe) if probe else None,
        as_extraction((num + more, whole + more_whole, shares + more_shares)),
    )


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
