"""What a request may ask for, and how often somebody may ask. Each limit has its sentence."""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

MAX_BODY_BYTES = 64 * 1024
MAX_PROMPT_CHARS = 2000
MAX_NUM = 16
MAX_TOKENS = 256
MAX_STOPS = 4
MAX_STOP_CHARS = 64
RETRY_S = 5
"""What is full now may have room by then."""
UNABLE = (
    "the server: cannot tell now who wants no model; expected a list of them that can be read; see "
    "its log"
)
MAX_CLIENTS = 10_000
"""Addresses whose rate is remembered; the one heard of least recently is forgotten."""


class RefusedError(HTTPException):
    """A request that cannot be served as it is: status, sentence, and the key it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Hold what the client is told."""
        super().__init__(status, message, headers)
        self.param = param
        self.code = code


def ask_again(message: str, wait_s: float, code: str) -> RefusedError:
    """Return the refusal of what will be served later, with the same wait for both its readers."""
    wait = max(1, math.ceil(wait_s))
    return RefusedError(
        429, f"{message}; ask again in {wait} s", code=code, headers={"retry-after": str(wait)}
    )


@dataclass(frozen=True)
class Asked:
    """A completion as it was asked for, checked. None: as the person's job samples."""

    model: str
    prompt: str
    num: int
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    stops: tuple[str, ...]
    seed: int | None
    is_streamed: bool
    has_usage: bool
    """Whether a stream ends with the counts of tokens."""


_REFUSED: dict[str, tuple[Any, ...]] = {
    "echo": (False, None),
    "logprobs": (None,),
    "suffix": (None, ""),
    "best_of": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
}
"""Keys of the API that we do not serve, and the values that ask for nothing; `logprobs: 0` asks
for those of the drawn tokens."""
_KNOWN = {"model", "prompt", "n", "max_tokens", "temperature", "top_p", "stop", "seed", "stream",
          "stream_options", "user", *_REFUSED}  # fmt: skip


def parse_completion(body: Any) -> Asked:
    """Check a completion request.

    Raises:
        RefusedError: one sentence naming the key.
    """
    if not isinstance(body, dict):
        raise _bad("the body", body, "a JSON object", "send one with model and prompt")
    for key in body:
        if key not in _KNOWN:
            raise RefusedError(
                400, f"{_shown(key)}: is not a known key; expected some of "
                f"{', '.join(sorted(_KNOWN))}; leave it out", param=ascii(key)[1:-1][:60],
            )  # fmt: skip
    for key, harmless in _REFUSED.items():
        if key in body and body[key] not in harmless:
            raise _bad(key, body[key], "none: this server does not do it", "leave it out")
    stops = body.get("stop")
    stops = [stops] if isinstance(stops, str) else [] if stops is None else stops
    is_fine = isinstance(stops, list) and len(stops) <= MAX_STOPS
    if not is_fine or not all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_CHARS for s in stops):
        wanted = f"at most {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters"
        raise _bad("stop", body["stop"], wanted, "shorten it")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _bad("stream_options", options, "an object", "leave it out")
    is_streamed = body.get("stream")
    if is_streamed is not None and not isinstance(is_streamed, bool):
        raise _bad("stream", is_streamed, "true or false", "send one")
    prompt = body.get("prompt", "")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT_CHARS:
        wanted = f"one text of at most {MAX_PROMPT_CHARS} characters"
        raise _bad("prompt", prompt, wanted, "send a shorter one")
    if "\n" in prompt or "\r" in prompt:
        raise _bad("prompt", prompt, "one line, as posts are", "leave line breaks out")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise _bad("model", body.get("model"), "the name of a model", "see GET /v1/models")
    return Asked(
        model=body["model"],
        prompt=prompt,
        num=_number(body, "n", 1, MAX_NUM, is_whole=True) or 1,
        max_tokens=_number(body, "max_tokens", 1, MAX_TOKENS, is_whole=True),
        temperature=_number(body, "temperature", 0, 5),
        top_p=_number(body, "top_p", 0, 1),
        stops=tuple(stops),
        seed=_number(body, "seed", -(2**63), 2**63 - 1, is_whole=True),
        is_streamed=bool(is_streamed),
        has_usage=options.get("include_usage") is True,
    )


def _number(
    body: Mapping[str, Any], key: str, least: int, most: int, *, is_whole: bool = False
) -> Any:
    """Return a number within its bounds; None: it was left out."""
    value = body.get(key)
    if value is None:
        return None
    # `True` is an int to Python, and `not` of the range refuses NaN too.
    is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        kind = "a whole number" if is_whole else "a number"
        raise _bad(key, value, f"{kind} from {least} to {most}", "send one")
    return value if is_whole else float(value)


def _bad(key: str, value: Any, expected: str, do: str) -> RefusedError:
    message = f"{key}: got {_shown(value)}; expected {expected}; {do}"
    return RefusedError(400, message, param=key if key in _KNOWN else None)


def _shown(value: Any) -> str:
    """Write what was sent in a few plain characters; `ascii` so that it cannot disguise itself."""
    text = "nothing" if value is None else ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Rate:
    """This many requests per minute for each client, a whole minute's worth of them at once.

    The event loop alone asks.
    """

    def __init__(self, per_minute: int) -> None:
        """Start with everybody's bucket full."""
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Take one request from a client's bucket; return the seconds to wait when it is empty."""
        now = time.monotonic()
        refill = self._per_minute / 60
        tokens, at = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - at) * refill)
        is_let = tokens >= 1
        self._buckets[client] = (tokens - 1 if is_let else tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if is_let else (1 - tokens) / refill
