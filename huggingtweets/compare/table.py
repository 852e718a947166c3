"""A comparison for people: tables for a terminal, and one self-contained page."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from huggingtweets.compare.comparison import Comparison, PersonRow, Total
from huggingtweets.compare.settings import Setting
from huggingtweets.evaluation.intervals import Interval
from huggingtweets.publishing.names import visible
from huggingtweets.publishing.pages import build_table, page_environment
from huggingtweets.storage.files import write_text

NUM_PEOPLE = 20
"""Shown on a terminal; the page and the JSON have all."""
MAX_SIDE_BY_SIDE = 4
"""Settings that a terminal shows as columns."""
COLUMNS = (
    "setting",
    "bits per byte",
    "against the first",
    "wins",
    "runs of 4 to 8 words copied",
    "samples with 5 words copied",
    "samples attributed",
    "distinct-2",
    "tokens",
    "seconds of training",
)


def total_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the cells of each setting, in the order of COLUMNS."""
    num = len(comparison.people)
    return [
        _total_cells(total, num, is_first=index == 0)
        for index, total in enumerate(comparison.totals)
    ]


def _total_cells(total: Total, num_people: int, *, is_first: bool) -> tuple[str, ...]:
    base = "" if total.base_bits is None else f" (base {total.base_bits:.3f})"
    against = "" if is_first else signed(total.difference, total.interval)
    return (
        visible(total.name),
        f"{total.bits:.4f}{base}",
        against,
        "" if is_first else f"{total.wins} of {num_people}",
        percent(total.copied, 3),
        percent(total.long_copied, 3),
        percent(total.attributed, 1),
        percent(total.distinct_2, 1),
        count(total.tokens),
        "" if total.seconds is None else f"{total.seconds:.1f}",
    )


def person_cells(row: PersonRow) -> tuple[str, ...]:
    """Return the cells of one person: the slug, the bits of each setting, each difference."""
    first = row.figures[0].bits
    cells = [visible(row.slug), *(f"{figures.bits:.4f}" for figures in row.figures)]
    pairs = zip(row.figures[1:], row.intervals[1:], strict=True)
    cells += [signed(figures.bits - first, interval) for figures, interval in pairs]
    return (*cells, "" if row.num_posts is None else f"{row.num_posts:,}")


def person_columns(comparison: Comparison) -> tuple[str, ...]:
    """Return the headings of `person_cells`."""
    names = [visible(total.name) for total in comparison.totals]
    return ("person", *names, *(f"{name} - {names[0]}" for name in names[1:]), "posts")


def signed(value: float, interval: Interval | None) -> str:
    """Write a difference with its interval; a star where the interval leaves out zero."""
    if interval is None:
        return f"{value:+.4f}"
    star = " *" if interval.low > 0 or interval.high < 0 else ""
    return f"{value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f}){star}"


def percent(value: float | None, digits: int) -> str:
    """Write a share."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def count(value: float | None) -> str:
    """Write a mean count."""
    return "" if value is None or not math.isfinite(value) else f"{round(value):,}"


def setting_value(value: Any) -> str:
    """Write the value of a setting."""
    return visible("null" if value is None else str(value))


def build_comparison(comparison: Comparison) -> RenderableType:
    """Return the tables for a terminal."""
    num = len(comparison.people)
    title = "1 person" if num == 1 else f"{num} people, means"
    parts: list[RenderableType] = [_totals(title, total_rows(comparison))]
    if comparison.changed:
        names = (visible(one.name) for one in comparison.totals)
        changed = ((key, *map(setting_value, row)) for key, row in comparison.changed.items())
        parts.append(build_table("Settings that differ", ("key", *names), changed))
    people = map(person_cells, comparison.people[:NUM_PEOPLE])
    parts.append(build_table("Person by person, bits per byte", person_columns(comparison), people))
    if num > NUM_PEOPLE:
        parts.append(f"{num - NUM_PEOPLE} more people are on the page and in --json")
    parts.append(explanation(comparison))
    return Group(*parts)


def _totals(title: str, rows: Sequence[Sequence[str]]) -> Table:
    """Return a table that fits 80 columns: one column per setting, or of many the main figures."""
    if len(rows) > MAX_SIDE_BY_SIDE:
        few = (row[:MAX_SIDE_BY_SIDE] for row in rows)
        return build_table(title, COLUMNS[:MAX_SIDE_BY_SIDE], few)
    turned = zip(COLUMNS[1:], *(row[1:] for row in rows), strict=True)
    return build_table(
        title, ("", *(row[0] for row in rows)), (one for one in turned if any(one[1:]))
    )


def explanation(comparison: Comparison) -> str:
    """Say what the intervals are."""
    note = (
        "Below 0 is better. In brackets: the middle 95 % when people (in all) or held-out posts "
        "(of one person) are drawn again with replacement, in pairs; *: it leaves out 0."
    )
    if comparison.num_left_out:
        note += f" {comparison.num_left_out} people whom not all settings have are left out."
    return note


def write_page(path: Path, comparison: Comparison, settings: Sequence[Setting], title: str) -> None:
    """Write the page; settings whose index lies below the page's folder are linked."""
    place = path.resolve().parent
    indexes = [(setting.folder / "index.html").resolve() for setting in settings]
    links = [
        str(index.relative_to(place)) if index.is_file() and index.is_relative_to(place) else ""
        for index in indexes
    ]
    environment = page_environment()
    environment.filters["setting"] = setting_value
    write_text(
        path,
        environment.get_template("compare.html.jinja").render(
            title=visible(title),
            columns=COLUMNS,
            totals=total_rows(comparison),
            links=links,
            changed=comparison.changed,
            person_columns=person_columns(comparison),
            people=[person_cells(row) for row in comparison.people],
            note=explanation(comparison),
        ),
    )
