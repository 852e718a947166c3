"""How much of what a model writes is copied from the posts it was trained on. Texts only."""

from collections.abc import Sequence
from dataclasses import dataclass

from huggingtweets.data.copying import Runs, find_runs
from huggingtweets.data.duplicates import normalise

COPIED_WORDS = 5
"""A run of this many words or more is told and marked as copied; four are often common speech."""
NGRAMS = (4, 5, 6, 7, 8)
"""Words of the runs that are counted: four in a row are often common speech, eight rarely."""


@dataclass(frozen=True)
class Copying:
    """How much of some posts stands in the training posts."""

    num_posts: int
    equal_frac: float
    """Share of posts that equal a training post except for case, accents, punctuation, links."""
    copied_frac: float
    """Share of posts that have COPIED_WORDS words in a row, or more, from a training post."""
    longest_run: int
    """Words of the longest copied run of all posts."""
    mean_run: float
    """Words of the longest copied run of a post, mean over posts."""
    ngram_fracs: tuple[float, ...]
    """Share of the runs of 4, 5, 6, 7 and 8 words that stand so in a training post."""

    @property
    def mean_ngram_frac(self) -> float:
        """Mean of `ngram_fracs`: one figure for how much is copied."""
        return sum(self.ngram_fracs) / len(self.ngram_fracs)


@dataclass(frozen=True)
class Memorisation:
    """Samples, beside posts by the same people that were never trained on."""

    samples: Copying
    heldout: Copying | None
    """None where nothing was held out."""

    @property
    def excess_ngram_frac(self) -> float:
        """Copied share of the samples above that of the held-out posts: what is not just habit."""
        return self.samples.mean_ngram_frac - (self.heldout.mean_ngram_frac if self.heldout else 0)


def measure_memorisation(
    samples: Sequence[str], train: Sequence[str], heldout: Sequence[str]
) -> tuple[Memorisation, list[Runs]]:
    """Hold samples and held-out posts against the training posts.

    Returns:
        The figures, and what each sample has in common with the training posts.
    """
    runs = find_runs(train, [*samples, *heldout])
    known = {normalise(post) for post in train}
    of_samples, of_heldout = runs[: len(samples)], runs[len(samples) :]
    memorisation = Memorisation(
        _measure(samples, of_samples, known),
        _measure(heldout, of_heldout, known) if heldout else None,
    )
    return memorisation, of_samples


def _measure(texts: Sequence[str], runs: Sequence[Runs], known: set[str]) -> Copying:
    equal = sum(normalise(text) in known for text in texts)
    return Copying(
        num_posts=len(texts),
        equal_frac=equal / max(1, len(texts)),
        copied_frac=sum(run.has_copied(COPIED_WORDS) for run in runs) / max(1, len(texts)),
        longest_run=max((run.longest for run in runs), default=0),
        mean_run=sum(run.longest for run in runs) / max(1, len(texts)),
        ngram_fracs=tuple(_seen_frac(runs, n) for n in NGRAMS),
    )


def _seen_frac(runs: Sequence[Runs], n: int) -> float:
    places = sum(max(0, len(run.words) - n + 1) for run in runs)
    return sum(run.num_seen(n) for run in runs) / max(1, places)
