"""The comparison itself: per person and in all, against the first of the settings.

How sure a difference is: posts, and people, are drawn again with replacement, in pairs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from huggingtweets.compare.settings import Figures, Setting, differences, shared_people
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.evaluation.attribution import measure_attribution, read_voices
from huggingtweets.evaluation.intervals import Interval, ratio_intervals

MAX_SCORED = 200
"""People whose posts are scored one by one: two small models take about a second each."""


@dataclass(frozen=True)
class PairedScores:
    """The same posts scored by several models."""

    nats: tuple[tuple[float, ...], ...]
    """Model -> post -> negative log-likelihood."""
    num_bytes: tuple[int, ...]
    """Of each post."""

    def difference(self, index: int, *, seed: int) -> Interval:
        """Return the interval of a model's bits per byte above those of the first.

        Both are scored on the same drawn posts, so that what makes a post hard for both cancels.
        """
        pairs = zip(self.nats[index], self.nats[0], strict=True)
        above = [(own - first) / math.log(2) for own, first in pairs]
        return ratio_intervals(above, [self.num_bytes], seed=seed)[0]


ScorePerson = Callable[[Sequence[Path], str], PairedScores | None]


@dataclass(frozen=True)
class PersonRow:
    """One person under all settings."""

    slug: str
    figures: tuple[Figures, ...]
    intervals: tuple[Interval | None, ...]
    """Of the bits per byte above those of the first setting; None: not scored post by post."""
    num_posts: int | None
    """Held-out posts behind the intervals."""


@dataclass(frozen=True)
class Total:
    """One setting over all people; means are over people. None: not measured for all."""

    name: str
    bits: float
    base_bits: float | None
    difference: float
    """Of the bits per byte from the first setting: below 0 is better."""
    interval: Interval | None
    wins: int
    """People better off than under the first setting."""
    copied: float | None
    long_copied: float | None
    attributed: float | None
    """Share of the samples attributed to their own voice."""
    distinct_2: float | None
    tokens: float | None
    seconds: float | None


@dataclass(frozen=True)
class Comparison:
    """All there is to say."""

    totals: tuple[Total, ...]
    people: tuple[PersonRow, ...]
    """First who gains or loses most by the last setting."""
    changed: Mapping[str, Sequence[Any]]
    """The settings that differ, with their values."""
    num_left_out: int
    """People whom not all settings have."""


def compare(settings: Sequence[Setting], score: ScorePerson | None) -> Comparison:
    """Hold all settings against the first, over the people that all have.

    Args:
        settings: two or more.
        score: scores a person's posts by every setting's model; None: no posts are scored.

    Raises:
        ConfigError: they have no person in common.
    """
    slugs = shared_people(settings)
    if not all(setting.has_models for setting in settings):
        score = None
    folders = [setting.folder for setting in settings]
    people = []
    for number, slug in enumerate(slugs):
        scores = None
        if score is not None and number < MAX_SCORED:
            with suppress(HuggingtweetsError):  # a model is gone: its figures are known
                scores = score(folders, slug)
        # One seed: the same trainings have the same intervals each time.
        intervals = tuple(
            scores.difference(index, seed=0) if scores and index else None
            for index in range(len(settings))
        )
        figures = tuple(setting.people[slug] for setting in settings)
        people.append(
            PersonRow(slug, figures, intervals, len(scores.num_bytes) if scores else None)
        )
    totals = tuple(_total(setting, index, people) for index, setting in enumerate(settings))
    everybody = set().union(*(setting.people for setting in settings))
    people.sort(key=lambda row: row.figures[-1].bits - row.figures[0].bits)
    return Comparison(totals, tuple(people), differences(settings), len(everybody) - len(slugs))


def _total(setting: Setting, index: int, people: Sequence[PersonRow]) -> Total:
    own = [row.figures[index] for row in people]
    above = [row.figures[index].bits - row.figures[0].bits for row in people]
    interval = mean_difference(above, seed=0) if index else None
    if index and interval is None:  # one person: the posts are all there is to draw from
        interval = people[0].intervals[index]
    return Total(
        name=setting.name,
        bits=fmean(one.bits for one in own),
        base_bits=_mean([one.base_bits for one in own]),
        difference=fmean(above),
        interval=interval,
        wins=sum(value < 0 for value in above),
        copied=_mean([one.copied for one in own]),
        long_copied=_mean([one.long_copied for one in own]),
        attributed=_attributed(setting, [row.slug for row in people]),
        distinct_2=_mean([one.distinct_2 for one in own]),
        tokens=_mean([one.tokens for one in own]),
        seconds=_mean([one.seconds for one in own]),
    )


def mean_difference(differences: Sequence[float], *, seed: int) -> Interval | None:
    """Return the interval of a mean over people, one difference each; None for fewer than two.

    People are the units that are drawn: their posts say little about other people.
    """
    if len(differences) < 2:
        return None
    return ratio_intervals(differences, [[1.0] * len(differences)], seed=seed)[0]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _attributed(setting: Setting, slugs: Sequence[str]) -> float | None:
    """Return how often samples are told to be of the voice they imitate; None: nobody can say."""
    if len(slugs) < 2 or not setting.has_models:
        return None
    try:
        voices = read_voices(setting.folder)
    except (HuggingtweetsError, OSError, ValueError, KeyError):
        return None
    chosen = {slug: voices[slug] for slug in slugs if slug in voices}
    if len(chosen) < 2 or not any(voice.samples for voice in chosen.values()):
        return None
    return measure_attribution(chosen, seed=0).samples_frac
