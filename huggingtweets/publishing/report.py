"""report.html: one self-contained page about one model. No script, and nothing is fetched.

Sections for further figures (`tables`, copied spans of samples) show when the facts have
them.
"""

import base64
from dataclasses import dataclass
from functools import cache
from statistics import median

from jinja2 import Template

from huggingtweets.logs import redact
from huggingtweets.publishing.card import CONSENT_SENTENCES
from huggingtweets.publishing.charts import Chart, Curves, histogram, line_chart
from huggingtweets.publishing.facts import (
    ENDINGS,
    NOISE_BITS_PER_BYTE,
    ModelFacts,
    Sample,
)
from huggingtweets.publishing.names import (
    duration,
    hex_colour,
    hue,
    joined_handles,
    joined_names,
    visible,
)
from huggingtweets.publishing.pages import page_environment

MAX_SAMPLES = 300
"""More stay in predictions.jsonl."""


@dataclass(frozen=True)
class Stage:
    """One bar of the funnel: what is left, and what went before it."""

    name: str
    count: int
    lost: str
    share: float
    """Per cent of the first stage."""


@dataclass(frozen=True)
class Part:
    """A stretch of a sample."""

    text: str
    is_copied: bool


def render_report(facts: ModelFacts, preview_png: bytes | None = None) -> str:
    """Return the page; `preview_png` is shown at its top."""
    shown = facts.samples[:MAX_SAMPLES]
    samples: dict[str, list[list[Part]]] = {}
    for sample in shown:
        samples.setdefault(sample.input, []).append(parts(sample))
    return report_template().render(
        facts=facts,
        names=joined_names(facts.people),
        handles=joined_handles(facts.people),
        preview=base64.b64encode(preview_png).decode() if preview_png else None,
        tint=hue(facts.slug),
        colour=hex_colour,
        funnel=funnel(facts),
        charts=_charts(facts),
        lengths=_lengths(facts),
        samples=samples,
        has_copied=any(one.copied for one in shown),
        num_hidden=len(facts.samples) - len(shown),
        noise_bits=NOISE_BITS_PER_BYTE,
        consent=CONSENT_SENTENCES[facts.consent],
        command=redact(facts.command),
        ending=ENDINGS[facts.train.ended_by],
        duration=duration(facts.train.seconds),
    )


@cache
def report_template() -> Template:
    """Return the page's template: to compile it takes longer than to fill it in."""
    return page_environment().get_template("report.html.jinja")


def funnel(facts: ModelFacts) -> list[Stage]:
    """Return what is left of the posts of all people after each stage.

    A training that goes on from an earlier model takes the new posts, and some of the old again.
    """
    people = facts.people
    total = sum(person.downloaded for person in people)
    losses = [
        ("without retweets", "retweets", sum(person.retweets for person in people)),
        ("long enough", "too short", sum(person.short for person in people)),
        ("without repeats", "repeats", sum(person.repeats for person in people)),
    ]
    left = total
    stages = [Stage("downloaded", total, "", 100.0)]
    for name, reason, lost in losses:
        left -= lost
        share = 100 * max(left, 0) / total if total else 0.0
        stages.append(Stage(name, left, f"{lost:,} {reason}", share))
    data = facts.data
    learnt = left - data.heldout_posts - data.train_posts
    rest = f"{data.heldout_posts:,} held out" + (f", {learnt:,} learnt before" * (learnt > 0))
    name = "for training" + (f", {-learnt:,} of them learnt before" * (learnt < 0))
    share = min(100 * data.train_posts / total, 100.0) if total else 0.0
    return [*stages, Stage(name, data.train_posts, rest, share)]


def parts(sample: Sample) -> list[Part]:
    """Cut the continuation of a sample into copied and other stretches."""
    text = sample.continuation
    pieces = []
    position = 0
    for start, end in sorted(sample.copied):
        start = max(start, position)
        if start < end:
            pieces += [Part(text[position:start], False), Part(text[start:end], True)]
            position = end
    pieces.append(Part(text[position:], False))
    return [Part(visible(piece.text), piece.is_copied) for piece in pieces if piece.text]


def _charts(facts: ModelFacts) -> list[Chart]:
    steps, evals = facts.train.history, facts.train.evals
    known = [(one.epoch, one.trained, one.heldout) for one in evals if one.trained]
    gaps = [(one.epoch, gap) for one in evals if (gap := one.gap_since(evals[0])) is not None]
    drawn = [(one.epoch, one.extracted) for one in evals if one.extracted]
    charts = [
        line_chart(
            "Loss (nats per token)",
            {"training": [(one.step, one.loss) for one in steps]},
            {"held-out posts": [(one.step, one.heldout.loss) for one in evals]},
        ),
        line_chart(
            "Bits per byte over the epochs",
            {},
            {
                "training posts": [(x, one.bits_per_byte) for x, one, _ in known],
                "held-out posts": [(x, one.bits_per_byte) for x, _, one in known],
            },
            x_label="epoch",
        ),
        line_chart(
            "Memorised: bits per byte won on training posts beyond held-out ones",
            {},
            {"gap": gaps},
            x_label="epoch",
            from_zero=True,
        ),
        line_chart(
            "Training posts extracted by their first 8 tokens (per cent)",
            {},
            {
                "word for word": [(x, 100 * one.verbatim_frac) for x, one in drawn],
                "before a mistake": [(x, 100 * one.prefix_frac) for x, one in drawn],
            },
            x_label="epoch",
            from_zero=True,
        ),
    ]
    mfu = [(one.step, 100 * one.mfu) for one in steps if one.mfu is not None]
    over_steps: Curves = {
        "Learning rate": [(one.step, one.lr) for one in steps],
        "Tokens per second": [(one.step, one.tokens_per_s) for one in steps],
        "Share of the device's peak (MFU, per cent)": mfu,
        "Gradient norm": [(one.step, one.grad_norm) for one in steps],
    }
    for title, points in over_steps.items():
        charts.append(line_chart(title, {title: points}, from_zero=True))
    return [chart for chart in charts if chart]


def _lengths(facts: ModelFacts) -> Chart | None:
    named = [("human posts", facts.human_lengths), ("samples", facts.machine_lengths)]
    return histogram(
        "Length of posts (per cent)",
        [
            (f"{name} ({len(lengths):,}, median {median(lengths):g})", lengths)
            for name, lengths in named
            if lengths
        ],
    )
