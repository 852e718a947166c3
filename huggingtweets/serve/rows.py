"""One post being drawn: its tokens, its random numbers, its text, and whom to tell."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from huggingtweets.kernels.rows import RowOps, num_draws
from huggingtweets.serve.draft import Draft, Finish
from huggingtweets.serve.people import Person
from huggingtweets.serve.voices import Voice


@dataclass(frozen=True)
class Wanted:
    """How posts are to be drawn."""

    prompt: str
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
    """Drawn so far, those of refused rounds among them."""
    error: str = ""
    """The request cannot be served: a sentence."""
    status: int = 503
    """Of HTTP, where there is an error."""


@dataclass(frozen=True, eq=False)
class PostsRequest:
    """Posts of one person that somebody waits for."""

    person: Person
    num: int
    """How many."""
    settle: Callable[[Voice], Wanted]
    """Says how, once the person's voice is loaded; a loader's thread calls it."""
    tell: Callable[[Event], None]
    """Hears what happens. Called by the engine's threads; must not block."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits any more."""


class Row:
    """One post of a request."""

    def __init__(
        self,
        request: PostsRequest,
        voice: Voice,
        wanted: Wanted,
        index: int,
        refused: Callable[[str], None],
    ) -> None:
        """Begin with nothing drawn; `refused` hears why a post is drawn again."""
        self.request = request
        self.voice = voice
        self.wanted = wanted
        self._index = index
        self._refused = refused
        [self.begun] = voice.codec.begin([wanted.prompt])
        self._rounds = 0
        self.num_drawn = 0
        self._restart()

    def _restart(self) -> None:
        wanted, voice = self.wanted, self.voice
        # A round has luck of its own, and so has each post: the same seed, the same posts,
        # whoever else is decoded beside them.
        self._luck = np.random.default_rng([wanted.seed, self._index, self._rounds])
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
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the post any more."""
        return self.request.cancelled.is_set()

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
        return len(self.new) >= self.wanted.min_tokens

    def uniforms(self, num: int) -> npt.NDArray[np.float64]:
        """Return the next random numbers of this post."""
        return self._luck.random(num)

    def take(self, token: int | None) -> bool:
        """Go on by one position, with a drawn token; return whether the post is over.

        One that is refused begins again.
        """
        self.position += 1
        if token is None:
            return False
        self.num_drawn += 1
        if token == self.voice.codec.eos_id:
            return self._show(Finish.stop)
        self.new.append(token)
        is_full = self.position + 1 >= self.voice.max_positions
        is_long = is_full or len(self.new) >= self.wanted.max_tokens
        return self._show(Finish.length if is_long else None)

    def _show(self, ended: Finish | None) -> bool:
        wanted, codec = self.wanted, self.voice.codec
        is_seen = wanted.is_streamed or bool(wanted.stops) or ended is not None
        # Nobody sees it before it is over; a line break ends it all the same.
        if not is_seen and "\n" not in codec.tokenizer.decode(self.new[-1:]):
            return False
        [whole] = codec.whole_texts([wanted.prompt], [self.begun], [self.new])
        text = whole.removeprefix(wanted.prompt)
        if ended is None and text.endswith("\ufffd"):  # within a letter of several tokens
            return False
        step = self._draft.update(text, ended)
        if step.again is not None:
            self._refused(step.again.value)
            self._rounds += 1
            self._restart()
            return False
        if step.text or step.finish:
            self.request.tell(Event(self._index, step.text, step.finish, self.num_drawn))
        return step.finish is not None


def tell_all(rows: Sequence[Row], error: str) -> None:
    """Tell everybody who waits for these posts that there will be none."""
    for request in {id(row.request): row.request for row in rows}.values():
        if not request.cancelled.is_set():
            request.cancelled.set()
            request.tell(Event(0, error=error))


def draw_tokens(logits: Tensor, rows: Sequence[Row], ops: RowOps) -> list[int]:
    """Draw one token per row from its nucleus, or at temperature 0 take the likeliest.

    Args:
        logits: (R, V) fp32; changed.
        rows: R of them.
        ops: of this thread.
    """
    wanted = [row.wanted for row in rows]
    draws = [num_draws(one.top_p) for one in wanted]
    # As many for a row as it wants itself, so that its luck is its own.
    uniforms = np.zeros((len(rows), max(draws)))
    for at, row in enumerate(rows):
        uniforms[at, : draws[at]] = row.uniforms(draws[at])
    eos = [-1 if row.may_end else row.voice.codec.eos_id for row in rows]
    device = logits.device
    found: list[int] = ops.draw(
        logits,
        # Logits are divided by it; at 0 the nucleus below decides, whatever the temperature.
        torch.tensor([max(one.temperature, 1e-4) for one in wanted], device=device),
        # In a nucleus of nothing lies no token: what is left is the likeliest.
        torch.tensor([one.top_p if one.temperature else 0.0 for one in wanted], device=device),
        torch.tensor(eos, device=device),
        torch.from_numpy(uniforms).to(device),
    ).tolist()
    return found
