"""What a batch leaves beside its jobs: index.html, one row per user, and the same as files.

results.csv opens in any spreadsheet, results.parquet in any data frame. The page is self-contained
except for thumbnails, which lie in the job folders and load when they come into view. Its rows are
JSON that a few lines of script show some hundred at a time, so that ten thousand users open as fast
as ten.
"""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from huggingtweets.publishing.names import visible
from huggingtweets.publishing.pages import page_environment
from huggingtweets.standing import finished
from huggingtweets.storage.files import flatten, read_plain, write_bytes, write_text
from huggingtweets.storage.paths import JobPaths

logger = logging.getLogger(__name__)

SAMPLE_CHARS = 280
"""As long as a post may be."""


@dataclass(frozen=True)
class Row:
    """One finished job, as the index shows it. Texts are hostile until escaped."""

    slug: str
    handles: str
    """Each with its `@`."""
    kept: int
    """Posts."""
    tokens: int
    """In posts trained on."""
    steps: int
    seconds: float
    """In training steps."""
    base: float | None
    """Held-out bits per byte of the base, and of the model; None: nothing held out."""
    tuned: float | None
    sample: str
    has_preview: bool
    has_report: bool


@dataclass(frozen=True)
class NotDone:
    """A job that left no model. Texts are hostile until escaped."""

    slug: str
    status: str
    """Such as failed or skipped."""
    reason: str


MAX_NOT_DONE = 1000
"""The page lists no more jobs that left no model."""


def write_index(output_dir: Path, not_done: Sequence[NotDone] = ()) -> list[Row]:
    """Write index.html, results.csv and results.parquet over all finished jobs of a folder.

    Results that cannot be read are passed over.

    Args:
        output_dir: with the folders of the jobs.
        not_done: jobs to list as such, with the reason.

    Returns:
        The rows of the page.

    Raises:
        OSError: the folder cannot be read or written.
    """
    rows, flat = [], []
    for paths, result in finished(output_dir):
        try:
            row, values = _row(paths, result), flat_result(result)
            as_script([astuple(row), list(values.values())])
        except Exception as err:  # of a damaged or foreign file anything may come
            logger.warning("%s is left out (%s)", paths.result, type(err).__name__)
            continue
        rows.append(row)
        flat.append(values)
    if rows or not_done:
        page = render_index(rows, title=output_dir.resolve().name, not_done=not_done)
        write_text(output_dir / "index.html", page)
    if rows:
        write_parquet(output_dir / "results.parquet", flat)
        write_csv(output_dir / "results.csv", flat)
    return rows


def render_index(rows: list[Row], *, title: str, not_done: Sequence[NotDone] = ()) -> str:
    """Return the page."""
    environment = page_environment()
    gains = [1 - row.tuned / row.base for row in rows if row.tuned and row.base]
    return environment.get_template("index.html.jinja").render(
        title=visible(title),
        count=f"{len(rows):,}",
        kept=f"{sum(row.kept for row in rows):,}",
        tokens=f"{sum(row.tokens for row in rows):,}",
        gain=f"{100 * sum(gains) / len(gains):.1f} %" if gains else "",
        not_done=[tuple(map(visible, astuple(one))) for one in not_done[:MAX_NOT_DONE]],
        num_not_done=len(not_done),
        rows=as_script(list(map(astuple, rows))),
    )


def as_script(value: Any) -> Markup:
    """Return JSON that is safe within a script element, whatever its texts are.

    Raises:
        ValueError: a number is none: browsers read no NaN, and one would cost the whole page.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII only
    # A parser of HTML ends the script at `</script`, and hides it behind `<!--`.
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def flat_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result.json under dotted names; the figures of each user by name are left out."""
    return {
        name: ",".join(map(str, item)) if isinstance(item, list) else item
        for name, item in flatten(result).items()
        if not name.startswith(("tweets.users.", "model."))
    }


def _row(paths: JobPaths, result: Mapping[str, Any]) -> Row:
    train, held_out = result["train"], result.get("eval") or {}
    base, tuned = (held_out.get(key) for key in ("base_bits_per_byte", "bits_per_byte"))
    row = Row(
        slug=paths.root.name,
        handles=" ".join(f"@{name}" for name in result.get("written") or result["handles"]),
        kept=result["tweets"]["kept"],
        tokens=result["data"]["train_tokens"],
        steps=train["steps"],
        seconds=round(train["seconds"], 2),
        base=None if base is None else round(base, 4),
        tuned=None if tuned is None else round(tuned, 4),
        sample=_sample(paths.predictions),
        has_preview=paths.preview.exists(),
        has_report=paths.report.exists(),
    )
    # Beyond 2**53 a browser's numbers are no longer whole.
    if not all(abs(num) < 2**53 for num in (row.kept, row.tokens, row.steps, row.seconds)):
        raise ValueError("numbers that are none")
    return row


def _sample(path: Path) -> str:
    """Return the first sample of a job, or nothing."""
    try:
        line = read_plain(path).partition(b"\n")[0]
        return visible(json.loads(line)["prediction"])[:SAMPLE_CHARS]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that may differ in their columns, a missing value as an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _spreadsheet_safe(value) for key, value in row.items()})
    write_text(path, text.getvalue())


def _spreadsheet_safe(value: Any) -> Any:
    """Keep a spreadsheet from running a text as a formula."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if is_formula else value


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that may differ in their columns, a missing value as null."""
    import pyarrow as pa  # heavy
    import pyarrow.parquet as pq

    table = pa.table({name: _alike([row.get(name) for row in rows]) for name in _columns(rows)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names that any row has, in the order in which they come up."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _alike(values: list[Any]) -> list[Any]:
    """Return values of one kind: numbers of both kinds become floats, any other mixture texts."""
    kinds = {type(value) for value in values if value is not None}
    # Arrow's integers have 64 bits.
    is_large = any(isinstance(value, int) and abs(value) >= 2**63 for value in values)
    if len(kinds) <= 1 and not is_large:
        return values
    kind = float if kinds == {int, float} and not is_large else str
    return [None if value is None else kind(value) for value in values]
