"""What a batch leaves beside its jobs: index.html, a row a user, and results.parquet, the same.

The page is self-contained but for thumbnails, which lie in the job folders and load when they come
into view. Its rows are JSON that a few lines of script show some hundred at a time, so that ten
thousand users open as fast as ten.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from huggingtweets.files import read_json, write_bytes, write_text
from huggingtweets.paths import JobPaths
from huggingtweets.publishing.names import visible
from huggingtweets.publishing.pages import page_environment

SAMPLE_CHARS = 280


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
    """Held-out bits a byte of the base, and of the model; None: nothing held out."""
    tuned: float | None
    sample: str
    has_preview: bool
    has_report: bool


def write_index(output_dir: Path) -> list[Row]:
    """Write index.html and results.parquet over all finished jobs of a folder.

    Results that cannot be read are passed over.

    Returns:
        The rows of the page.

    Raises:
        OSError: the folder cannot be read or written.
    """
    rows, flat = [], []
    for name, result in _read_results(output_dir):
        with suppress(KeyError, TypeError):  # not ours
            rows.append(_row(JobPaths(output_dir / name), result))
            flat.append(flatten(result))
    if rows:
        write_text(output_dir / "index.html", render_index(rows, title=output_dir.resolve().name))
        _write_parquet(output_dir / "results.parquet", flat)
    return rows


def render_index(rows: list[Row], *, title: str) -> str:
    """Return the page."""
    environment = page_environment()
    gains = [1 - row.tuned / row.base for row in rows if row.tuned and row.base]
    return environment.get_template("index.html.jinja").render(
        title=visible(title),
        count=f"{len(rows):,}",
        kept=f"{sum(row.kept for row in rows):,}",
        tokens=f"{sum(row.tokens for row in rows):,}",
        gain=f"{100 * sum(gains) / len(gains):.1f} %" if gains else "",
        rows=as_script([list(asdict(row).values()) for row in rows]),
    )


def as_script(value: Any) -> Markup:
    """Return JSON that is safe within a script element, whatever its texts are."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII only
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted names; the figures of each user by name are left out."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if name == "tweets.users":
            continue
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{name}.")
        else:
            flat[name] = ",".join(map(str, item)) if isinstance(item, list) else item
    return flat


def _read_results(output_dir: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(output_dir.glob("*/result.json")):
        try:
            result = read_json(path)
        except (OSError, ValueError):
            continue
        if isinstance(result, dict):
            yield path.parent.name, result


def _row(paths: JobPaths, result: Mapping[str, Any]) -> Row:
    held_out = result.get("eval") or {}
    return Row(
        slug=paths.root.name,
        handles=" ".join(f"@{handle}" for handle in result["handles"]),
        kept=result["tweets"]["kept"],
        tokens=result["data"]["train_tokens"],
        steps=result["train"]["steps"],
        seconds=round(result["train"]["seconds"], 2),
        base=_rounded(held_out.get("base_bits_per_byte")),
        tuned=_rounded(held_out.get("bits_per_byte")),
        sample=_sample(paths.predictions),
        has_preview=paths.preview.exists(),
        has_report=paths.report.exists(),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _sample(path: Path) -> str:
    """Return the first sample of a job, or nothing."""
    try:
        with path.open(encoding="utf-8") as file:
            text = json.loads(file.readline())["prediction"]
    except (OSError, ValueError, KeyError):
        return ""
    return visible(text)[:SAMPLE_CHARS]


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows that may differ in their columns."""
    import pyarrow as pa  # heavy
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column(pa, [row.get(name) for row in rows]) for name in names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def _column(pa: Any, values: list[Any]) -> Any:
    """Return an Arrow array; numbers of both kinds become floats, any other mixture texts."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        values = [None if value is None else float(value) for value in values]
    elif len(kinds) > 1:
        values = [None if value is None else str(value) for value in values]
    return pa.array(values)
