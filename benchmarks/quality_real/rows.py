"""What was found, one JSON line per finished run: kept at once, so that any command goes on."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quality_real.plan import Row, Run, Words

RecipeOf = Callable[[Words], dict[str, Any]]


class Rows:
    """The file of rows. A row counts only for the recipe that its words mean today."""

    def __init__(self, path: Path, recipe_of: RecipeOf, published: Path | None = None) -> None:
        """Read what is there; a last line that was cut off is passed over.

        Args:
            path: of the file, made with its folder when the first row is added.
            recipe_of: what overrides are composed to.
            published: file of rows that somebody else measured; a row of one's own counts more.
        """
        self._path = path
        self._recipe_of = recipe_of
        self.all: list[Row] = []
        files = [file for file in (published, path) if file is not None and file.exists()]
        for line in (line for file in files for line in file.read_text("utf-8").splitlines()):
            try:
                self.all.append(json.loads(line))
            except ValueError:
                continue
        self._by_key = {_key(row["run"]): row for row in self.all if self._is_current(row)}

    def row(self, run: Run) -> Row | None:
        """Return the row of a run; None where it is yet to be done."""
        return self._by_key.get(_key(asdict(run)))

    def of(self, runs: Sequence[Run]) -> list[Row]:
        """Return the rows of runs that were done, in their order."""
        return [row for run in runs if (row := self.row(run))]

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs that are yet to be done."""
        return [run for run in runs if self.row(run) is None]

    def add(self, run: Run, found: Row) -> None:
        """Keep what came of a run."""
        row = {"run": asdict(run), "recipe": self._recipe_of(run.words), **found}
        row = json.loads(json.dumps(row))  # as it will be read
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_cut = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" * is_cut + json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.all.append(row)
        self._by_key[_key(row["run"])] = row

    def settings(self, step: str) -> dict[str, list[Row]]:
        """Return the rows of a step by setting, in the order in which they were done."""
        found: dict[str, list[Row]] = {}
        for row in self._by_key.values():
            if row["run"]["step"] == step:
                found.setdefault(row["run"]["setting"], []).append(row)
        return found

    def _is_current(self, row: Row) -> bool:
        return bool(row["recipe"] == self._recipe_of(tuple(row["run"]["words"])))


def _key(run: dict[str, Any]) -> str:
    """Return what tells runs apart; what a run of before had no field for is as by default."""
    known = asdict(Run("", "", (), "", 0, 0)) | run
    return json.dumps(known, sort_keys=True)
