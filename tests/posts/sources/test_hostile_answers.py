"""Two hundred answers that no service should give: each is posts or one sentence, never more."""

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_services import DID, quick

from huggingtweets.config.posts_schema import SourceConfig, SourceKind, Terms
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.load import fetch_timeline

NUM_ANSWERS = 200
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**70, 1e308, "", "\ud800", "\u202e\x1b[31m", "\u30007", "x" * 9000, [], {},
    [None], [[]], {"": None}, "did:plc:" + "a" * 24, "2024-13-45", "<http://[::1?max_id=5>",
)  # fmt: skip
LOCATIONS = (
    "/xrpc/\u00e9",
    "file:///etc/passwd",
    "http://[::1",
    "//",
    "http://x@127.0.0.1/",
    "\x01",
)
LINKS = ('<http://[::1?max_id=5>; rel="next"', "<>", '<x?max_id=\u00e9>; rel="next"', "<" * 5000)


class Answers(BaseHTTPRequestHandler):
    rng = random.Random(0)

    def do_GET(self) -> None:
        rng = type(self).rng
        kind = rng.randrange(12)
        body = json.dumps(hostile(rng, well_formed(self.path))).encode()
        if kind == 0:
            self.wfile.write(rng.choice((b"", b"\x00", b"HTTP/1.1 99999 x\r\n\r\n", b"HTTP/9 200")))
            return
        if kind == 1:
            self.head(302, {"Location": rng.choice(LOCATIONS), "Content-Length": "0"})
            return
        if kind == 2:
            self.head(200, {"Transfer-Encoding": "chunked"})
            self.wfile.write(rng.choice((b"-5\r\nx\r\n", b"zz\r\n", b"FFFFFFFFFFFFFFFFFF\r\n")))
            return
        if kind == 3:
            length = rng.choice(("-1", "x", "99999999999999999999", str(len(body) + 9)))
            self.head(200, {"Content-Length": length})
            self.wfile.write(body)
            return
        if kind == 4:
            body = rng.choice((b"[" * 100_000, b"\xff\xfe", b"{", b'{"a": 1e999}', b"nul"))
        status = rng.choice((200, 200, 200, 200, 400, 404, 401, 299))
        self.head(status, {"Content-Length": str(len(body)), "Link": rng.choice(LINKS)})
        self.wfile.write(body)

    def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write(("\r\n".join(lines) + "\r\nConnection: close\r\n\r\n").encode())
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


def well_formed(path: str) -> Any:
    """What the service would say."""
    post = {"uri": "at://x/1", "author": {"did": DID}, "record": {"text": "a post of mine"}}
    if "getProfile" in path:
        return {"did": DID, "displayName": "Ann", "postsCount": 3, "labels": []}
    if "getAuthorFeed" in path:
        return {"feed": [{"post": post}] * 3, "cursor": "c"}
    if "getRecord" in path:
        return {"value": {"preferences": {"training": {"allow": True}}}}
    if "lookup" in path:
        return {"id": "7", "display_name": "Ann", "statuses_count": 3}
    if "statuses" in path:
        return [{"id": "1", "content": "<p>a post</p>", "account": {"id": "7"}}] * 3
    if "instance" in path:
        return [{"id": "1", "text": "Be kind"}]
    if "username" in path:
        return {"data": {"id": "5", "name": "Ann", "public_metrics": {"tweet_count": 3}}}
    return {"data": [{"id": "1", "text": "a post"}], "meta": {"next_token": "t"}}


def hostile(rng: random.Random, value: Any) -> Any:
    """Change a few places of an answer."""
    for _ in range(rng.randrange(3)):
        at = value
        while isinstance(at, dict | list) and at:
            key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.3:
                at[key] = rng.choice(VALUES)
                break
            at = at[key]
    return rng.choice(VALUES) if rng.random() < 0.05 else value


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_every_malformed_answer_is_one_sentence(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X_BEARER_TOKEN", "A" * 40)
    kinds = (SourceKind.bluesky, SourceKind.mastodon, SourceKind.x_api)
    outcomes = []
    for number in range(NUM_ANSWERS):
        monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path / str(number % 7)))
        Answers.rng = random.Random(number)
        kind = kinds[number % 3]
        config = SourceConfig(kind=kind, api_url=url, terms=Terms.accepted, max_cost_usd=1e9)
        handle = "ann" if kind is SourceKind.x_api else "ann.example.org"
        patience = quick(max_attempts=2, deadline_s=3.0, timeout_s=1.0)
        try:
            timeline = fetch_timeline(config, handle, patience=patience)
            assert isinstance(timeline, Timeline)
            outcomes.append("posts")
        except HuggingtweetsError as err:
            outcomes.append(str(err))
    sentences = "".join(outcomes)
    assert "\x1b" not in sentences
    assert "\u202e" not in sentences
    assert 5 < outcomes.count("posts") < NUM_ANSWERS - 30
