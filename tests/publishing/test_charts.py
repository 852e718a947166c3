import re

import pytest

from huggingtweets.publishing.charts import histogram, line_chart


def points(svg: str, shape: str) -> list[tuple[float, float]]:
    drawn = re.search(rf'<{shape} [^>]*points="([^"]*)"', svg)
    assert drawn
    return [tuple(map(float, pair.split(","))) for pair in drawn[1].split()]


def test_line_chart_puts_larger_values_higher_and_later_ones_further_right():
    chart = line_chart("Loss", {"train": [(0, 4.0), (10, 2.0), (20, 3.0)]})
    (x0, y0), (x1, y1), (x2, y2) = points(chart.svg, "polyline")
    assert x0 < x1 < x2
    assert y0 < y2 < y1


def test_line_chart_leaves_out_what_is_no_number():
    values = [(0, 4.0), (1, float("nan")), (2, float("inf")), (3, 3.0)]
    chart = line_chart("Loss", {"train": values, "heldout": []})
    assert len(points(chart.svg, "polyline")) == 2
    assert chart.names == ("train",)
    assert line_chart("Loss", {"train": [(0, float("nan"))]}) is None


@pytest.mark.parametrize(
    "values",
    [
        [(5, 1.0)],
        [(0, 0.0), (9, 0.0)],
        [(0, -3.0), (1, -3.0)],
        [(0, 2.1), (1, 2.1000000000000005)],  # a learning rate that changes rounding alone
    ],
)
def test_line_chart_takes_single_points_and_level_lines(values):
    chart = line_chart("Loss", {}, {"train": values})
    assert chart.svg.count("<circle") == len(values)
    assert "nan" not in chart.svg


def test_long_lines_are_thinned_but_keep_their_level():
    chart = line_chart("Loss", {"train": [(step, 2.0) for step in range(10_000)]})
    drawn = points(chart.svg, "polyline")
    assert 100 < len(drawn) <= 240
    assert len({y for _, y in drawn}) == 1


def test_ticks_are_round_numbers():
    chart = line_chart("Rate", {"lr": [(0, 0.0), (600, 1.372e-4)]}, from_zero=True)
    ticks = re.findall(r'class="tick"[^>]*>([^<]*)<', chart.svg)
    assert ticks == ["0", "5e-5", "1e-4", "0", "200", "400", "600", "step"]


def test_no_axis_goes_below_zero_for_values_that_do_not():
    for values in ([(0, 0.01), (1, 10.0)], [(0, 0.0), (1, 10.0)]):
        chart = line_chart("Loss", {"train": values})
        assert min(y for _, y in points(chart.svg, "polyline")) >= 12
        bottom = max(y for _, y in points(chart.svg, "polyline"))
        assert bottom == pytest.approx(194, abs=0.3), "the lowest value lies on the axis"


def test_histogram_draws_shares_of_each_sample():
    chart = histogram("Length", [("human", [10] * 90 + [250] * 10), ("samples", [])])
    assert chart.names == ("human",)
    heights = [y for _, y in points(chart.svg, "polygon")]
    base, top = max(heights), min(heights)
    small = min(y for y in heights if y not in (base, top)) if len(set(heights)) > 2 else base
    assert (base - small) / (base - top) == pytest.approx(1 / 9, rel=0.05)
    assert histogram("Length", [("human", [])]) is None


def test_histogram_gathers_outliers_in_the_last_bar():
    chart = histogram("Length", [("human", [100] * 999 + [1_000_000])])
    assert "1M" not in chart.svg


def test_names_are_escaped():
    chart = line_chart("<b>", {}, {"</svg><script>": [(0, 1.0)]})
    assert "<script>" not in chart.svg
    assert "<b>" not in chart.svg
