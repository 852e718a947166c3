"""All figures about one trained model, beside those of its base and of the people themselves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from huggingtweets.data.tokens import Codec
from huggingtweets.evaluation.diversity import DiversityComparison, compare_diversity
from huggingtweets.evaluation.extraction import choose_posts, measure_extraction
from huggingtweets.evaluation.intervals import Interval, ratio_interval
from huggingtweets.evaluation.memorisation import (
    COPIED_WORDS,
    Memorisation,
    measure_memorisation,
)
from huggingtweets.evaluation.score import bits_per_byte, score_posts
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
    """Of some training posts: far below the held-out figure where posts are known by heart."""
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


def evaluate_model(
    model: PreTrainedModel,
    codec: Codec,
    *,
    train: Sequence[str],
    heldout: Sequence[str],
    max_positions: int,
    seed: int,
) -> ModelQuality:
    """Score the held-out posts, and try to draw training posts out of the model."""

    def score(posts: Sequence[str]) -> list[PostScore]:
        return score_posts(model, codec, posts, max_positions=max_positions)

    scores = score(heldout)
    nats = [one.nats for one in scores]
    num_bits = [one.nats / math.log(2) for one in scores]
    known = score(choose_posts(train, seed=seed))
    return ModelQuality(
        ratio_interval(nats, [one.num_tokens for one in scores], seed=seed) if scores else None,
        ratio_interval(num_bits, [one.num_bytes for one in scores], seed=seed) if scores else None,
        bits_per_byte(known) if known else None,
        measure_extraction(known),
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


def evaluate_quality(
    model: PreTrainedModel,
    base: PreTrainedModel | None,
    codec: Codec,
    samples: Sequence[tuple[str, str]],
    *,
    train: Sequence[str],
    heldout: Sequence[str],
    max_positions: int,
    seed: int,
) -> tuple[Quality, list[Spans]]:
    """Measure one trained model; a few seconds for a small one.

    Args:
        model: trained, on any device.
        base: what it was trained from; None: not compared.
        codec: of both.
        samples: prompt and whole post of each.
        train: posts the model was trained on.
        heldout: posts it was not.
        max_positions: of the models.
        seed: of all draws.

    Returns:
        The figures, and for each sample where it was copied, in characters of the whole post.
    """

    def evaluate(one: PreTrainedModel) -> ModelQuality:
        return evaluate_model(
            one,
            codec,
            train=train,
            heldout=heldout,
            max_positions=max_positions,
            seed=seed,
        )

    text, spans = evaluate_text(samples, train=train, heldout=heldout, seed=seed)
    return Quality(evaluate(model), evaluate(base) if base else None, text), spans
