"""The thread that decodes: a request joins at the next token and leaves at the end of its post."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import groupby

import torch

from huggingtweets.errors import HuggingtweetsError
from huggingtweets.models.layout import Shape
from huggingtweets.serve.limits import UNABLE
from huggingtweets.serve.lone import LoneBatch
from huggingtweets.serve.metrics import Metrics
from huggingtweets.serve.people import People
from huggingtweets.serve.rows import Event, PostsRequest, Row, tell_all
from huggingtweets.serve.stacked import Arena
from huggingtweets.serve.voices import Voice, Voices

logger = logging.getLogger(__name__)

MAX_LONE = 8
"""Requests of models that cannot be stacked that are decoded side by side; others wait."""
CHECK_EVERY_S = 1.0
"""How soon posts of a person who is purged or opts out are stopped."""


class QueueFullError(Exception):
    """So many wait already that another one would wait for long."""


class Engine:
    """Owns the models and the thread; `submit` may be called from any thread."""

    def __init__(
        self,
        people: People,
        metrics: Metrics,
        device: torch.device,
        *,
        max_bytes: int,
        max_waiting: int,
    ) -> None:
        """Start the thread.

        Args:
            people: asked now and then whether somebody is gone.
            metrics: counts what happens.
            device: to decode on.
            max_bytes: of weights and caches, half of it for those under way.
            max_waiting: posts that may wait.
        """
        self._people = people
        self._metrics = metrics
        self._device = device
        self._voices = Voices(max_bytes // 2)
        self._arena_bytes = max_bytes - max_bytes // 2
        self._max_waiting = max_waiting
        self._waiting: deque[Row] = deque()
        self._arenas: dict[tuple[Shape, int, int], Arena] = {}
        self._lone: list[LoneBatch] = []
        self._wake = threading.Condition()
        self._num_coming = 0
        self._is_closed = False
        self._next_check = 0.0
        self._trouble = ""
        # Two, so that a large model that is being read keeps no small one waiting.
        self._loaders = ThreadPoolExecutor(2, thread_name_prefix="load-model")
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether posts are being decoded."""
        return self._thread.is_alive()

    def submit(self, request: PostsRequest) -> None:
        """Ask for posts.

        Raises:
            QueueFullError: too many wait already.
        """
        with self._wake:
            if len(self._waiting) + self._num_coming + request.num > self._max_waiting:
                raise QueueFullError
            self._num_coming += request.num
        self._loaders.submit(self._prepare, request)

    def gauges(self) -> dict[str, float]:
        """Return figures of this moment, for the metrics."""
        with self._wake:
            waiting = len(self._waiting) + self._num_coming
        return {
            "waiting_posts": waiting,
            "active_posts": self._num_active(),
            "models": len(self._voices),
            "model_bytes": self._voices.num_bytes,
            "model_loads_total": self._voices.num_loaded,
        }

    def close(self) -> None:
        """End the thread; posts under way are cut off."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join(30)
        self._loaders.shutdown(cancel_futures=True)

    def _prepare(self, request: PostsRequest) -> None:
        """Load a voice and queue the posts asked of it; a loader's thread."""
        slug = request.person.slug
        rows: list[Row] = []
        try:
            if not request.cancelled.is_set():
                voice = self._voices.get(request.person)
                wanted = request.settle(voice)
                rows = [
                    Row(request, voice, wanted, index, self._metrics.refused)
                    for index in range(request.num)
                ]
                if len(rows[0].begun) + 1 >= voice.max_positions:
                    rows = []
                    error = (
                        f"prompt: got {voice.max_positions - 1} tokens or more; expected fewer: "
                        f"{slug} takes {voice.max_positions} with its answer; shorten it"
                    )
                    request.tell(Event(0, error=error, status=400))
        except HuggingtweetsError as err:
            request.tell(Event(0, error=str(err)))
        except Exception:  # a bug: whoever waits is told, and the others go on
            logger.exception("person=%s cannot be prepared", slug)
            request.tell(Event(0, error=f"{slug}: the model cannot be used; see the server's log"))
        finally:
            with self._wake:
                self._num_coming -= request.num
                self._waiting.extend(rows)
                self._wake.notify()

    def _run(self) -> None:
        torch.set_grad_enabled(False)
        while True:
            with self._wake:
                # Idle or not, once a second it is asked who is gone.
                if not (self._waiting or self._num_active() or self._is_closed):
                    self._wake.wait(CHECK_EVERY_S)
                if self._is_closed:
                    break
            try:
                self._admit()
                self._step()
                if time.monotonic() >= self._next_check:
                    self._next_check = time.monotonic() + CHECK_EVERY_S
                    self._drop_gone()
            except Exception as err:  # nobody may wait for a post that nobody draws
                for one in self._decoders():
                    _fail(one.rows, err)
                self._arenas.clear()
                self._lone.clear()

    def _decoders(self) -> list[Arena | LoneBatch]:
        return [*self._arenas.values(), *self._lone]

    def _num_active(self) -> int:
        return sum(len(one.rows) for one in self._decoders())

    def _admit(self) -> None:
        """Let those in who wait, first come first served among those for whom there is room."""
        with self._wake:
            waiting, self._waiting = self._waiting, deque()
        left: list[Row] = []
        wanted = [row for row in waiting if not row.is_cancelled]
        for _, group in groupby(wanted, key=lambda row: id(row.request)):
            rows = list(group)
            try:
                left += self._join(rows)
            except Exception as err:  # no memory for one model: others may have room
                _fail(rows, err)
        with self._wake:
            self._waiting.extendleft(reversed(left))

    def _join(self, rows: list[Row]) -> list[Row]:
        """Let posts of one request in; return those for whom there is no room."""
        voice = rows[0].voice
        if voice.layout is not None:
            return [row for row in rows if not self._arena(voice).join(row)]
        if len(self._lone) >= MAX_LONE:
            return rows
        self._lone.append(LoneBatch(rows, self._device))
        return []

    def _arena(self, voice: Voice) -> Arena:
        """Return where a model is decoded; idle arenas of other kinds make room for it."""
        assert voice.layout is not None
        # The address of a base is not used again as long as an arena holds it.
        kind = (voice.layout.shape, id(voice.base), voice.rank)
        if kind not in self._arenas:
            self._arenas = {key: one for key, one in self._arenas.items() if one.rows}
            taken = sum(one.num_places * one.bytes_per_place for one in self._arenas.values())
            self._arenas[kind] = Arena(voice, self._device, self._arena_bytes - taken)
        return self._arenas[kind]

    def _step(self) -> None:
        started = time.monotonic()
        num = 0
        for one in self._decoders():
            try:
                num += one.step()
            except Exception as err:  # one bad model must not silence all others
                _fail(one.rows, err)
                self._arenas = {key: each for key, each in self._arenas.items() if each is not one}
                self._lone = [each for each in self._lone if each is not one]
        self._lone = [one for one in self._lone if one.rows]
        if num:
            self._metrics.stepped(num, time.monotonic() - started)

    def _drop_gone(self) -> None:
        """Silence those who were purged or have opted out since they were asked."""

        @cache
        def is_gone(slug: str) -> bool:
            return self._people.get(slug) is None

        rows = [row for one in self._decoders() for row in one.rows]
        try:
            gone = [row for row in rows if is_gone(row.request.person.slug)]
            self._voices.drop(is_gone)
        except HuggingtweetsError as err:  # the list of those who want no model cannot be read
            if str(err) != self._trouble:
                logger.error("%s", err)
            self._trouble = str(err)
            tell_all(rows, UNABLE)
            return
        self._trouble = ""
        tell_all(gone, "this person is no longer here")


def _fail(rows: Sequence[Row], err: Exception) -> None:
    """Cancel the requests of these posts; whoever waits for them is told."""
    logger.error("decoding failed", exc_info=err)
    tell_all(rows, f"decoding failed ({type(err).__name__}); ask again")
