"""The API, in the shape that clients of large providers speak: models and completions."""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from huggingtweets.evaluation.memorisation import COPIED_WORDS
from huggingtweets.serve.engine import Engine, QueueFullError
from huggingtweets.serve.limits import (
    MAX_BODY_BYTES,
    MAX_TOKENS,
    RETRY_S,
    Asked,
    RefusedError,
    ask_again,
    parse_completion,
)
from huggingtweets.serve.metrics import Metrics
from huggingtweets.serve.people import People, Person
from huggingtweets.serve.rows import Event, PostsRequest, Wanted
from huggingtweets.serve.voices import Voice

logger = logging.getLogger(__name__)

SYNTHETIC = {"x-synthetic": "true"}
"""On every answer that holds what a machine wrote."""
BODY_S = 15.0
"""Within this many seconds a body has to be there."""
NOTICE = "Written by a machine that imitates this person; it is synthetic, not the person's words."


@dataclass(frozen=True)
class Service:
    """What the routes use."""

    people: People
    engine: Engine
    metrics: Metrics

    def routes(self) -> list[Route]:
        """Return the routes of the API."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{model:path}", self.model),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["GET", "POST"]),
            Route("/healthz", self.health),
            Route("/metrics", self.figures),
        ]

    async def models(self, request: Request) -> Response:
        """List everybody; listing folders may wait for a disk."""
        people = await asyncio.to_thread(self.people.all)
        return JSONResponse({"object": "list", "data": [_model(person) for person in people]})

    async def model(self, request: Request) -> Response:
        """Show one model."""
        person = await find_person(self.people, request.path_params["model"])
        return JSONResponse(_model(person))

    async def chat(self, request: Request) -> Response:
        """Say that these models write posts and hold no conversations."""
        raise RefusedError(
            404, "chat: these models continue a post and answer no messages; expected "
            "POST /v1/completions with a prompt; use it"
        )  # fmt: skip

    async def health(self, request: Request) -> Response:
        """Say whether posts are being decoded."""
        is_well = self.engine.is_alive
        return JSONResponse({"status": "ok" if is_well else "down"}, 200 if is_well else 503)

    async def figures(self, request: Request) -> Response:
        """Show the metrics."""
        text = self.metrics.render(self.engine.gauges())
        return Response(text, media_type="text/plain; version=0.0.4")

    async def complete(self, request: Request) -> Response:
        """Write posts."""
        asked = parse_completion(await read_json_body(request))
        writing = Writing(self, await find_person(self.people, asked.model), asked)
        if asked.is_streamed:
            return StreamingResponse(
                writing.stream(), media_type="text/event-stream",
                headers=SYNTHETIC | {"cache-control": "no-store"},
            )  # fmt: skip
        body = await writing.whole(request)
        return JSONResponse(body, headers=SYNTHETIC)


async def find_person(people: People, slug: str) -> Person:
    """Return a person; looking may wait for a disk.

    Raises:
        RefusedError: there is none of this name, or none any more.
    """
    person = await asyncio.to_thread(people.get, slug)
    if person is None:
        raise RefusedError(
            404, f"model: got {slug[:60]!a}; expected the name of a finished job; see the first "
            "page or GET /v1/models", param="model", code="model_not_found",
        )  # fmt: skip
    return person


async def read_json_body(request: Request) -> Any:
    """Read a bounded JSON body.

    Raises:
        RefusedError: it is none, or too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a form of another site cannot send
        raise RefusedError(
            415, f"content-type: got {kind[:40]!a}; expected application/json; send JSON"
        )
    data = await read_body(request)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as err:
        raise RefusedError(400, "the body: is not JSON; expected a JSON object; check it") from err


async def read_body(request: Request) -> bytes:
    """Read a body that is neither too large nor too slow.

    Raises:
        RefusedError: it is.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY_BYTES:
                    raise RefusedError(
                        413, f"the body: got more than {MAX_BODY_BYTES:,} bytes; expected fewer; "
                        "shorten it"
                    )  # fmt: skip
    except TimeoutError as err:
        raise RefusedError(
            408, f"the body: did not come within {BODY_S:g} s; expected it at once; send it again"
        ) from err
    except ClientDisconnect as err:
        raise RefusedError(400, "the body: broke off; expected all of it; send it again") from err
    return bytes(data)


class Writing:
    """One request for posts under way."""

    def __init__(self, service: Service, person: Person, asked: Asked) -> None:
        """Ask the engine.

        Raises:
            RefusedError: too many wait already.
        """
        self._service = service
        self._person = person
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._num_tokens = 0
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        request = PostsRequest(person, asked.num, self._settle, self._tell)
        self._cancelled = request.cancelled
        try:
            service.engine.submit(request)
        except QueueFullError as err:
            message = "the queue is full: many wait for posts already; expected fewer at once"
            raise ask_again(message, RETRY_S, "queue_full") from err

    def _settle(self, voice: Voice) -> Wanted:
        """Return what is asked for; what is left out is as the person's job samples.

        A loader's thread calls this before anything is told.
        """
        asked, sampling = self._asked, voice.sampling
        # What a post is held against is what it was written with, whoever has left memory since.
        self._copies = voice.copies
        self._num_prompt = len(voice.codec.encode([asked.prompt])[0])
        most = asked.max_tokens or min(sampling.token_limit, MAX_TOKENS)
        return Wanted(
            prompt=asked.prompt,
            max_tokens=most,
            min_tokens=min(sampling.min_new_tokens, most) if asked.max_tokens is None else 0,
            temperature=sampling.temperature if asked.temperature is None else asked.temperature,
            top_p=sampling.top_p if asked.top_p is None else asked.top_p,
            stops=asked.stops,
            seed=secrets.randbits(63) if asked.seed is None else asked.seed % 2**63,
            is_streamed=asked.is_streamed,
        )

    def _tell(self, event: Event) -> None:
        """Hand an event over; the engine's thread calls this."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is going down
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def whole(self, request: Request) -> dict[str, Any]:
        """Return the answer when all posts are over; a client that hangs up frees its place."""
        watching = asyncio.create_task(self._watch(request))
        try:
            # Of what is not streamed each post is one choice: all of it, at its end.
            choices = [choice async for choice in self._choices()]
        finally:
            self._cancelled.set()
            watching.cancel()
        choices.sort(key=lambda choice: int(choice["index"]))
        return self._answer(choices) | {"usage": self._usage()}

    async def _watch(self, request: Request) -> None:
        """End the wait of `whole` when the client has hung up.

        Starlette looks for that by itself where an answer is streamed, and nowhere else.
        """
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._service.metrics.hung_up()
        error = "the client hung up; expected it to wait; ask again"
        self._events.put_nowait(Event(0, error=error, status=499))

    async def stream(self) -> AsyncIterator[str]:
        """Yield the answer as it is written, as server-sent events."""
        started = time.monotonic()
        is_first = True
        try:
            async for choice in self._choices():
                if is_first and choice["text"]:
                    is_first = False
                    self._service.metrics.first_token(time.monotonic() - started)
                yield _sent(self._answer([choice]))
            if self._asked.has_usage:
                yield _sent(self._answer([]) | {"usage": self._usage()})
            yield "data: [DONE]\n\n"
        except RefusedError as err:
            yield _sent(error_body(err))
        except (GeneratorExit, asyncio.CancelledError):
            self._service.metrics.hung_up()
            raise
        finally:
            self._cancelled.set()

    async def _choices(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what comes of the posts, in the API's shape, until all of them are over.

        Raises:
            RefusedError: they cannot be had.
        """
        texts = [""] * self._asked.num
        left = self._asked.num
        while left:
            event = await self._events.get()
            if event.error:
                code = "model_unavailable" if event.status >= 500 else None
                raise RefusedError(event.status, event.error, code=code)
            texts[event.index] += event.text
            choice: dict[str, Any] = {
                "index": event.index,
                "text": event.text,
                "logprobs": None,
                "finish_reason": event.finish,
            }
            if event.finish:
                left -= 1
                self._num_tokens += event.num_tokens
                self._service.metrics.shown(event.num_tokens)
                choice["copied"] = await asyncio.to_thread(self._copied, texts[event.index])
            yield choice

    def _copied(self, text: str) -> list[list[int]]:
        """Return where the text, its prompt left out, stands word for word in training posts.

        Places are counted in code points, as Python counts.
        """
        prompt = self._asked.prompt
        spans = self._copies.find(prompt + text).spans(COPIED_WORDS)
        places = [[max(0, a - len(prompt)), b - len(prompt)] for a, b in spans]
        return [place for place in places if place[1] > place[0]]

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self._num_prompt,
            "completion_tokens": self._num_tokens,
            "total_tokens": self._num_prompt + self._num_tokens,
        }

    def _answer(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._person.slug,
            "choices": choices,
            "synthetic": True,
            "notice": NOTICE,
        }


def _sent(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _model(person: Person) -> dict[str, Any]:
    return {
        "id": person.slug,
        "object": "model",
        "created": person.created,
        "owned_by": "huggingtweets",
        "handles": list(person.handles),
        "posts": person.kept,
        "bits_per_byte": person.bits,
        "base_bits_per_byte": person.base_bits,
        "synthetic": True,
    }


def error_body(err: RefusedError) -> dict[str, Any]:
    """Return an error in the API's shape."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    other = "invalid_request_error" if err.status_code < 500 else "server_error"
    kind = kinds.get(err.status_code, other)
    return {"error": {"message": err.detail, "type": kind, "param": err.param, "code": err.code}}
