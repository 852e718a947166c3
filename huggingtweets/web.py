"""One request to one server, bounded in time and size: posts, pictures and W&B are asked by it."""

import email.utils
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

if TYPE_CHECKING:
    import httpx

MAX_ANSWER_BYTES = 16 << 20
"""A page of 100 posts has less than one MiB."""
_CHUNK = 1 << 16  # bytes read at once: no more is held beyond a limit
MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RESET_HEADERS = ("x-rate-limit-reset", "x-ratelimit-reset", "ratelimit-reset")
_SECONDS = re.compile(r"[0-9]{1,12}")
_SOON = 10**9
"""Less is a number of seconds from now, more is a time since 1970."""
_RATE_LIMIT = re.compile(r"\br=0\b.*?\bt=(\d{1,12})|\bt=(\d{1,12})\b.*?\br=0\b")
"""Nothing remains, and the seconds until something does: as the Hub writes it."""


class FailedError(Exception):
    """One attempt that came to nothing, and how long the service asks us to wait."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class UntrustedError(Exception):
    """A server's certificate is not valid."""


def exchange(
    url: str,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    deadline_s: float,
    max_bytes: int = MAX_ANSWER_BYTES,
    body: bytes | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return status, headers (names in lower case) and the whole body.

    Redirects are answers like others.

    Args:
        url: nothing is checked about it.
        headers: to send.
        timeout_s: for connecting, and for every read.
        deadline_s: for the whole answer.
        max_bytes: of the body; a longer one is an error.
        body: to send by POST; None: GET.

    Raises:
        FailedError: no whole answer came, whatever came instead.
        UntrustedError: the certificate is not valid.
    """
    import httpx  # a tenth of a second: only where something is asked

    guard = _Guard(deadline_s)
    try:
        with guard, _client(url, timeout_s) as client:
            request = client.build_request(
                "GET" if body is None else "POST",
                url,
                headers=dict(headers),
                content=body,
                extensions={"trace": guard.see},
            )
            response = client.send(request, stream=True)
            received = {name.lower(): value for name, value in response.headers.items()}
            return response.status_code, received, _read(response, max_bytes)
    except FailedError:
        raise
    # h11 and the parsers of addresses and headers raise ValueErrors of their own.
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as err:
        for one in _causes(err):
            if isinstance(one, ssl.SSLCertVerificationError):
                raise UntrustedError(one.verify_message) from err
        is_late = isinstance(err, (httpx.TimeoutException, TimeoutError)) or guard.has_cut
        # The system's own name of a fault says more than a library's.
        names = [type(one).__name__ for one in _causes(err) if isinstance(one, OSError)]
        what = "no answer in time" if is_late else [type(err).__name__, *names][-1]
        raise FailedError(f"{what} ({ascii(str(err))[1:-1][:100]})") from err


def follow(
    url: str,
    headers: Mapping[str, str],
    *,
    allow: Callable[[SplitResult], None],
    timeout_s: float,
    deadline_s: float,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> tuple[int, dict[str, str], bytes]:
    """Ask by GET as `exchange` does, and go where redirects lead.

    Args:
        url: nothing is checked about it.
        headers: sent to every address.
        allow: raises for an address that is not to be asked; an empty one is none.
        timeout_s: as for `exchange`.
        deadline_s: for each answer on the way.
        max_bytes: of each.

    Raises:
        FailedError: no whole answer came, or too many redirects did.
        UntrustedError: a certificate is not valid.
    """
    for _ in range(MAX_REDIRECTS + 1):
        status, received, body = exchange(
            url, headers, timeout_s=timeout_s, deadline_s=deadline_s, max_bytes=max_bytes
        )
        if status not in _REDIRECTS:
            return status, received, body
        try:
            target = urlsplit(urljoin(url, received.get("location", "")))
        except ValueError:
            target = urlsplit("")
        allow(target)
        url = target.geturl()
    raise FailedError(f"it redirects more than {MAX_REDIRECTS} times")


def asked_wait_s(headers: Mapping[str, str], now: float) -> float:
    """Return how many seconds a service asks us to wait; 0 where it asks for nothing.

    Points in time are held against the server's own clock (`Date`), `now` being the fall-back.

    Args:
        headers: names in lower case.
        now: seconds since 1970.
    """
    server_now = _http_date(headers.get("date", ""))
    server_now = now if server_now is None else server_now
    after = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(after):
        return float(after)
    moment = _http_date(after)
    for name in _RESET_HEADERS:
        value = headers.get(name, "").strip()
        if moment is None and _SECONDS.fullmatch(value):
            moment = float(value) if float(value) > _SOON else server_now + float(value)
        elif moment is None and value:
            with suppress(ValueError, OverflowError):
                moment = datetime.fromisoformat(value).timestamp()
    if moment is None and (limit := _RATE_LIMIT.search(headers.get("ratelimit", "")[:1000])):
        return float(limit[1] or limit[2])
    return 0.0 if moment is None else max(0.0, moment - server_now)


def _http_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text[:64]).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


class _Guard:
    """Ends a connection from outside at its deadline.

    A server that sends a byte now and then meets every time-out but this one.
    """

    def __init__(self, deadline_s: float) -> None:
        self._sockets: list[Any] = []
        self.has_cut = False
        self._timer = threading.Timer(deadline_s, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def see(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of connections as they are made; httpcore calls this."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            found = info["return_value"].get_extra_info("socket")
            if found is not None:
                self._sockets.append(found)
                if self.has_cut:
                    self._cut()

    def _cut(self) -> None:
        self.has_cut = True
        for one in self._sockets:
            with suppress(OSError):
                # The plain socket's: that of TLS would pull the rug from under the reading thread.
                socket.socket.shutdown(one, socket.SHUT_RDWR)


def _client(url: str, timeout_s: float) -> "httpx.Client":
    """Make a client, with the environment's proxy for what is not on this machine."""
    import httpx

    is_safe = urlsplit(url).scheme == "https"
    return httpx.Client(
        # What the system trusts may be more than the list that httpx brings.
        verify=ssl.create_default_context() if is_safe else False,
        trust_env=is_safe,
        timeout=timeout_s,
        follow_redirects=False,
    )


def _read(response: "httpx.Response", max_bytes: int) -> bytes:
    """Read a whole body.

    Raises:
        FailedError: it is too long.
    """
    announced = response.headers.get("content-length", "")
    # 20 digits hold any honest size; int() of a thousand digits would take its time.
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise FailedError(f"got an answer of {announced[:20]} bytes")
    body = bytearray()
    for chunk in response.iter_raw(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise FailedError(f"got an answer of more than {max_bytes} bytes")
    return bytes(body)


def _causes(err: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, also what `from None` hides: there the system's is."""
    one: BaseException | None = err
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def answers(url: str, *, timeout_s: float) -> bool:
    """Whether a GraphQL server answers a question that needs no login; 5xx does not count."""
    question = json.dumps({"query": "query { __typename }"}).encode()
    try:
        status, _, _ = exchange(
            url,
            {"Content-Type": "application/json"},
            timeout_s=timeout_s,
            deadline_s=2 * timeout_s,
            body=question,
        )
    except UntrustedError:  # W&B has settings of its own for certificates
        return True
    except FailedError:
        return False
    return status < 500
