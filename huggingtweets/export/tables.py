"""Results, or samples, of all finished jobs as one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingtweets.errors import ConfigError
from huggingtweets.export.finished import Finished
from huggingtweets.publishing.index import flat_result, write_csv, write_parquet
from huggingtweets.storage.files import read_jsonl


def result_rows(jobs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return one row per job: all of result.json under dotted names."""
    return [flat_result(job.result) for job in jobs]


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
    (write_parquet if kind == "parquet" else write_csv)(path, rows)
