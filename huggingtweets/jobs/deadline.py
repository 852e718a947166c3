"""Whether another job can be finished before the machines have to be given back.

What a job takes is told from what the last ones took, by their estimated cost. Without any to tell
from a job is begun: somebody has to be the first.
"""

import os
import time
from collections import deque
from collections.abc import Mapping

NUM_MEASURED = 20
"""The next job takes as long as the slowest of this many before it: an early end costs a minute,
too late a start costs the job's whole work."""


class Deadline:
    """The time left and the pace of this process; threads may share it."""

    def __init__(self, ends_at: float | None, costs: Mapping[str, float]) -> None:
        """Measure nothing yet.

        Args:
            ends_at: when all should be finished, in seconds since the epoch; None: never.
            costs: estimated for each job by its slug, in any unit; 1 where nothing is known.
        """
        self._ends_at = ends_at
        self._costs = costs
        self._begun: dict[str, float] = {}
        self._rates: deque[float] = deque(maxlen=NUM_MEASURED)

    def begin(self, slug: str) -> None:
        """Start the clock of a job."""
        self._begun[slug] = time.monotonic()  # a clock that nobody sets

    def end(self, slug: str, *, is_done: bool = True) -> None:
        """Stop the clock of a job, if it was begun; one that failed says nothing of the others.

        Its clock has to be stopped all the same: what is under way counts as slow as it is so far.
        """
        begun = self._begun.pop(slug, None)
        if is_done and begun is not None:
            self._rates.append((time.monotonic() - begun) / self._costs.get(slug, 1.0))

    def allows(self, slug: str) -> bool:
        """Whether a job can be finished if it is begun now."""
        now = time.monotonic()
        running = list(self._begun.items())  # copied: other threads begin and end jobs
        # Those under way take at least what they have taken so far.
        so_far = [(now - since) / self._costs.get(other, 1.0) for other, since in running]
        rates = [*self._rates, *so_far]
        if self._ends_at is None or not rates:
            return True
        return time.time() + max(rates) * self._costs.get(slug, 1.0) <= self._ends_at


def own_deadline() -> float | None:
    """Return when a batch script wants everything finished; None where there is no such time."""
    text = os.environ.get("HUGGINGTWEETS_DONE_BY", "")
    return float(text) if text.isdecimal() else None
