from dataclasses import asdict

import pytest

from huggingtweets.evaluation.style import measure_style


def test_style_counts_posts_that_have_it() -> None:
    texts = [
        "#Vote today, @joe and @jane #now",
        "see https://t.co/abc 🎉",
        "mail me@example.com about R&D #1 &#39;",
        "ALL CAPS",
    ]
    style = measure_style(texts)
    assert (style.hashtags, style.mentions, style.emoji, style.links) == (0.25, 0.25, 0.25, 0.25)


def test_capitals_are_a_share_of_letters() -> None:
    assert measure_style(["AB cd 12!"]).capitals == pytest.approx(0.5)


def test_nothing_has_no_style() -> None:
    assert set(asdict(measure_style([])).values()) == {0}
