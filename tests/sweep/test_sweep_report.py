"""What the report of a sweep shows, for sweeps of every kind and hostile names."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from huggingtweets.config.compose import register
from huggingtweets.sweep.charts import front, history, shown, slices
from huggingtweets.sweep.plan import Sweep, plan_sweep
from huggingtweets.sweep.report import render_sweep_report, user_rows, wall_seconds
from huggingtweets.sweep.spec import read_spec
from huggingtweets.sweep.summary import SweepSummary, TrialRow, UserFigures, _best

register()

FILE = """
space:
  recipe.lr: {low: 1e-5, high: 1e-3, log: true}
  recipe.schedule: [constant, cosine]
  recipe.dropout: [null, 0.1]
trials: 12
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    path = tmp_path / "x<b>&.yaml"
    path.write_text(FILE)
    return plan_sweep(read_spec(path, ["user=ann,bob"]), path)


def user(heldout: float, steps: int = 10) -> UserFigures:
    return UserFigures(heldout, 0.1, steps, 10, 1.5, ((1.0, heldout + 1), (2.0, heldout)))


def row(number: int, *values: float, state: str = "complete", **users: float) -> TrialRow:
    schedule = ("constant", "cosine")[number % 2]
    params = {"recipe.lr": 10.0**-3.5, "recipe.schedule": schedule, "recipe.dropout": None}
    figures = {slug: user(score, 10 if values else 4) for slug, score in users.items()}
    reason = "" if values else "pruned after epoch 1"
    return TrialRow(number, state, params, values, figures, reason, None, None)


def summary(*rows: TrialRow, names: tuple[str, ...] = ("heldout",)) -> SweepSummary:
    return SweepSummary(rows, names, _best(rows), {"recipe.lr": 0.9, "recipe.schedule": 0.1})


def test_page_shows_all_parts(sweep: Sweep) -> None:
    found = summary(
        row(0, 3.0, ann=2.0, bob=4.0),
        row(1, 2.5, ann=2.2, bob=2.8),
        row(2, state="pruned", ann=5.0, bob=5.0),
        row(3, state="fail"),
    )
    page = render_sweep_report(sweep, found)
    for part in (
        "2.5000",
        "3 of",
        "recipe.lr (importance 90%)",
        "pruned after epoch 1",
        "1 failed",
    ):
        assert part.replace("3 of", "of 12 trials") in page
    assert "x<b>" not in page
    assert "x&lt;b&gt;&amp;" in page
    assert not re.search(r'(?:src|href)="(?!data:)|<script|url\(|@import', page)
    assert found.saved_frac == pytest.approx(12 / 60)
    (ann, bob) = user_rows(found)
    assert (ann.slug, ann.best, ann.own_best, ann.own_number) == ("ann", 2.2, 2.0, 0)
    assert (bob.slug, bob.own_number) == ("bob", 1)


def test_page_of_an_empty_sweep_is_a_page(sweep: Sweep) -> None:
    assert "of 12 trials" in render_sweep_report(sweep, summary())
    running = summary(row(0, state="running"))
    assert history(running, 0) is None
    assert slices(running, sweep.spec.space) == []


def test_two_objectives_have_a_front(sweep: Sweep) -> None:
    names = ("heldout", "memorisation")
    rows = [row(0, 1.0, 9.0), row(1, 2.0, 2.0), row(2, 9.0, 1.0), row(3, 3.0, 3.0)]
    found = summary(*rows, names=names)
    assert set(found.best) == {0, 1, 2}
    assert found.best[0] == 1
    picture = front(found)
    assert picture
    assert picture.svg.count("dot best") == 3
    assert "lower left is better" in render_sweep_report(sweep, found)


def test_an_outlier_does_not_squeeze_the_rest(sweep: Sweep) -> None:
    values = [2.0, 2.1, 2.2, 2.15, 2.05, 2.3, 50.0]
    found = summary(*(row(at, value) for at, value in enumerate(values)))
    picture = history(found, 0)
    assert picture
    assert 1 <= picture.svg.count(" off") <= 2
    heights = {float(text) for text in re.findall(r'cy="([0-9.]+)"', str(picture.svg))}
    assert max(heights) - min(heights) > 100


def test_equal_values_are_drawn(sweep: Sweep) -> None:
    found = summary(*(row(at, 2.0) for at in range(3)))
    assert "nan" not in render_sweep_report(sweep, found)
    assert set(found.best) == {0, 1, 2}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1e-5, "1e-5"),
        (0.25, "0.25"),
        (8, "8"),
        ("cosine", "cosine"),
    ],
)
def test_values_are_short(value: object, text: str) -> None:
    assert shown(value) == text  # type: ignore[arg-type]


def test_pauses_between_starts_do_not_count() -> None:
    from datetime import datetime, timedelta

    start = datetime(2026, 1, 1)
    spans = [(0, 10), (5, 20), (100, 110)]
    rows = [
        replace(row(at), started=start + timedelta(seconds=a), ended=start + timedelta(seconds=b))
        for at, (a, b) in enumerate(spans)
    ]
    assert wall_seconds(summary(*rows)) == 30


def test_ticks_are_round_and_tell_neighbours_apart(sweep: Sweep) -> None:
    values = [4.0221, 4.0312, 4.0279, 4.0254]
    found = summary(*(row(at, value) for at, value in enumerate(values)))
    picture = history(found, 0)
    assert picture
    ticks = re.findall(r'text-anchor="end">([0-9]+[.][0-9]+)<', str(picture.svg))
    assert len(ticks) >= 3
    assert len(set(ticks)) == len(ticks)
    assert all(4.02 <= float(tick) <= 4.035 for tick in ticks)
    numbers = re.findall(r'text-anchor="(?:start|middle|end)">([0-3])<', str(picture.svg))
    assert numbers == ["0", "1", "2", "3"]


def test_pruned_trials_are_in_every_picture_of_held_out_bits(sweep: Sweep) -> None:
    cut = row(3, state="pruned", ann=3.0, bob=3.0)
    found = summary(row(0, 3.0), row(1, 2.5), row(2, 2.8), cut)
    pictures = [history(found, 0), *slices(found, sweep.spec.space)]
    assert len(pictures) == 4
    for picture in pictures:
        assert picture
        assert picture.svg.count('class="dot cut') == 1


def test_a_default_from_beyond_the_space_is_a_row(sweep: Sweep) -> None:
    default = replace(row(0, 2.6), is_default=True, params={"recipe.lr": 5.0})
    found = summary(default, row(1, 2.5), row(2, 2.8))
    page = render_sweep_report(sweep, found)
    assert "0 (default)" in page
    assert "The best has heldout 2.5000, the default 2.6000 (-3.85%)." in page
