"""How a sweep stands, for people and scripts."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from huggingtweets.publishing.pages import build_table
from huggingtweets.storage.files import read_json
from huggingtweets.sweep.charts import shown
from huggingtweets.sweep.study import load_study
from huggingtweets.sweep.summary import SweepSummary, TrialRow, summarise_sweep

NUM_SHOWN = 10


def read_sweep(root: Path) -> tuple[Mapping[str, Any], SweepSummary]:
    """Return what a sweep is, and how it stands.

    Raises:
        ConfigError: the folder holds no sweep.
    """
    study = load_study(root)
    description: dict[str, Any] = {"trials": 0, "objective": ["objective"]}
    with suppress(OSError, ValueError):  # not written yet
        description |= read_json(root / "sweep.json")
    return description, summarise_sweep(study, description["objective"])


def sweep_as_json(
    root: Path, description: Mapping[str, Any], summary: SweepSummary
) -> dict[str, Any]:
    """Return what `sweep status --json` prints."""
    return {
        **description,
        "counts": dict(summary.counts),
        "saved_frac": summary.saved_frac,
        "best": list(summary.best),
        "default": summary.default.number if summary.default else None,
        "importances": dict(summary.importances),
        "best_config": str(root / "best.yaml") if summary.best else None,
        "rows": [_plain(row) for row in summary.rows],
    }


def _plain(row: TrialRow) -> dict[str, Any]:
    plain = asdict(row)
    del plain["started"], plain["ended"]  # JSON has no times
    return plain | {key: getattr(row, key) for key in ("steps", "planned_steps", "seconds")}


def build_sweep_status(
    root: Path, description: Mapping[str, Any], summary: SweepSummary
) -> RenderableType:
    """Return counts, the best trials, and where to read on."""
    counts = summary.counts
    ended = sum(counts.get(state, 0) for state in ("complete", "pruned", "fail"))
    parts = [f"{ended} of {description['trials'] or ended} trials"]
    parts += [f"{count} {state}" for state, count in sorted(counts.items())]
    if summary.saved_frac > 0.005:
        parts.append(f"{summary.saved_frac:.0%} of the steps spared")
    shown: list[RenderableType] = [" · ".join(parts)]
    done = sorted((row for row in summary.rows if row.values), key=lambda row: row.values)
    first = [summary.row(number) for number in summary.best]
    rows = [*first, *(row for row in done if row not in first)][:NUM_SHOWN]
    if summary.default and summary.default not in rows:
        rows.append(summary.default)
    if rows:
        shown.append(_table(rows, summary.names))
    if said := won(summary):
        shown.append(escape(said))
    failed = [row for row in summary.rows if row.state == "fail"]
    shown += [escape(f"trial {row.number} failed: {row.reason}") for row in failed[:3]]
    if summary.best:
        shown.append(escape(f"report: {root.resolve() / 'report.html'}"))
        shown.append(escape(f"train the best: {best_command(root)}"))
    return Group(*shown)


def best_command(root: Path) -> str:
    """Return the command that trains the best configuration in full, from any folder."""
    words = ["huggingtweets", "train", f"--config-path={root.resolve()}", "--config-name=best"]
    return shlex.join(words)


def won(summary: SweepSummary) -> str | None:
    """Say what the search won over the settings as they stand; None: there is nothing to say."""
    default = summary.default
    if default is None or not summary.best:
        return None
    if not default.values:
        return f"the default, trial {default.number}, did not run whole: {default.reason}"
    best = summary.row(summary.best[0])
    if best.number == default.number:
        return f"nothing beat the default, trial {default.number}"
    name, before, after = summary.names[0], default.values[0], best.values[0]
    share = f" ({after / before - 1:+.2%})" if before > 0 else ""
    return f"the best has {name} {after:.4f}, the default {before:.4f}{share}"


def _table(rows: list[TrialRow], names: tuple[str, ...]) -> Table:
    keys = list(rows[0].params)
    cells = []
    for row in rows:
        number = f"{row.number} (default)" if row.is_default else str(row.number)
        values = [f"{value:.4f}" for value in row.values] or [row.state for _ in names]
        params = [shown(row.params.get(key)) for key in keys]
        cells.append((number, *values, *params, f"{row.steps:,}"))
    return build_table("Best trials", ("trial", *names, *keys, "steps"), cells)
