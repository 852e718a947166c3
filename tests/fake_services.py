"""X, Bluesky and Mastodon on loopback: real servers, real sockets, and all kinds of trouble."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from huggingtweets.posts.sources.http import Patience

DID = "did:plc:" + "a" * 24
TROUBLES = ("drop", "cut", "short", "long", "huge", "html", "empty", "500", "429", "503", "stall")
STALL_S = 0.6


def quick(**changes: Any) -> Patience:
    """Patience that takes no time."""
    usual: dict[str, Any] = {
        "max_attempts": 15,
        "timeout_s": 0.3,
        "sleep": lambda seconds: None,
        "rng": random.Random(0),
    }
    return Patience(**(usual | changes))


class FakeService(ThreadingHTTPServer):
    """All three services under one address, each with the same posts of Ann, newest first."""

    daemon_threads = True

    def __init__(self, texts: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.posts = [(1000 + number, text) for number, text in enumerate(texts)][::-1]
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.trouble: Callable[[str], str | None] = lambda path: None
        """What goes wrong with a request; None: nothing."""
        self.answers: dict[str, tuple[int, Any]] = {}
        """Other answers than usual, by path without query."""
        self.extra_headers: dict[str, str] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the game."""

    def disturb(self, frac: float, seed: int) -> None:
        """Let a share of all requests fail, each in one of the ways above."""
        rng, lock = random.Random(seed), threading.Lock()

        def trouble(path: str) -> str | None:
            with lock:
                return rng.choice(TROUBLES) if rng.random() < frac else None

        self.trouble = trouble

    def count(self, part: str) -> int:
        return sum(part in request for request in self.requests)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if path in self.answers:
            return *self.answers[path], {}
        if path.startswith("/2/users/by/username/"):
            metrics = {"tweet_count": len(self.posts)}
            return 200, {"data": {"id": "7", "name": "Ann A.", "public_metrics": metrics}}, {}
        if path == "/2/users/7/tweets":
            return 200, self._x_page(query), {}
        if path.endswith("actor.getProfile"):
            profile = {"did": DID, "displayName": "Ann A.", "postsCount": len(self.posts)}
            return 200, profile, {}
        if path.endswith("feed.getAuthorFeed"):
            return 200, self._bluesky_page(query), {}
        if path == "/api/v1/accounts/lookup":
            count = len(self.posts)
            return 200, {"id": "7", "display_name": "Ann A.", "statuses_count": count}, {}
        if path == "/api/v1/accounts/7/statuses":
            return self._mastodon_page(query)
        if path == "/api/v1/instance/rules":
            return 200, [{"id": "1", "text": "Be kind."}], {}
        return 404, {"error": "nothing here"}, {}

    def _newer(self, query: dict[str, str]) -> list[tuple[int, str]]:
        since = int(query.get("since_id", "0"))
        return [post for post in self.posts if post[0] > since]

    def _x_page(self, query: dict[str, str]) -> dict[str, Any]:
        posts = self._newer(query)
        start = int(query.get("pagination_token", "0"))
        end = start + int(query["max_results"])
        data = []
        for number, text in posts[start:end]:
            data.append({"id": str(number), "text": text, "created_at": _date(number)})
            if len(text) > 280:
                data[-1] |= {"text": text[:270] + "…", "note_tweet": {"text": text}}
        meta: dict[str, Any] = {"result_count": len(data)}
        meta |= {"next_token": str(end)} if end < len(posts) else {}
        return {"data": data, "meta": meta} if data else {"meta": meta}

    def _bluesky_page(self, query: dict[str, str]) -> dict[str, Any]:
        start = int(query.get("cursor", "0"))
        end = start + int(query["limit"])
        feed = [_bluesky_item(number, text) for number, text in self.posts[start:end]]
        feed.insert(1, _bluesky_item(5, "somebody else's", did="did:plc:" + "b" * 24))
        return {"feed": feed} | ({"cursor": str(end)} if end < len(self.posts) else {})

    def _mastodon_page(self, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        oldest = int(query.get("max_id", str(10**9)))
        posts = [post for post in self._newer(query) if post[0] < oldest]
        page = posts[: int(query["limit"])]
        statuses = [
            {
                "id": str(number),
                "created_at": _date(number),
                "visibility": "public",
                "account": {"id": "7"},
                "reblog": None,
                "content": "<p>" + text.replace("&", "&amp;").replace("<", "&lt;") + "</p>",
            }
            for number, text in page
        ]
        if len(page) == len(posts):
            return 200, statuses, {}
        link = f'<{self.url}/api/v1/accounts/7/statuses?max_id={page[-1][0]}>; rel="next", <x>; x'
        return 200, statuses, {"Link": link}


def _date(number: int) -> str:
    return f"2024-01-{1 + number // 86400 % 28:02}T{number // 3600 % 24:02}:00:00.000Z"


def _bluesky_item(number: int, text: str, did: str = DID) -> dict[str, Any]:
    handle = "ann.bsky.social" if did == DID else "bob.bsky.social"
    return {
        "post": {
            "uri": f"at://{did}/app.bsky.feed.post/{number}",
            "author": {"did": did, "handle": handle},
            "record": {"text": text, "createdAt": _date(number)},
        }
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeService

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.requests.append(self.path)
        self.server.headers.append(dict(self.headers))
        self.close_connection = True
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        status, value, headers = self.server.answer(url.path, query)
        body = json.dumps(value).encode()
        self.reply(self.server.trouble(self.path), status, body, headers)

    def reply(self, trouble: str | None, status: int, body: bytes, headers: dict[str, str]) -> None:
        length = len(body)
        match trouble:
            case "drop":
                return
            case "stall":
                time.sleep(STALL_S)
                return
            case "drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                for _ in range(100):
                    time.sleep(0.05)
                    self.wfile.write(b"X")
                    self.wfile.flush()
                return
            case "400" | "500" | "503" | "429":
                status, body = int(trouble), b"sorry"
                length = len(body)
            case "cut":
                body = body[: length // 2]
            case "short":
                length = max(1, length // 2)
            case "long":
                length += 1000
            case "huge":
                length = 10**13
            case "html":
                body = b"<html>come back later</html>"
                length = len(body)
            case "empty":
                body, length = b'"nothing"', 9
        self.send_response_only(status)
        if "Date" not in self.server.extra_headers:
            self.send_header("Date", formatdate(usegmt=True))
        for name, text in (headers | self.server.extra_headers).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(texts: list[str]) -> Iterator[FakeService]:
    """Run the services until the block ends."""
    server = FakeService(texts)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
