"""One post being drawn: its tokens, its random numbers, its text, and whom to tell."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from huggingtweets.serve.draft import Draft, Finish, Step
from huggingtweets.serve.voices import Voice

_MAX_DRAWS = 200
"""After this many refused draws in a row, which no usual top_p ever needs, the likeliest token."""


@dataclass(frozen=True)
class Wanted:
    """How posts are to be drawn."""

    prompt: str
    num: int
    max_tokens: int
    min_tokens: int
    temperature: float
    top_p: float
    stops: tuple[str, ...]
    seed: int
    is_streamed: bool


@dataclass(frozen=True)
class Event:
    """What happened to one post of a request."""

    index: int
    text: str = ""
    finish: Finish | None = None
    num_tokens: int = 0
    """Drawn in all, with the last event."""
    error: str = ""
    """The request cannot be served: a sentence."""
    status: int = 503
    """Of HTTP, where there is an error."""


@dataclass
class Request:
    """Posts of one person that somebody waits for."""

    wanted: Wanted
    voice: Voice
    tell: Callable[[Event], None]
    """Called by the engine's thread; must not block."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits any more."""


class Row:
    """One post of a request."""

    def __init__(self, request: Request, index: int, refused: Callable[[str], None]) -> None:
        """Begin with nothing drawn; `refused` hears why a post is drawn again."""
        self.request = request
        self.index = index
        self._refused = refused
        wanted, voice = request.wanted, request.voice
        [begun] = voice.codec.begin([wanted.prompt])
        self.begun: list[int] = begun[: voice.max_positions - 1]
        self._rounds = 0
        self.num_drawn = 0
        self._restart()

    def _restart(self) -> None:
        wanted, voice = self.request.wanted, self.request.voice
        # A round has luck of its own, and so has each post: the same seed, the same posts,
        # whoever else is decoded beside them.
        self._luck = np.random.default_rng([wanted.seed, self.index, self._rounds])
        self.new: list[int] = []
        self.position = 0
        self._draft = Draft(
            wanted.prompt,
            voice.guards,
            voice.copies,
            stops=wanted.stops,
            is_streamed=wanted.is_streamed,
            rounds=self._rounds,
        )

    @property
    def num_positions(self) -> int:
        """Most positions that the post can take."""
        most = len(self.begun) + self.request.wanted.max_tokens
        return min(most, self.request.voice.max_positions)

    @property
    def token(self) -> int:
        """The next input, at `position`."""
        if self.position < len(self.begun):
            return self.begun[self.position]
        return self.new[self.position - len(self.begun)]

    @property
    def is_drawing(self) -> bool:
        """Whether the logits at `position` give a new token: the prompt has been read."""
        return self.position + 1 >= len(self.begun)

    @property
    def may_end(self) -> bool:
        """Whether the post is long enough to end."""
        return len(self.new) >= self.request.wanted.min_tokens

    def uniform(self) -> float:
        """Return the next random number of this post."""
        return float(self._luck.random())

    def take(self, token: int | None) -> bool:
        """Go on by one position, with a drawn token; return whether the post is over.

        One that is refused begins again.
        """
        self.position += 1
        if token is None:
            return False
        voice, wanted = self.request.voice, self.request.wanted
        self.num_drawn += 1
        ended = None
        if token == voice.codec.eos_id:
            ended = Finish.stop
        else:
            self.new.append(token)
            if len(self.new) >= wanted.max_tokens or self.position + 1 >= self.num_positions:
                ended = Finish.length
        return self._show(ended)

    def _show(self, ended: Finish | None) -> bool:
        wanted, codec = self.request.wanted, self.request.voice.codec
        is_seen = wanted.is_streamed or bool(wanted.stops) or ended is not None
        # Nobody sees it before it is over; a line break ends it all the same.
        if not is_seen and "\n" not in codec.tokenizer.decode(self.new[-1:]):
            return False
        [whole] = codec.whole_texts([wanted.prompt], [self.begun], [self.new])
        text = whole.removeprefix(wanted.prompt)
        if ended is None and text.endswith("\ufffd"):  # within a letter of several tokens
            return False
        step = self._draft.update(text, ended)
        return self._tell(step)

    def _tell(self, step: Step) -> bool:
        if step.again is not None:
            self._refused(step.again.value)
            self._rounds += 1
            self._restart()
            return False
        if step.text or step.finish:
            event = Event(self.index, step.text, step.finish)
            if step.finish:
                event = Event(self.index, step.text, step.finish, self.num_drawn)
            self.request.tell(event)
        return step.finish is not None


def is_cancelled(row: Row) -> bool:
    """Whether nobody waits for a post any more."""
    return row.request.cancelled.is_set()


def tell_all(rows: Sequence[Row], error: str) -> None:
    """Tell everybody who waits for these posts that there will be none."""
    for request in {id(row.request): row.request for row in rows}.values():
        if not request.cancelled.is_set():
            request.cancelled.set()
            request.tell(Event(0, error=error))


def draw_tokens(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """Draw one token per row.

    Draws from all tokens, and again where the token turns out to lie outside the nucleus, the
    likeliest tokens that make up `top_p`: no sorting of a large vocabulary.

    Args:
        logits: (R, V) fp32; changed.
        rows: R of them.
    """
    wanted = [row.request.wanted for row in rows]
    for at, row in enumerate(rows):
        if not row.may_end:
            logits[at, row.request.voice.codec.eos_id] = -torch.inf
    likeliest = logits.argmax(-1)
    heat = torch.tensor([max(one.temperature, 1e-4) for one in wanted], device=logits.device)
    probabilities = torch.softmax(logits / heat.unsqueeze(1), -1)
    steps = probabilities.cumsum(-1)
    top_p = torch.tensor([one.top_p for one in wanted], device=logits.device)
    is_greedy = torch.tensor([one.temperature == 0 for one in wanted], device=logits.device)
    token = likeliest.clone()
    is_open = ~is_greedy
    for _ in range(_MAX_DRAWS):
        if not is_open.any():  # sync: mostly after the first draws
            break
        uniforms = [row.uniform() if waits else 0.0
                    for row, waits in zip(rows, is_open.tolist(), strict=True)]  # fmt: skip
        luck = torch.tensor(uniforms, device=logits.device)
        mark = luck.unsqueeze(1) * steps[:, -1:]
        drawn = torch.searchsorted(steps, mark).clamp_(max=logits.shape[1] - 1)
        likelier = probabilities > probabilities.gather(1, drawn)
        above = (probabilities * likelier).sum(1)
        fits = is_open & (above < top_p)
        token = torch.where(fits, drawn.squeeze(1), token)
        is_open = is_open & ~fits
    found: list[int] = token.tolist()
    return found
