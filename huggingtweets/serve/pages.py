"""The pages: find a person, have posts written, two side by side, guess who. Server-rendered."""

import asyncio
import random
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from huggingtweets.config.results_schema import DEFAULT_PROMPTS
from huggingtweets.publishing.pages import page_environment
from huggingtweets.serve.api import SYNTHETIC, find_person, read_body
from huggingtweets.serve.limits import RefusedError
from huggingtweets.serve.people import People, Person
from huggingtweets.storage.files import read_jsonl, read_plain

NUM_FOUND = 60
NUM_GUESSED = 5
MAX_ROUNDS = 1000
"""Guesses under way; the oldest is forgotten."""
_OF_PERSON = {
    "report": ("report.html", "text/html"),
    "card": ("model/README.md", "text/plain"),
    "preview.png": ("model/preview.png", "image/png"),
}
"""What may be read of a job's folder, and as what."""
_POLICY = {
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
}
"""Reports carry their styles within them; no script runs, whoever wrote the folder."""


@dataclass(frozen=True)
class Riddle:
    """A post whose writer is to be guessed."""

    text: str
    slug: str
    is_human: bool
    slugs: tuple[str, ...]


class Pages:
    """The routes of the pages."""

    def __init__(self, people: People) -> None:
        """Read templates once."""
        self._people = people
        self._environment = page_environment("huggingtweets.serve")
        self._riddles: OrderedDict[str, Riddle] = OrderedDict()

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", self.find),
            Route("/p/{slug}", self.person),
            Route("/p/{slug}/{name}", self.file_of_person),
            Route("/two", self.two),
            Route("/guess", self.guess),
            Route("/guess", self.answer, methods=["POST"]),
        ]

    async def find(self, request: Request) -> Response:
        """Show who there is."""
        words = request.query_params.get("q", "")[:100]
        found, num = await asyncio.to_thread(self._people.find, words, NUM_FOUND)
        return self.render("find.html.jinja", words=words, found=found, num=num)

    async def person(self, request: Request) -> Response:
        """Show one person's model."""
        person = await find_person(self._people, request.path_params["slug"])
        files = [name for name, (path, _) in _OF_PERSON.items()
                 if (person.paths.root / path).is_file()]  # fmt: skip
        return self.render(
            "person.html.jinja", person=person, files=files, prompt=DEFAULT_PROMPTS[0],
            gain=_gain(person),
        )  # fmt: skip

    async def two(self, request: Request) -> Response:
        """Show two people side by side."""
        names = [request.query_params.get(key, "").strip()[:100] for key in ("a", "b")]
        slugs = [name.removeprefix("@").lower() for name in names]
        people = [await asyncio.to_thread(self._people.get, slug) for slug in slugs]
        return self.render("two.html.jinja", people=people, names=names, prompt=DEFAULT_PROMPTS[0])

    async def file_of_person(self, request: Request) -> Response:
        """Send the report, the card or the preview of a person, and no other file."""
        person = await find_person(self._people, request.path_params["slug"])
        path, kind = _OF_PERSON.get(request.path_params["name"], ("", ""))
        whole = person.paths.root / path
        data = b""
        with suppress(OSError):  # the person may be purged this very moment
            if not whole.is_symlink():  # it may lead out of the folder
                data = await asyncio.to_thread(read_plain, whole)
        if not data:
            raise RefusedError(404, "this file: is not there; expected report, card or preview.png")
        return Response(data, media_type=kind, headers=SYNTHETIC | _POLICY)

    async def guess(self, request: Request) -> Response:
        """Show a post whose writer is to be guessed."""
        riddle = await asyncio.to_thread(self._riddle)
        if riddle is None:
            return self.render("guess.html.jinja", riddle=None, key="", people=[], said=None)
        key = secrets.token_urlsafe(16)
        self._riddles[key] = riddle
        if len(self._riddles) > MAX_ROUNDS:
            self._riddles.popitem(last=False)
        return self._show_riddle(riddle, key, None)

    async def answer(self, request: Request) -> Response:
        """Say whether the guess was right; a riddle is answered once."""
        form = parse_qs((await read_body(request)).decode("utf-8", "replace"), max_num_fields=10)
        key, who, what = (form.get(name, [""])[0] for name in ("key", "who", "what"))
        riddle = self._riddles.pop(key, None)
        if riddle is None:
            raise RefusedError(404, "guess: is over; expected another one; reload the page")
        said = {"who": who == riddle.slug, "what": (what == "human") == riddle.is_human}
        return self._show_riddle(riddle, "", said)

    def _show_riddle(self, riddle: Riddle, key: str, said: dict[str, bool] | None) -> Response:
        people = [person for slug in riddle.slugs if (person := self._people.get(slug))]
        return self.render("guess.html.jinja", riddle=riddle, key=key, people=people, said=said)

    def _riddle(self) -> Riddle | None:
        """Draw people, one of them, and a post of theirs or of their model."""
        people = self._people.all()
        luck = random.SystemRandom()
        if len(people) < 2:
            return None
        for _ in range(10):
            chosen = luck.sample(people, min(NUM_GUESSED, len(people)))
            writer, is_human = chosen[0], luck.random() < 0.5
            path = writer.paths.dataset if is_human else writer.paths.predictions
            texts: list[str] = []
            with suppress(OSError, ValueError, KeyError, TypeError):
                key = "text" if is_human else "prediction"
                texts = [row[key] for row in read_jsonl(path) if len(row[key]) > 20]
            if texts:
                luck.shuffle(chosen)
                slugs = tuple(person.slug for person in chosen)
                return Riddle(luck.choice(texts), writer.slug, is_human, slugs)
        return None

    def render(self, name: str, status: int = 200, **values: object) -> Response:
        """Return a page."""
        text = self._environment.get_template(name).render(**values)
        return HTMLResponse(text, status, headers=SYNTHETIC)


def _gain(person: Person) -> str:
    """Say how much better than the base held-out posts are predicted; empty: unknown."""
    if not person.bits or not person.base_bits:
        return ""
    return f"{100 * (1 - person.bits / person.base_bits):.1f} %"
