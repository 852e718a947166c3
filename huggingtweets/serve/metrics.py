"""What has happened since the start, in the text format of Prometheus."""

import threading
import time
from collections import Counter
from collections.abc import Mapping

_FIRST_TOKEN_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts; any thread may call."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._started = time.time()
        self._answers: Counter[int] = Counter()
        self._refusals: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._first_token: Counter[float] = Counter()
        self._first_token_sum = 0.0

    def answered(self, status: int) -> None:
        """Count an answer."""
        with self._lock:
            self._answers[status] += 1

    def refused(self, reason: str) -> None:
        """Count a post that the guards refused."""
        with self._lock:
            self._refusals[reason] += 1

    def stepped(self, num_tokens: int, seconds: float) -> None:
        """Count a step of decoding."""
        with self._lock:
            self._counts["steps"] += 1
            self._counts["row_steps"] += num_tokens
            self._seconds += seconds

    def shown(self, num_tokens: int) -> None:
        """Count a post that was sent, of so many tokens."""
        with self._lock:
            self._counts["posts"] += 1
            self._counts["tokens"] += num_tokens

    def hung_up(self) -> None:
        """Count a client that left before all posts it asked for were sent."""
        with self._lock:
            self._counts["hang_ups"] += 1

    def first_token(self, seconds: float) -> None:
        """Count how long the first text of a streamed answer took."""
        with self._lock:
            self._first_token_sum += seconds
            self._counts["first_tokens"] += 1
            for bound in _FIRST_TOKEN_S:
                self._first_token[bound] += seconds <= bound

    def render(self, gauges: Mapping[str, float]) -> str:
        """Return all figures. No name of a person is among them."""
        with self._lock:
            lines = _metric("uptime_seconds", "gauge", {"": time.time() - self._started})
            for name, value in gauges.items():
                kind = "counter" if name.endswith("_total") else "gauge"
                lines += _metric(name, kind, {"": value})
            answers = {f'{{status="{status}"}}': n for status, n in sorted(self._answers.items())}
            lines += _metric("answers_total", "counter", answers)
            reasons = {f'{{reason="{reason}"}}': n for reason, n in sorted(self._refusals.items())}
            lines += _metric("refused_posts_total", "counter", reasons)
            for name in ("posts", "tokens", "steps", "row_steps", "hang_ups"):
                lines += _metric(f"{name}_total", "counter", {"": self._counts[name]})
            lines += _metric("decoding_seconds_total", "counter", {"": self._seconds})
            count = self._counts["first_tokens"]
            buckets: dict[str, float] = {
                f'_bucket{{le="{bound:g}"}}': self._first_token[bound] for bound in _FIRST_TOKEN_S
            }
            buckets |= {'_bucket{le="+Inf"}': count, "_count": count}
            buckets["_sum"] = self._first_token_sum
            lines += _metric("first_token_seconds", "histogram", buckets)
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, values: Mapping[str, float]) -> list[str]:
    name = f"huggingtweets_{name}"
    return [f"# TYPE {name} {kind}", *(f"{name}{end} {value!r}" for end, value in values.items())]
