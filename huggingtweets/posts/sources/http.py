"""GET JSON from one service: patient with a bad network, strict with what comes back.

Knows nothing of posts; what a page means, the sources say.
"""

import ipaddress
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from huggingtweets.errors import ConfigError, SourceError
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.reading.json_values import dig_text, parse_json
from huggingtweets.web import FailedError, UntrustedError, asked_wait_s, follow

logger = logging.getLogger(__name__)

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]{1,260}(?:/[A-Za-z0-9._~%/-]{0,500})?")


class UnavailableError(SourceError):
    """A service did not answer as it should, however patient we were; later it may."""

    retryable = True


@dataclass(frozen=True)
class Patience:
    """How long to go on with a service that does not answer as it should; times in seconds."""

    max_attempts: int = 7
    first_wait_s: float = 1.0
    """Doubles with every attempt, spread by half."""
    max_backoff_s: float = 60.0
    max_asked_wait_s: float = 960.0
    """The longest wait that a service may ask for: X counts requests by quarters of an hour."""
    timeout_s: float = 30.0
    """For connecting, and for every read."""
    deadline_s: float = 120.0
    """For one whole answer."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    """Seconds since 1970; used only where the server does not send its own."""
    rng: random.Random = field(default_factory=random.Random)


@dataclass(frozen=True)
class Answer:
    """What a service said, once it said something definite: no answer of 429 or 5xx is."""

    status: int
    value: Any
    """The JSON; None for an answer other than 2xx that is none."""
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def is_ok(self) -> bool:
        """Whether what was asked for is there."""
        return 200 <= self.status < 300

    @property
    def complaint(self) -> str:
        """The service's own words about a refusal, quoted; at least the status."""
        for key in ("detail", "error_description", "message", "error", "title"):
            if (said := dig_text(self.value, key)) is not None:
                return f"HTTP {self.status}: {show(said, 160)}"
        return f"HTTP {self.status}"


class Service:
    """One host that is asked for JSON. Holds no connection."""

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Take note of where to ask.

        Args:
            base_url: all paths are below it.
            headers: sent with every request, to this host alone.
            patience: None: the usual.

        Raises:
            ConfigError: `base_url` is no https address (http is for this machine only).
        """
        self._base = check_base_url(base_url)
        self._patience = patience or Patience()
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "huggingtweets",
            **(headers or {}),
        }

    @property
    def host(self) -> str:
        """Host, with its port where there is one."""
        return self._base.netloc

    def get(
        self,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        is_whole: Callable[[Any], bool] = lambda value: True,
    ) -> Answer:
        """Ask until there is a definite answer.

        Args:
            path: begins with `/`; quoted already.
            params: the query.
            is_whole: whether JSON that came with 2xx is what was to be expected; if not, the
                question is asked again.

        Raises:
            UnavailableError: no definite answer came.
            SourceError: the service sends us to another host, or its certificate is wrong.
        """
        try:
            query = f"?{urlencode(params)}" if params else ""
        except UnicodeEncodeError as err:  # a lone surrogate, which no address can hold
            said = show(str(params))
            raise SourceError(f"{self.host}: got a question that is not text: {said}") from err
        url = self._base._replace(path=self._base.path.rstrip("/") + path)
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._attempt(url.geturl() + query, is_whole)
            except FailedError as err:
                self._wait(err, attempt)

    def _wait(self, err: FailedError, attempt: int) -> None:
        patience = self._patience
        if attempt >= patience.max_attempts or err.wait_s > patience.max_asked_wait_s:
            asks = f" and asks to wait {err.wait_s:.0f} s" if err.wait_s else ""
            raise UnavailableError(
                f"{self.host}: {err} (attempt {attempt}){asks}; expected an answer; "
                "run the same command again later, it goes on where it stopped"
            ) from None
        backoff_s = min(patience.max_backoff_s, patience.first_wait_s * 2.0 ** (attempt - 1))
        # Never earlier than asked; spread, as many jobs must not come back at once.
        wait_s = max(err.wait_s, backoff_s / 2) + patience.rng.random() * backoff_s
        logger.warning("%s: %s; attempt=%d wait_s=%.1f", self.host, err, attempt + 1, wait_s)
        patience.sleep(wait_s)

    def _attempt(self, url: str, is_whole: Callable[[Any], bool]) -> Answer:
        """Ask once, following the redirects of this host."""
        try:
            status, headers, body = follow(
                url,
                self._headers,
                allow=self._allow,
                timeout_s=self._patience.timeout_s,
                deadline_s=self._patience.deadline_s,
            )
        except UntrustedError as err:
            raise SourceError(
                f"{self.host}: its certificate is not valid ({show(str(err), 120)}); expected "
                "one this machine trusts; check source.api_url and the clock"
            ) from err
        if status in _TRY_AGAIN:
            wait_s = asked_wait_s(headers, self._patience.clock())
            raise FailedError(f"got HTTP {status}", wait_s)
        try:
            value = parse_json(body.decode("utf-8"))
        except ValueError:
            if 200 <= status < 300:
                raise FailedError("got an answer that is not JSON or is cut off") from None
            value = None
        answer = Answer(status, value, headers)
        if answer.is_ok and not is_whole(value):
            raise FailedError("got an answer of another form")
        return answer

    def _allow(self, target: SplitResult) -> None:
        if (target.scheme, target.netloc) != (self._base.scheme, self._base.netloc):
            raise SourceError(
                f"{self.host}: got a redirect to {show(target.geturl())}; expected answers from "
                "this host alone; set source.api_url to the service's own address"
            )


def check_base_url(text: str) -> SplitResult:
    """Return an address that may be asked: https, or http on this very machine.

    Raises:
        ConfigError: it is something else.
    """
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
        is_good = bool(_PLAIN_URL.fullmatch(text) and host)
    except ValueError:
        is_good = False
    if not is_good or (url.scheme == "http" and not _is_loopback(host or "")):
        raise ConfigError(
            f"source.api_url: got {show(text)}; expected https://HOST, or http:// on this machine, "
            "without name, password and query; leave it out for the service's own address"
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
