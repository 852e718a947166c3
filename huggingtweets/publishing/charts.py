"""Charts as inline SVG: lines over steps, and a histogram. The page's style sheet colours them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

WIDTH, HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 12, 34
_MAX_POINTS = 240

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart, or the same with its points marked."""

    name: str
    points: Sequence[Point]
    has_dots: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart with its title and legend."""

    title: str
    names: tuple[str, ...]
    svg: Markup


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the picture."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        share = (value - self.low_x) / (self.high_x - self.low_x)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low_y) / (self.high_y - self.low_y)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def line_chart(
    title: str, series: Sequence[Series], *, x_label: str = "step", from_zero: bool = False
) -> Chart | None:
    """Draw lines over steps; None when no point is a number."""
    drawn = [
        Series(one.name, points, one.has_dots)
        for one in series
        if (points := [point for point in one.points if all(map(math.isfinite, point))])
    ]
    if not drawn:
        return None
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points] + ([0.0] if from_zero else [])
    frame = _Frame(*_span(min(xs), max(xs)), *_span(min(ys), max(ys)))
    parts = [_axes(frame, x_label)]
    for index, one in enumerate(drawn):
        parts.append(_path(one, index, frame))
        parts += [_dot(one.name, point, index, frame) for point in one.points if one.has_dots]
    return Chart(title, tuple(one.name for one in drawn), _svg(title, parts))


def histogram(
    title: str, samples: Sequence[tuple[str, Sequence[int]]], *, x_label: str
) -> Chart | None:
    """Draw the shares of values by size, in per cent, one filled outline a name."""
    drawn = [(name, values) for name, values in samples if values]
    if not drawn:
        return None
    bins, width = 15, _bin_width([value for _, values in drawn for value in values], 15)
    shares = []
    for _, values in drawn:
        counts = [0] * bins
        for value in values:
            counts[min(value // width, bins - 1)] += 1
        shares.append([100 * count / len(values) for count in counts])
    frame = _Frame(0, bins * width, *_span(0, max(map(max, shares))))
    parts = [_axes(frame, f"{x_label} (the last bar: all longer ones)")]
    for index, heights in enumerate(shares):
        corners = [(0.0, 0.0)]
        for bin_index, height in enumerate(heights):
            corners += [(bin_index * width, height), ((bin_index + 1) * width, height)]
        outline = _points([*corners, (bins * width, 0.0)], frame)
        parts.append(Markup('<polygon class="fill c{}" points="{}"/>').format(index, outline))
    return Chart(title, tuple(name for name, _ in drawn), _svg(title, parts))


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def _path(series: Series, index: int, frame: _Frame) -> Markup:
    points = _points(series.points if series.has_dots else _thin(series.points), frame)
    return Markup('<polyline class="line c{}" points="{}"/>').format(index, points)


def _dot(name: str, point: Point, index: int, frame: _Frame) -> Markup:
    return Markup(
        '<circle class="dot c{}" cx="{}" cy="{}" r="3.5"><title>{}: {:.4g} ({:g})</title></circle>'
    ).format(index, frame.x(point[0]), frame.y(point[1]), name, point[1], point[0])


def _points(points: Sequence[Point], frame: _Frame) -> str:
    return " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in points)


def _thin(points: Sequence[Point]) -> list[Point]:
    """Return at most `_MAX_POINTS` points, each the mean of its neighbours."""
    group = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[start : start + group] for start in range(0, len(points), group)]
    return [(fmean(x for x, _ in few), fmean(y for _, y in few)) for few in groups]


def _axes(frame: _Frame, x_label: str) -> Markup:
    parts = []
    for value in round_ticks(frame.low_y, frame.high_y, 4):
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
                '<text class="tick" x="{3}" y="{4}" text-anchor="end">{5}</text>'
            ).format(
                _LEFT, WIDTH - _RIGHT, frame.y(value), _LEFT - 7, frame.y(value) + 4, _short(value)
            )
        )
    base = HEIGHT - _BOTTOM
    for value in round_ticks(frame.low_x, frame.high_x, 5):
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                frame.x(value), base + 15, _short(value)
            )
        )
    label = '<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
    parts.append(Markup(label).format(WIDTH - _RIGHT, HEIGHT - 4, x_label))
    return Markup("").join(parts)


def _span(low: float, high: float) -> tuple[float, float]:
    """Return two different bounds with a little air around; none below zero."""
    air = (high - low) * 0.04 or abs(low) * 0.5 or 1.0
    return (low - air if low else low), high + air


def round_ticks(low: float, high: float, about: int) -> list[float]:
    """Return round values within the bounds."""
    step = _round_up((high - low) / about)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10 ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * 0.999)


def _bin_width(values: Sequence[int], bins: int) -> int:
    """Return a round width at which all but the longest hundredth of the values fit."""
    ordered = sorted(values)
    return max(1, round(_round_up(max(1, ordered[int(0.99 * (len(ordered) - 1))]) / bins)))


def _short(value: float) -> str:
    """Return `12k`, `0.25`, `1e-4`."""
    size = abs(value)
    if size >= 1_000_000:
        return f"{value / 1e6:g}M"
    if size >= 10_000:
        return f"{value / 1e3:g}k"
    if 0 < size < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"
