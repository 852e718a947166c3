"""Charts as inline SVG: lines over steps, histograms, and axes. A style sheet colours them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from markupsafe import Markup

WIDTH, HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 36
_MAX_POINTS = 240
"""Of a line: fewer than it has pixels, and a page stays small after a hundred thousand steps."""

Point = tuple[float, float]
Curves = Mapping[str, Sequence[Point]]
"""By name."""


@dataclass(frozen=True)
class Chart:
    """A chart with its title and legend."""

    title: str
    names: tuple[str, ...]
    svg: Markup


@dataclass(frozen=True)
class Axis:
    """Which values a side of the picture spans, and which are written beside it."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies: 0 to 1 within the picture."""
        if not self.is_log:
            return (value - self.low) / (self.high - self.low)
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else -1.0


@dataclass(frozen=True)
class Frame:
    """The two axes of a chart; what lies beyond them is drawn on its edge."""

    across: Axis
    up: Axis

    def x(self, value: float) -> float:
        """Return pixels from the left."""
        share = min(max(self.across.place(value), 0.0), 1.0)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """Return pixels from the top."""
        share = min(max(self.up.place(value), 0.0), 1.0)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    def points(self, points: Iterable[Point]) -> str:
        """Return what an SVG line wants."""
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)

    def chart(
        self, title: str, x_label: str, parts: Iterable[Markup], names: tuple[str, ...] = ()
    ) -> Chart:
        """Return parts with the axes behind them."""
        axes = []
        for value, text in self.up.ticks:
            y = self.y(value)
            axes.append(
                Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(
                    _LEFT, WIDTH - _RIGHT, y
                )
            )
            axes.append(_text(_LEFT - 7, round(y + 4, 1), text, "end"))
        for value, text in self.across.ticks:
            anchor = {0.0: "start", 1.0: "end"}.get(self.across.place(value), "middle")
            axes.append(_text(self.x(value), HEIGHT - _BOTTOM + 15, text, anchor))
        axes.append(_text(WIDTH - _RIGHT, HEIGHT - 4, x_label, "end"))
        svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            WIDTH, HEIGHT, title, Markup("").join([*axes, *parts])
        )
        return Chart(title, names, svg)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        x, y, anchor, text
    )


def number_axis(low: float, high: float, about: int, *, is_whole: bool = False) -> Axis:
    """Return an axis with about so many round numbers beside it, told apart by their digits."""
    step = _round_up((high - low) / about)
    if is_whole:
        step = max(1.0, step)
    # The hair of room on both sides: a tick on the very edge must not be lost to rounding.
    first = math.ceil(low / step - 1e-9)
    values = [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
    gap = min((b - a for a, b in pairwise(values)), default=1.0)
    digits = max(0, -math.floor(math.log10(gap) + 1e-9))
    is_plain = 1e-3 <= max(map(abs, values), default=0.0) < 1e4
    texts = [f"{value:.{digits}f}" if is_plain else _short(value) for value in values]
    return Axis(low, high, list(zip(values, texts, strict=True)))


def line_chart(
    title: str,
    lines: Curves,
    dots: Curves | None = None,
    *,
    x_label: str = "step",
    from_zero: bool = False,
) -> Chart | None:
    """Draw lines over steps, and such with their points marked; None when no point is a number."""
    drawn = []
    for name, points in (*lines.items(), *(dots or {}).items()):
        if finite := [point for point in points if all(map(math.isfinite, point))]:
            drawn.append((name, finite))
    if not drawn:
        return None
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points] + ([0.0] if from_zero else [])
    frame = _frame(_span(min(xs), max(xs)), _span(min(ys), max(ys)))
    line = Markup('<polyline class="line c{}" points="{}"/>')
    dot = Markup(
        '<circle class="dot c{}" cx="{}" cy="{}" r="3.5"><title>{}: {:.4g} ({:g})</title></circle>'
    )
    parts = []
    for index, (name, points) in enumerate(drawn):
        marked = points if dots and name in dots else []
        parts.append(line.format(index, frame.points(marked or _thin(points))))
        parts += [dot.format(index, frame.x(x), frame.y(y), name, y, x) for x, y in marked]
    return frame.chart(title, x_label, parts, tuple(name for name, _ in drawn))


def histogram(title: str, samples: Sequence[tuple[str, Sequence[int]]]) -> Chart | None:
    """Draw the shares of lengths in characters, in per cent, one filled outline per name."""
    drawn = [(name, values) for name, values in samples if values]
    if not drawn:
        return None
    bins = 15
    # A round width at which all but the longest hundredth of the values fit.
    ordered = sorted(value for _, values in drawn for value in values)
    longest = max(1, ordered[int(0.99 * (len(ordered) - 1))])
    width = max(1, round(_round_up(longest / bins)))
    shares = []
    for _, values in drawn:
        counts = [0] * bins
        for value in values:
            counts[min(value // width, bins - 1)] += 1
        shares.append([100 * count / len(values) for count in counts])
    frame = _frame((0, bins * width), _span(0, max(map(max, shares))))
    parts = []
    for index, heights in enumerate(shares):
        corners = [(0.0, 0.0)]
        for bin_index, height in enumerate(heights):
            corners += [(bin_index * width, height), ((bin_index + 1) * width, height)]
        outline = frame.points([*corners, (bins * width, 0.0)])
        parts.append(Markup('<polygon class="fill c{}" points="{}"/>').format(index, outline))
    label = "characters (the last bar: all longer ones)"
    return frame.chart(title, label, parts, tuple(name for name, _ in drawn))


def _frame(across: Point, up: Point) -> Frame:
    return Frame(number_axis(*across, 5), number_axis(*up, 4))


def _thin(points: Sequence[Point]) -> list[Point]:
    """Return at most `_MAX_POINTS` points, each the mean of its neighbours."""
    group = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[start : start + group] for start in range(0, len(points), group)]
    return [(fmean(x for x, _ in few), fmean(y for _, y in few)) for few in groups]


def _span(low: float, high: float) -> tuple[float, float]:
    """Return two different bounds with a little air around, below zero only for values there."""
    spread = high - low
    # What differs by rounding alone is level: a float has no digits for two ticks between.
    is_level = spread < 1e-9 * max(abs(low), abs(high))
    air = abs(high) * 0.5 if is_level else spread * 0.04
    air = air or 1.0
    return (low - air if low < 0 else max(low - air, 0.0)), high + air


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10 ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * 0.999)


def _short(value: float) -> str:
    """Return `12k` or `1e-4`."""
    size = abs(value)
    if size >= 1_000_000:
        return f"{value / 1e6:g}M"
    if size >= 10_000:
        return f"{value / 1e3:g}k"
    return scientific(value) if 0 < size < 0.001 else f"{value:.4g}"


def scientific(value: float) -> str:
    """Return `1.5e-4`."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
