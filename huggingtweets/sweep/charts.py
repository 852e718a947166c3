"""Charts of a sweep as inline SVG: history, slices, front.

The page's style sheet colours them: `best` is the best trial, `done` the others, `cut` what was
pruned.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import fmean

from markupsafe import Markup

from huggingtweets.publishing.charts import Axis, Chart, Frame, Point, number_axis, scientific
from huggingtweets.sweep.space import Choices, Dimension, Scalar
from huggingtweets.sweep.summary import SweepSummary, TrialRow

_LABELS = {"heldout": "held-out bits per byte", "memorisation": "memorised bits per byte"}
_NUM_TICKS = 6


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten, and multiples of them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    # 3 is about the root of 10, so that the ticks stay evenly apart.
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
    if value is None:
        return "null"
    if isinstance(value, bool | str):
        return value if isinstance(value, str) else str(value).lower()
    if value and not 1e-3 <= abs(value) < 1e5:
        return scientific(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _axis(dimension: Dimension) -> Axis:
    if isinstance(dimension, Choices):
        texts = [shown(value) for value in dimension.values]
        return Axis(0, len(texts), [(index + 0.5, text) for index, text in enumerate(texts)])
    if dimension.is_log:
        ticks = _log_ticks(dimension.low, dimension.high)
        return Axis(dimension.low, dimension.high, [(one, shown(one)) for one in ticks], True)
    return number_axis(dimension.low, dimension.high, _NUM_TICKS, is_whole=dimension.is_whole)


def _number(dimension: Dimension, value: Scalar) -> float | None:
    """Return where a value lies on its axis; None: the default may be none of the choices."""
    if isinstance(dimension, Choices):
        texts = [shown(one) for one in dimension.values]
        return texts.index(shown(value)) + 0.5 if shown(value) in texts else None
    return float(value) if isinstance(value, int | float) else None


def _span(values: Sequence[float]) -> Axis:
    """Return an axis around values that leaves the worst fifth of an outlying tail outside."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    middle = ordered[len(ordered) // 2]
    if high - low > 8 * (middle - low) > 0:
        high = ordered[int(0.8 * (len(ordered) - 1))]
    air = (high - low) * 0.05 or abs(low) * 0.05 or 1.0
    return number_axis(low - air, high + air, _NUM_TICKS)


def history(summary: SweepSummary, index: int) -> Chart | None:
    """Draw the value of each trial by its number, and the best so far; `index`: which value."""
    done = [row for row in summary.rows if row.values]
    if not done:
        return None
    last = max(row.number for row in summary.rows)
    frame = Frame(
        number_axis(0, max(last, 1), _NUM_TICKS, is_whole=True),
        _span([row.values[index] for row in done]),
    )
    best = accumulate((row.values[index] for row in done), min)
    line: list[Point] = []
    for row, value in zip(done, best, strict=True):
        line += [(row.number, line[-1][1])] if line else []
        line.append((row.number, value))
    drawn = [(row, row.values[index]) for row in done]
    if index == 0:
        drawn += _cut(summary)
    return frame.chart(
        f"{label(summary.names[index])}, trial by trial",
        "trial",
        [
            Markup('<polyline class="line" points="{}"/>').format(frame.points(line)),
            *(_dot(frame, row.number, value, row, summary) for row, value in drawn),
        ],
    )


def _cut(summary: SweepSummary) -> list[tuple[TrialRow, float]]:
    """Return the pruned trials with the last held-out figure they reached, the mean over users."""
    if summary.names[0] != "heldout":
        return []
    found = []
    for row in summary.rows:
        last = [user.curve[-1][1] for user in row.users.values() if user.curve]
        if row.state == "pruned" and last:
            found.append((row, fmean(last)))
    return found


def slices(summary: SweepSummary, space: Mapping[str, Dimension]) -> list[Chart]:
    """Draw the first value over each key, the most important first."""
    done = [row for row in summary.rows if row.values]
    if not done:
        return []
    up = _span([row.values[0] for row in done])
    points = [*_cut(summary), *((row, row.values[0]) for row in done)]
    charts = []
    for key in sorted(space, key=lambda key: -summary.importances.get(key, 0.0)):
        frame = Frame(_axis(space[key]), up)
        dots = [
            _dot(frame, number, value, row, summary)
            for row, value in points
            if (number := _number(space[key], row.params.get(key))) is not None
        ]
        share = summary.importances.get(key)
        title = key if share is None else f"{key} (importance {share:.0%})"
        charts.append(frame.chart(title, key.rpartition(".")[2], dots))
    return charts


def front(summary: SweepSummary) -> Chart | None:
    """Draw two objectives against each other."""
    done = [row for row in summary.rows if row.values]
    if len(summary.names) != 2 or not done:
        return None
    frame = Frame(*(_span([row.values[index] for row in done]) for index in range(2)))
    names = [label(name) for name in summary.names]
    title = f"{names[1]} over {names[0]}: lower left is better"
    dots = [_dot(frame, row.values[0], row.values[1], row, summary) for row in done]
    return frame.chart(title, names[0], dots)


def _dot(frame: Frame, x: float, y: float, row: TrialRow, summary: SweepSummary) -> Markup:
    """Draw one trial; a value beyond the axis sits hollow on its edge."""
    places = frame.across.place(x), frame.up.place(y)
    is_inside = all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    kind = _kind(row, summary) + ("" if is_inside else " off")
    return Markup('<circle class="dot {}" cx="{}" cy="{}" r="4"><title>{}</title></circle>').format(
        kind, frame.x(x), frame.y(y), _title(row, summary)
    )


def _kind(row: TrialRow, summary: SweepSummary) -> str:
    if row.number in summary.best:
        return "best"
    return "done" if row.values else "cut"


def _title(row: TrialRow, summary: SweepSummary) -> str:
    values = [f"{summary.names[at]} {value:.4f}" for at, value in enumerate(row.values)]
    params = [f"{key}={shown(value)}" for key, value in row.params.items()]
    return f"trial {row.number}: " + ", ".join([*(values or [row.reason]), *params])
