import pytest

from huggingtweets.evaluation.memorisation import measure_memorisation

TRAIN = [
    "We must protect the right to vote in every single state of this country",
    "Great day at the county fair with so many friends from back home",
    "Happy birthday to my wonderful wife, you make every day better",
]
HELDOUT = ["Great day at the county courthouse with our brave officers", "Nothing like coffee"]


def test_copies_score_one() -> None:
    figures, runs = measure_memorisation([post.upper() + "!!" for post in TRAIN], TRAIN, HELDOUT)
    assert figures.samples.equal_frac == 1
    assert figures.samples.ngram_fracs == (1, 1, 1, 1, 1)
    assert figures.samples.longest_run == 14
    assert [run.longest for run in runs] == [14, 13, 11]


def test_what_held_out_posts_share_is_subtracted() -> None:
    figures, _ = measure_memorisation(HELDOUT, TRAIN, HELDOUT)
    assert figures.samples.mean_ngram_frac > 0
    assert figures.excess_ngram_frac == 0
    assert figures.heldout is not None
    assert figures.heldout.longest_run == 5


def test_ngram_share_is_over_all_places() -> None:
    figures, _ = measure_memorisation(["to vote in every other land we know of"], TRAIN, [])
    # 9 words: 6 runs of four, of which one is known, and no longer one
    assert figures.samples.ngram_fracs == (pytest.approx(1 / 6), 0, 0, 0, 0)
    assert figures.heldout is None


def test_new_text_scores_zero() -> None:
    figures, _ = measure_memorisation(["purple monkeys dishwash loudly on Mars"], TRAIN, HELDOUT)
    assert figures.samples.equal_frac == 0
    assert figures.samples.mean_ngram_frac == 0


def test_no_samples_measure_nothing() -> None:
    figures, runs = measure_memorisation([], TRAIN, HELDOUT)
    assert (figures.samples.equal_frac, figures.samples.longest_run, runs) == (0, 0, [])
