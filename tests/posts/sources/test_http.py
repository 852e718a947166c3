"""The HTTP layer against servers in trouble, and against servers that mean harm."""

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fake_services import TROUBLES, FakeService, quick, serving

from huggingtweets.errors import ConfigError, SourceError
from huggingtweets.posts.sources.http import Service, UnavailableError, check_base_url
from huggingtweets.web import asked_wait_s

PATH = "/api/v1/instance/rules"
RULES = [{"id": "1", "text": "Be kind."}]
NOW = 1_700_000_000.0


@pytest.fixture
def server() -> Iterator[FakeService]:
    with serving([]) as running:
        yield running


def first_times(trouble: str, times: int):
    left = [trouble] * times
    return lambda path: left.pop() if left else None


@pytest.mark.parametrize("trouble", [*TROUBLES, "drip"])
def test_one_trouble_after_another_is_sat_out(server: FakeService, trouble: str) -> None:
    server.trouble = first_times(trouble, 2)
    service = Service(server.url, patience=quick(deadline_s=0.5))
    answer = service.get(PATH, is_whole=lambda value: isinstance(value, list))
    assert (answer.status, answer.value) == (200, RULES)
    assert len(server.requests) == 3


@pytest.mark.parametrize("trouble", [*TROUBLES, "drip"])
def test_endless_trouble_is_one_sentence_and_soon(server: FakeService, trouble: str) -> None:
    server.trouble = lambda path: trouble
    service = Service(server.url, patience=quick(max_attempts=3, deadline_s=0.5))
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"^127.0.0.1:\d+: .*attempt 3.*run the same") as err:
        service.get(PATH, is_whole=lambda value: isinstance(value, list))
    assert time.monotonic() - start < 5
    assert str(err.value).isprintable()
    assert len(server.requests) == 3
    assert err.value.retryable


def test_a_refusal_is_an_answer(server: FakeService) -> None:
    answer = Service(server.url, patience=quick()).get("/nowhere")
    assert (answer.status, answer.is_ok) == (404, False)
    assert answer.complaint == "HTTP 404: 'nothing here'"


def test_nobody_at_the_address_is_one_sentence() -> None:
    with serving([]) as gone:
        url = gone.url
    with pytest.raises(UnavailableError, match="ConnectionRefusedError"):
        Service(url, patience=quick(max_attempts=2)).get("/")


# --- Waiting


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, 0),
        ({"retry-after": "17"}, 17),
        ({"retry-after": formatdate(NOW + 40, usegmt=True)}, 40),
        ({"x-rate-limit-reset": str(int(NOW) + 300)}, 300),
        ({"x-ratelimit-reset": "2023-11-14T22:15:20.000000Z"}, 120),
        ({"ratelimit-reset": "30"}, 30),
        ({"x-rate-limit-reset": str(int(NOW) - 300)}, 0),
        ({"retry-after": "soon", "x-rate-limit-reset": "9" * 5000}, 0),
        ({"retry-after": "-5"}, 0),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"ratelimit": '"api";t=55;r=0'}, 55),
        ({"ratelimit": '"api";r=12;t=55'}, 0),
        ({"ratelimit": "x"}, 0),
    ],
)
def test_waits_are_read_by_the_clock_of_the_server(headers: dict, wait_s: float) -> None:
    dated = headers | {"date": formatdate(NOW, usegmt=True)}
    for own_clock in (NOW, NOW - 7200, NOW + 7200):  # which may be hours off
        assert asked_wait_s(dated, own_clock) == wait_s
    assert asked_wait_s(headers, NOW) == wait_s


def test_a_rate_limit_is_waited_for_no_shorter_and_not_much_longer(server: FakeService) -> None:
    slept: list[float] = []
    server.trouble = first_times("429", 2)
    server.extra_headers = {
        "Date": formatdate(NOW, usegmt=True),
        "x-rate-limit-reset": str(int(NOW) + 500),
    }
    patience = quick(sleep=slept.append, clock=lambda: NOW - 5000)
    assert Service(server.url, patience=patience).get(PATH).value == RULES
    assert len(slept) == 2
    assert all(500 <= seconds < 503 for seconds in slept)


def test_whoever_asks_for_hours_is_not_waited_for(server: FakeService) -> None:
    server.trouble = lambda path: "429"
    server.extra_headers = {"Retry-After": "7200"}
    with pytest.raises(UnavailableError, match="asks to wait 7200 s"):
        Service(server.url, patience=quick()).get(PATH)
    assert len(server.requests) == 1


def test_waits_grow_and_differ(server: FakeService) -> None:
    slept: list[float] = []
    server.trouble = lambda path: "500"
    with pytest.raises(UnavailableError):
        Service(server.url, patience=quick(sleep=slept.append, max_attempts=10)).get(PATH)
    assert len(set(slept)) == 9
    assert all(0.5 * 2**n <= seconds <= 1.5 * 2**n for n, seconds in enumerate(slept[:6]))
    assert max(slept) <= 90


# --- Other hosts


class _Redirecting(BaseHTTPRequestHandler):
    location = ""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/end":
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")
            return
        self.send_response(302)
        self.send_header("Location", type(self).location)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def redirecting() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "location",
    ["https://example.com/", "//example.com/end", "http://127.0.0.1:1/end", "http://[", "file:///"],
)
def test_no_other_host_is_followed_to(redirecting: str, location: str) -> None:
    _Redirecting.location = location
    service = Service(redirecting, headers={"Authorization": "Bearer x"}, patience=quick())
    with pytest.raises(SourceError, match="got a redirect to"):
        service.get("/start")


def test_redirects_of_the_host_itself_are_followed_not_for_ever(redirecting: str) -> None:
    _Redirecting.location = "/end"
    assert Service(redirecting, patience=quick()).get("/start").value == []
    _Redirecting.location = "/start"
    with pytest.raises(UnavailableError, match="redirects more than 3 times"):
        Service(redirecting, patience=quick(max_attempts=1)).get("/start")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://user:secret@example.com",
        "https://example.com?x=1",
        "https://example.com#x",
        "https://exa mple.com",
        "https://example.com/\r\nX: y",
        "ftp://example.com",
        "example.com",
        "https://",
        "https://[",
        "http://localhost.example.com",
        "",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^source.api_url: got "):
        check_base_url(url)


@pytest.mark.parametrize(
    "url",
    ["https://api.x.com", "https://x.example/base/", "http://127.0.0.1:8080", "http://localhost:1",
     "http://[::1]:80"],
)  # fmt: skip
def test_addresses_that_are_taken(url: str) -> None:
    assert check_base_url(url).geturl() == url
