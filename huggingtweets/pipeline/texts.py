"""The texts and the picture about a finished model: from plain values, and imports nothing heavy.

A helper process makes them while the model's weights are written.
"""

from dataclasses import dataclass
from typing import Any

from huggingtweets.data.language import detect_languages
from huggingtweets.evaluation.figures import (
    UNMEASURED,
    Quality,
    Spans,
    evaluate_text,
    model_quality,
)
from huggingtweets.pipeline.outcome import Outcome, build_facts, build_result
from huggingtweets.preview.lettering import is_drawable
from huggingtweets.preview.picture import preview_png
from huggingtweets.publishing.card import card_template, render_card
from huggingtweets.publishing.facts import ModelFacts
from huggingtweets.publishing.report import render_report, report_template


def warm_up() -> None:
    """Load what the first texts of a process need, 0.7 s of CPU time."""
    detect_languages(["a post"])
    is_drawable("a post")
    card_template()
    report_template()


@dataclass(frozen=True)
class Texts:
    """What a reader of a finished job finds beside the weights."""

    facts: ModelFacts
    result: dict[str, Any]
    """The content of result.json."""
    card: str = ""
    preview: bytes = b""
    """A PNG file."""
    report: str = ""
    """All three are empty where nothing is published."""


def build_texts(outcome: Outcome, finished_at: str) -> Texts:
    """Judge a model's samples and scores, and make all there is to say about it."""
    quality, copied = judge(outcome)
    facts = build_facts(outcome, quality, copied, finished_at=finished_at)
    result = build_result(outcome, facts, quality)
    if not outcome.is_published:
        return Texts(facts, result)
    preview = preview_png(facts)
    return Texts(facts, result, render_card(facts), preview, render_report(facts, preview))


def judge(outcome: Outcome) -> tuple[Quality, list[Spans]]:
    """Say how good a model is, and where its samples were copied, in characters of each."""
    predictions = outcome.samples.predictions
    if outcome.scores is None:
        return UNMEASURED, [()] * len(predictions)
    seed = outcome.plan.config.seed
    text, spans = evaluate_text(
        [(one.input, one.prediction) for one in predictions],
        train=[post for user in outcome.split.train for post in user],
        heldout=[post for user in outcome.split.heldout for post in user],
        seed=seed,
    )
    model, base = (model_quality(scores, seed=seed) for scores in outcome.scores)
    return Quality(model, base, text), spans
