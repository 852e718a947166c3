"""What pages have in common, and tables on a terminal: all texts are shown as they are."""

from collections.abc import Iterable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.markup import escape
from rich.table import Table

from huggingtweets.publishing.names import display_name, duration, visible


def page_environment(package: str = "huggingtweets.publishing") -> Environment:
    """Return a fresh environment over a package's templates; a page may add filters of its own."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=lambda number: f"{number:,}",
        figure=lambda number: f"{number:.4g}",
        duration=duration,
        name=display_name,
        visible=visible,
    )
    return environment


def build_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]] = (), *, has_head: bool = True
) -> Table:
    """Return a table for a terminal: words at the left, and figures behind them at the right."""
    table = Table(title=escape(title), title_justify="left", show_header=has_head)
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if index and has_head else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
