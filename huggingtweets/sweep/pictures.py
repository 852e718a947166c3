"""Charts of a sweep as inline SVG: history, slices, front.

The page's style sheet colours them: `best` is the best trial, `done` the others, `cut` what was
pruned.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from markupsafe import Markup

from huggingtweets.publishing.charts import round_ticks
from huggingtweets.sweep.space import Choices, Dimension, Scalar
from huggingtweets.sweep.summary import SweepSummary, TrialRow

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 36
_LABELS = {"heldout": "held-out bits per byte", "memorisation": "memorised bits per byte"}


@dataclass(frozen=True)
class Picture:
    """A chart and its title."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class _Axis:
    """Where values lie between 0 and 1, and which are written beside them."""

    places: Mapping[str, float]
    """Of choices, by their text; empty for numbers."""
    low: float
    high: float
    is_log: bool
    is_whole: bool = False

    def has(self, value: Scalar) -> bool:
        """Whether a value has a place; the default may be none of the choices of a space."""
        return shown(value) in self.places if self.places else isinstance(value, int | float)

    def place(self, value: Scalar) -> float:
        if self.places:
            return self.places[shown(value)]
        if self.is_log and float(value or 0) <= 0:
            return -1.0
        number = self._scaled(float(value or 0))
        return (number - self._scaled(self.low)) / (
            self._scaled(self.high) - self._scaled(self.low)
        )

    def _scaled(self, number: float) -> float:
        return math.log(number) if self.is_log else number

    def ticks(self) -> list[tuple[float, str]]:
        if self.places:
            return [(place, text) for text, place in self.places.items()]
        if self.is_log:
            values = _log_ticks(self.low, self.high)
            return [(self.place(value), shown(value)) for value in values]
        values = round_ticks(self.low, self.high, 6)
        if self.is_whole:
            values = [value for value in values if float(value).is_integer()]
        # As many digits as tell neighbours apart: 4.022 and 4.024, not twice 4.02.
        step = min((b - a for a, b in pairwise(values)), default=1.0)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(self.place(value), f"{value:.{digits}f}") for value in values]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten, with their double and fivefold where there are few of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) >= 3:
            break
    return found[:: -(-len(found) // 6)] or [low, high]


def label(name: str) -> str:
    """Name an objective for people."""
    return _LABELS.get(name, name)


def shown(value: Scalar) -> str:
    """Write a value in a few characters."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        text = "null" if value is None else str(value).lower() if value in (True, False) else value
        return str(text)
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _axis(dimension: Dimension) -> _Axis:
    if isinstance(dimension, Choices):
        texts = [shown(value) for value in dimension.values]
        places = {text: (index + 0.5) / len(texts) for index, text in enumerate(texts)}
        return _Axis(places, 0.0, 1.0, False)
    return _Axis({}, dimension.low, dimension.high, dimension.is_log, dimension.is_whole)


def _span(values: Sequence[float]) -> _Axis:
    """Return an axis around values that leaves the worst fifth of an outlying tail outside."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    middle = ordered[len(ordered) // 2]
    if high - low > 8 * (middle - low) > 0:
        high = ordered[int(0.8 * (len(ordered) - 1))]
    air = (high - low) * 0.05 or abs(low) * 0.05 or 1.0
    return _Axis({}, low - air, high + air, False)


def history(summary: SweepSummary, index: int) -> Picture | None:
    """Draw the value of each trial by its number, and the best so far; `index`: which value."""
    done = [row for row in summary.rows if row.values]
    if not done:
        return None
    cut = _cut(summary)
    last = max(row.number for row in summary.rows)
    across = _Axis({}, 0.0, float(max(last, 1)), False, is_whole=True)
    up = _span([row.values[index] for row in done])
    best = accumulate((row.values[index] for row in done), min)
    line = [
        (across.place(row.number), up.place(value)) for row, value in zip(done, best, strict=True)
    ]
    dots = [
        _dot(across.place(row.number), up.place(row.values[index]), row, summary) for row in done
    ]
    if index == 0 and summary.names[0] == "heldout":
        dots += [
            _dot(across.place(row.number), up.place(last_heldout(row)), row, summary) for row in cut
        ]
    return _picture(
        f"{label(summary.names[index])}, trial by trial",
        _frame(across, up, "trial"),
        _line(line),
        *dots,
    )


def last_heldout(row: TrialRow) -> float | None:
    """Return the mean over the users of the last figure that a trial reached."""
    figures = [user.curve[-1][1] for user in row.users.values() if user.curve]
    return sum(figures) / len(figures) if figures else None


def _cut(summary: SweepSummary) -> list[TrialRow]:
    """Return the trials that ended before their last step, with a figure to draw."""
    rows = [row for row in summary.rows if row.state == "pruned" and row.params]
    return [row for row in rows if last_heldout(row) is not None]


def slices(summary: SweepSummary, space: Mapping[str, Dimension]) -> list[Picture]:
    """Draw the first value over each key, the most important first."""
    done = [row for row in summary.rows if row.values]
    if not done:
        return []
    up = _span([row.values[0] for row in done])
    points = [(row, row.values[0]) for row in done]
    if summary.names[0] == "heldout":
        points = [(row, last_heldout(row) or 0.0) for row in _cut(summary)] + points
    pictures = []
    for key in sorted(space, key=lambda key: -summary.importances.get(key, 0.0)):
        across = _axis(space[key])
        dots = [
            _dot(across.place(row.params.get(key)), up.place(value), row, summary)
            for row, value in points
            if across.has(row.params.get(key))
        ]
        share = summary.importances.get(key)
        title = key if share is None else f"{key} (importance {share:.0%})"
        pictures.append(_picture(title, _frame(across, up, key.rpartition(".")[2]), *dots))
    return pictures


def front(summary: SweepSummary) -> Picture | None:
    """Draw two objectives against each other."""
    done = [row for row in summary.rows if row.values]
    if len(summary.names) != 2 or not done:
        return None
    across = _span([row.values[0] for row in done])
    up = _span([row.values[1] for row in done])
    dots = [
        _dot(across.place(row.values[0]), up.place(row.values[1]), row, summary) for row in done
    ]
    names = [label(name) for name in summary.names]
    title = f"{names[1]} over {names[0]}: lower left is better"
    return _picture(title, _frame(across, up, names[0]), *dots)


def _picture(title: str, *parts: Markup) -> Picture:
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )
    return Picture(title, svg)


def _x(place: float) -> float:
    return round(LEFT + min(max(place, 0.0), 1.0) * (WIDTH - LEFT - RIGHT), 1)


def _y(place: float) -> float:
    return round(HEIGHT - BOTTOM - min(max(place, 0.0), 1.0) * (HEIGHT - TOP - BOTTOM), 1)


def _frame(across: _Axis, up: _Axis, label: str) -> Markup:
    parts = []
    for place, text in up.ticks():
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                LEFT, WIDTH - RIGHT, _y(place), _y(place)
            )
        )
        parts.append(_text(LEFT - 7, _y(place) + 4, text, "end"))
    for place, text in across.ticks():
        anchor = {0.0: "start", 1.0: "end"}.get(place, "middle")
        parts.append(_text(_x(place), HEIGHT - BOTTOM + 15, text, anchor))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 4, label, "end"))
    return Markup("").join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        round(x, 1), round(y, 1), anchor, text
    )


def _line(points: Sequence[tuple[float, float]]) -> Markup:
    corners = []
    for index, (x, y) in enumerate(points):
        if index:
            corners.append(f"{_x(x)},{_y(points[index - 1][1])}")
        corners.append(f"{_x(x)},{_y(y)}")
    return Markup('<polyline class="line" points="{}"/>').format(" ".join(corners))


def _dot(x: float, y: float, row: TrialRow, summary: SweepSummary) -> Markup:
    """Draw one trial; a value beyond the axis sits hollow on its edge."""
    is_inside = -1e-9 <= x <= 1 + 1e-9 and 0 <= y <= 1
    kind = _kind(row, summary) + ("" if is_inside else " off")
    return Markup('<circle class="dot {}" cx="{}" cy="{}" r="4"><title>{}</title></circle>').format(
        kind, _x(x), _y(y), _title(row, summary)
    )


def _kind(row: TrialRow, summary: SweepSummary) -> str:
    if row.number in summary.best:
        return "best"
    return "done" if row.values else "cut"


def _title(row: TrialRow, summary: SweepSummary) -> str:
    values = [f"{summary.names[at]} {value:.4f}" for at, value in enumerate(row.values)]
    params = [f"{key}={shown(value)}" for key, value in row.params.items()]
    return f"trial {row.number}: " + ", ".join([*(values or [row.reason]), *params])
