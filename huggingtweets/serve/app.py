"""The whole server: routes, and what stands before them — who may come in, and how often."""

import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from huggingtweets.errors import HuggingtweetsError
from huggingtweets.serve.api import Service, error_body, read_body
from huggingtweets.serve.engine import Engine
from huggingtweets.serve.limits import RETRY_S, UNABLE, Rate, RefusedError, ask_again
from huggingtweets.serve.metrics import Metrics
from huggingtweets.serve.pages import Pages
from huggingtweets.serve.people import People

logger = logging.getLogger(__name__)

COOKIE = "huggingtweets_session"
# Of --host, and of the Host header, where the address of IPv6 stands in brackets.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_OPEN_PATHS = ("/healthz", "/login", "/static/style.css")
_MAX_OPEN = 512
"""Requests under way at once, streams among them."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
}


@dataclass(frozen=True)
class Door:
    """Who may come in."""

    token: str | None
    """None: everybody who reaches the loopback address."""
    per_minute: int
    """POST requests of one address; 0: any number."""

    def knows(self, request: Request) -> bool:
        """Whether a request shows the token, as a header or by the cookie of a login.

        Compared in constant time: how long it takes tells nothing about the token.
        """
        if self.token is None:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode(), self.token.encode())
        cookie = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self.session.encode())

    @property
    def session(self) -> str:
        """What the cookie holds: not the token itself."""
        return hmac.new((self.token or "").encode(), b"session", hashlib.sha256).hexdigest()


def build_app(people: People, engine: Engine, metrics: Metrics, door: Door) -> ASGIApp:
    """Put the server together."""
    service = Service(people, engine, metrics)
    pages = Pages(people)

    async def login(request: Request) -> Response:
        if request.method == "GET" or door.token is None:
            return pages.render("login.html.jinja", wrong=False)
        form = parse_qs((await read_body(request)).decode("utf-8", "replace"), max_num_fields=5)
        given = form.get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), door.token.encode()):
            return pages.render("login.html.jinja", 401, wrong=True)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, door.session, httponly=True, samesite="strict", max_age=86400)
        return answer

    async def refused(request: Request, err: Exception) -> Response:
        assert isinstance(err, HTTPException)
        if not isinstance(err, RefusedError):  # of Starlette's own: no such address, or method
            message = f"{request.method}: there is nothing to do so here; expected another address"
            err = RefusedError(err.status_code, message, headers=err.headers)
        return _answer(request, err, pages)

    async def unable(request: Request, err: Exception) -> Response:
        logger.error("%s", err)  # it may name a path: for the log alone
        return _answer(request, RefusedError(503, UNABLE), pages)

    async def hung_up(request: Request, err: Exception) -> Response:
        # Nobody reads it; but without an answer Starlette would log a traceback.
        return Response(status_code=400)

    routes = [
        *service.routes(),
        *pages.routes(),
        Route("/login", login, methods=["GET", "POST"]),
        Mount("/static", StaticFiles(packages=[("huggingtweets.serve", "static")])),
    ]
    handlers = {HTTPException: refused, HuggingtweetsError: unable, ClientDisconnect: hung_up}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guarded(app, door, metrics, pages)


class Guarded:
    """Stands before all routes."""

    def __init__(self, app: ASGIApp, door: Door, metrics: Metrics, pages: Pages) -> None:
        """Hold the application."""
        self._app = app
        self._door = door
        self._metrics = metrics
        self._pages = pages
        self._rate = Rate(door.per_minute) if door.per_minute else None
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        self._num_open += 1
        try:
            refusal = self._refusal(request)
            answer = _answer(request, refusal, self._pages) if refusal else self._app
            await answer(scope, receive, send_with_headers)
        except Exception:
            if status:
                raise
            mark = secrets.token_hex(4)
            logger.exception("mark=%s an answer failed", mark)
            err = RefusedError(500, f"a bug of the server; please report mark {mark} of its log")
            await _answer(request, err, self._pages)(scope, receive, send_with_headers)
        finally:
            self._num_open -= 1
            self._metrics.answered(status)

    def _refusal(self, request: Request) -> RefusedError | None:
        """Return why a request is not let in; None: it is."""
        if self._num_open > _MAX_OPEN:
            message = f"the server: has {_MAX_OPEN} requests under way; expected fewer"
            return ask_again(message, RETRY_S, "too_many_open")
        # A page elsewhere could have its name point to this address and then read what it likes.
        host = request.headers.get("host", "").rpartition(":")
        name = host[0] if host[1] and host[2].isdecimal() else request.headers.get("host", "")
        if self._door.token is None and name.lower() not in LOOPBACK:
            return RefusedError(
                421, f"host: got {name[:60]!a}; expected 127.0.0.1 or localhost; open it by "
                "that name, or start the server with --token"
            )  # fmt: skip
        # Not the path of `request.url`, into which a Host header may put what it likes.
        if request.scope["path"] not in _OPEN_PATHS and not self._door.knows(request):
            return RefusedError(
                401, "authorization: got no valid token; expected `Authorization: Bearer TOKEN`; "
                "send it, or log in at /login", code="invalid_token",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        if self._rate is not None and request.method == "POST":
            client = request.client.host if request.client else ""
            wait = self._rate.wait_s(client)
            if wait:
                most = self._door.per_minute
                message = f"the rate: got more than {most} requests per minute; expected fewer"
                return ask_again(message, wait, "rate_limit_exceeded")
        return None


class _Error(JSONResponse):
    """What a stranger sent stands in it, so it is no page even where a client takes it for one."""

    def render(self, content: object) -> bytes:
        """Write `<`, which in JSON stands in strings alone, by its number."""
        return super().render(content).replace(b"<", rb"\u003c")


def _answer(request: Request, err: RefusedError, pages: Pages) -> Response:
    """Return an error: as JSON to clients of the API, as a page to people."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and not request.scope["path"].startswith("/v1/"):
        if err.status_code == 401:
            return RedirectResponse("/login", 303)
        page = pages.render("error.html.jinja", err.status_code, message=err.detail)
        page.headers.update(err.headers or {})
        return page
    return _Error(error_body(err), err.status_code, headers=err.headers)
