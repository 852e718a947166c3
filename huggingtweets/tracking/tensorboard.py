"""TensorBoard event files in the job's folder."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from huggingtweets.tracking.base import Phase, Tracker, without_secrets

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


logger = logging.getLogger(__name__)


class TensorBoardTracker(Tracker):
    """Writes `<folder>/<phase>/events...`; look at it with `tensorboard --logdir <output_dir>`.

    A disk that is full or fails costs the rest of the phase, and a warning.
    """

    def __init__(self, folder: Path) -> None:
        """Open nothing yet."""
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def start_phase(self, phase: Phase, config: Mapping[str, Any]) -> None:
        """Open the files of a phase and write its hyperparameters as text."""
        from torch.utils.tensorboard import SummaryWriter  # heavy, and an extra

        def begin() -> None:
            self._writer = SummaryWriter(str(self._folder / phase))
            self._writer.add_text("config", _code(yaml.safe_dump(without_secrets(config))))

        self._close()
        self._try(begin)

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int) -> None:
        """Write one point a figure."""
        for name, value in metrics.items():
            if value is not None and (writer := self._writer) is not None:
                self._try(partial(writer.add_scalar, name, value, step))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table as text."""
        if (writer := self._writer) is not None:
            lines = ["\t".join(map(str, row)) for row in [columns, *rows]]
            self._try(partial(writer.add_text, name, _code("\n".join(lines))))

    def finish(self, *, succeeded: bool = True) -> None:
        """Write out and close."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._try(self._writer.close)
            self._writer = None

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as err:
            logger.warning("%s: is not written any further (%s)", self._folder, err)
            self._writer = None


def _code(text: str) -> str:
    """Markdown that shows a text as it is."""
    return "".join(f"    {line}\n" for line in text.splitlines())
