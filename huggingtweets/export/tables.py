"""Results, or samples, of all finished jobs as one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingtweets.errors import ConfigError
from huggingtweets.export.finished import Finished
from huggingtweets.files import read_jsonl, write_bytes
from huggingtweets.publishing.index import build_table, flatten

KINDS = ("csv", "parquet")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def result_rows(jobs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return one row per job: all of result.json under dotted names."""
    return [flatten(job.result) for job in jobs]


def sample_rows(jobs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return one row per sample: slug, prompt, whole post."""
    rows = []
    for job in jobs:
        if not job.paths.predictions.is_file():
            continue
        for row in read_jsonl(job.paths.predictions):
            rows.append(
                {"slug": job.slug, "input": row["input"], "prediction": row["prediction"],
                 "synthetic": True}
            )  # fmt: skip
    return rows


def write_table(rows: Sequence[dict[str, Any]], path: Path, kind: str) -> None:
    """Write rows, which may differ in their columns, as CSV or Parquet.

    Raises:
        ConfigError: there are none.
    """
    if not rows:
        raise ConfigError(
            f"export {kind}: got no row; expected some; a run with sampling.num=0 has no samples"
        )
    import pyarrow as pa  # heavy
    import pyarrow.csv
    import pyarrow.parquet

    sink = pa.BufferOutputStream()
    if kind == "parquet":
        pa.parquet.write_table(build_table(rows), sink)
    else:
        # Text that a spreadsheet would take for a formula: hostile posts must not compute.
        safe = [{key: _plain(value) for key, value in row.items()} for row in rows]
        pa.csv.write_csv(build_table(safe), sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
