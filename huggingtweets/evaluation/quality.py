"""One model on a machine that has it: its posts scored, and all figures about it."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from huggingtweets.data.tokens import Codec
from huggingtweets.evaluation.extraction import choose_posts
from huggingtweets.evaluation.figures import (
    ModelQuality,
    Quality,
    Spans,
    evaluate_text,
    model_quality,
)
from huggingtweets.evaluation.score import score_posts
from huggingtweets.training.records import PostScore


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

    return model_quality(score(heldout), score(choose_posts(train, seed=seed)), seed=seed)


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
