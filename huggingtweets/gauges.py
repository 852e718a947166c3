"""What this process is training right now, for whoever watches it from outside."""

import threading
import time
from dataclasses import dataclass

STALE_S = 600.0
"""A job that has logged nothing for so long is not counted as in training."""


@dataclass(frozen=True)
class Reading:
    """The gauges at one moment."""

    num_training: int
    """Jobs in training: slots in use, or 1."""
    tokens_per_s: float
    """Of all of them together."""
    since_step_s: float | None
    """Seconds since a step was last logged; None: none was."""


class Gauges:
    """Filled by the jobs' recorders; threads may share it."""

    def __init__(self) -> None:
        """Begin with nothing in training."""
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, float]] = {}
        self._last: float | None = None

    def saw_step(self, slug: str, tokens_per_s: float) -> None:
        """Take note of a logged step of a job."""
        with self._lock:
            self._last = time.monotonic()
            self._seen[slug] = (self._last, tokens_per_s)

    def ended(self, slug: str) -> None:
        """Take note that a job is no longer in training."""
        with self._lock:
            self._seen.pop(slug, None)

    def read(self) -> Reading:
        """Return how things stand."""
        now = time.monotonic()
        with self._lock:
            rates = [rate for seen, rate in self._seen.values() if now - seen < STALE_S]
            since = None if self._last is None else now - self._last
        return Reading(len(rates), sum(rates), since)


GAUGES = Gauges()
"""Of this process."""
