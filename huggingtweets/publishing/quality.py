"""Measured quality as the tables, card figures and marked samples that people see."""

from collections.abc import Mapping

from huggingtweets.evaluation.figures import Quality, Spans, TextQuality
from huggingtweets.evaluation.memorisation import COPIED_WORDS, NGRAMS, Copying
from huggingtweets.publishing.facts import Metric, Sample, Table


def build_sample(prompt: str, text: str, copied: Spans) -> Sample:
    """Return a sample whose copied spans, given in the whole post, count from its continuation."""
    # `continuation` may begin with a space that the text has not.
    offset = len(prompt) if text.startswith(prompt) else 0
    shift = len(Sample(prompt, text).continuation) - (len(text) - offset)
    spans = [(max(0, start - offset) + shift, end - offset + shift) for start, end in copied]
    return Sample(prompt, text, tuple(span for span in spans if span[0] < span[1]))


def quality_metrics(quality: Quality) -> tuple[Metric, ...]:
    """Return the figures for the card's `model-index`."""
    metrics = []
    if quality.text:
        copying = quality.text.memorisation.samples
        metrics += [
            Metric("copied", "Samples equal to a training post (share)", copying.equal_frac),
            Metric(
                "copied_ngrams",
                "Runs of 4 to 8 words of samples seen in training, above held-out posts (share)",
                quality.text.memorisation.excess_ngram_frac,
            ),
            Metric(
                "distinct_2", "Distinct-2 of samples", quality.text.diversity.samples.distinct[1]
            ),
        ]
    if extraction := quality.model.extraction:
        name = "Training posts completed word for word from their first 8 tokens (share)"
        metrics.append(Metric("extracted", name, extraction.verbatim_frac))
    return tuple(metrics)


def quality_tables(quality: Quality, refused: Mapping[str, int]) -> tuple[Table, ...]:
    """Return the tables for the report."""
    tables = []
    if extraction := _extraction(quality):
        tables.append(extraction)
    if quality.text:
        tables += [
            _memorisation(quality.text, refused),
            _diversity(quality.text),
            _style(quality.text),
        ]
    return tuple(tables)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _memorisation(text: TextQuality, refused: Mapping[str, int]) -> Table:
    columns = [("samples", text.memorisation.samples)]
    if text.memorisation.heldout:
        columns.append(("held-out posts", text.memorisation.heldout))

    def figures(copying: Copying) -> list[str]:
        return [
            f"{copying.num_posts:,}",
            _percent(copying.equal_frac),
            _percent(copying.copied_frac),
            f"{copying.longest_run}",
            f"{copying.mean_run:.1f}",
            *map(_percent, copying.ngram_fracs),
        ]

    names = [
        "posts",
        "equal to a training post",
        f"{COPIED_WORDS} words in a row, or more, from a training post",
        "longest copied run, words",
        "longest copied run of a post, mean",
        *(f"runs of {n} words seen in training" for n in NGRAMS),
    ]
    counted = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in refused.items())
    note = f"In the samples below, copied runs of {COPIED_WORDS} words or more are marked."
    if counted:
        note += f" Drawn again, or cut where too long: {counted}."
    return Table(
        "Copying from the training posts",
        ("", *(name for name, _ in columns)),
        tuple(zip(names, *(figures(copying) for _, copying in columns), strict=True)),
        note,
    )


def _extraction(quality: Quality) -> Table | None:
    models = [("model", quality.model)] + ([("base", quality.base)] if quality.base else [])
    known = [(name, model.extraction) for name, model in models if model.extraction]
    if not known:
        return None
    bits = [model.train_bits_per_byte or 0.0 for _, model in models if model.extraction]
    return Table(
        "Training posts extracted by their first 8 tokens",
        ("", *(name for name, _ in known)),
        (
            ("posts tried", *(f"{one.num_posts}" for _, one in known)),
            ("rest out word for word", *(_percent(one.verbatim_frac) for _, one in known)),
            ("rest out before the first mistake", *(_percent(one.prefix_frac) for _, one in known)),
            ("bits per byte of these posts", *(f"{one:.3f}" for one in bits)),
        ),
    )


def _diversity(text: TextQuality) -> Table:
    both = (text.diversity.samples, text.diversity.humans)
    by_chance = text.diversity.human_length_distance
    rows = [(f"distinct-{n + 1}", *(_percent(one.distinct[n]) for one in both)) for n in range(3)]
    rows += [
        ("self-BLEU", *(f"{one.self_bleu:.3f}" for one in both)),
        ("repeats", *(_percent(one.duplicate_frac) for one in both)),
        (
            "distance of lengths, characters",
            f"{text.diversity.length_distance:.1f}",
            "–" if by_chance is None else f"{by_chance:.1f}",
        ),
    ]
    return Table(
        "Diversity",
        ("", "samples", "human posts"),
        tuple(rows),
        f"As many human posts as samples: {both[1].num_posts:,}.",
    )


def _style(text: TextQuality) -> Table:
    both = (text.samples_style, text.humans_style)
    keys = ("hashtags", "mentions", "emoji", "links")
    rows = [(f"posts with {key}", *(_percent(getattr(one, key)) for one in both)) for key in keys]
    rows.append(("capital letters", *(_percent(one.capitals) for one in both)))
    return Table("Habits", ("", "samples", "human posts"), tuple(rows))
