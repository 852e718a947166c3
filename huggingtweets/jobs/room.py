"""Room on the disk of a batch: estimated before it, and waited for when it runs out.

While the disk is full no further user is begun; what is under way is kept in memory and written
once there is room. Half-written drafts go first. Nothing of this is an error of a user.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from huggingtweets.causes import Cause, cause_of
from huggingtweets.errors import NoRoomError
from huggingtweets.storage.files import DRAFTS, remove
from huggingtweets.storage.lock import is_left
from huggingtweets.training.stopping import raise_if_stopped

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_EVERY_S = 0.5
TRY_EVERY_S = 5.0
"""A quota may give way without a sign of it: then what failed is simply tried again."""
MAX_TRIES = 3
"""Of what finds no room on a disk that says it has plenty: then it is no matter of waiting."""
PLENTY = 4
"""Times the room that a user takes."""


class Room:
    """The room left for the users of one batch; threads may share it."""

    def __init__(self, folder: Path, job_bytes: int = 0, *, wait_s: float | None = None) -> None:
        """Look at nothing yet.

        Args:
            folder: of the batch; the nearest one that is there counts.
            job_bytes: what a user takes, about; 0: no matter, any room will do.
            wait_s: how long to wait for room, in all, before giving up; None: a lack of room is a
                failure like any other, as it is where there is but one job.
        """
        self._folder = folder
        self._job_bytes = job_bytes
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._full_since: float | None = None
        self._looked_at = float("-inf")
        self.is_over = False
        """Whether it was waited for without success: nothing more is begun or tried."""

    def estimate(self, num_jobs: int) -> None:
        """Say how much a batch needs and whether it is there."""
        needed, free = num_jobs * self._job_bytes, self.free_bytes()
        logger.info("room: about %s for %d jobs, %s free", _size(needed), num_jobs, _size(free))
        if needed > free:
            logger.warning(
                "%s: got %s free; expected about %s for all %d jobs; the batch pauses when the "
                "disk is full, and goes on when there is room",
                self._folder,
                _size(free),
                _size(needed),
                num_jobs,
            )

    def free_bytes(self) -> int:
        """What the disk has left for us."""
        place = self._folder.absolute()
        while not place.is_dir() and place != place.parent:
            place = place.parent
        try:
            return shutil.disk_usage(place).free
        except OSError:  # a disk that cannot be asked is tried
            return 1 << 62

    def is_open(self) -> bool:
        """Whether another user may be begun. Costs nothing most of the time."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked_at >= LOOK_EVERY_S and not self.is_over:
                self._looked_at = now
                if self.free_bytes() < self._job_bytes:
                    self._note_full()
                elif self._full_since is not None:
                    logger.info("room: the disk has space again; the batch goes on")
                    self._full_since = None
                self.is_over |= self._is_late()  # another thread may have given up meanwhile
            return self._full_since is None and not self.is_over

    def wait_until_open(self) -> None:
        """Return once another user may be begun.

        Raises:
            NoRoomError: that took too long.
            StoppedError: a stop was asked for.
        """
        while not self.is_open():
            raise_if_stopped("room")
            if self.is_over:
                raise self.failure()
            time.sleep(LOOK_EVERY_S)

    def trying(self, action: Callable[[], T]) -> T:
        """Do something that writes; where there is no room for it, again once there is.

        Raises:
            NoRoomError: it was waited for without success.
            StoppedError: a stop was asked for meanwhile.
            Exception: whatever else it raises; or its lack of room, where the disk has plenty.
        """
        tries = 0
        while True:
            tries += 1
            try:
                result = action()
            except Exception as err:
                if not self.wait_after(err, tries):
                    raise
            else:
                with self._lock:
                    self._full_since = None
                return result

    def wait_after(self, err: BaseException, tries: int) -> bool:
        """Wait after a failure; whether to try again what failed. See `trying`."""
        if self._wait_s is None or cause_of(err) is not Cause.room:
            return False
        free = self.free_bytes()
        if free > PLENTY * self._job_bytes and tries >= MAX_TRIES:
            return False
        with self._lock:
            self._note_full()
        # Until more than a block of the disk has come free, or so long that trying costs little: of
        # a quota that gives way nothing is to be seen.
        until = time.monotonic() + TRY_EVERY_S
        while time.monotonic() < until and self.free_bytes() <= free + 4096:
            raise_if_stopped("room")
            if self.is_over or self._is_late():
                self.is_over = True
                raise self.failure()
            time.sleep(LOOK_EVERY_S)
        return True

    def failure(self) -> NoRoomError:
        """Return what ends the batch for now."""
        return NoRoomError(
            f"{self._folder}: got {_size(self.free_bytes())} free for {self._wait_s or 0:.0f} s; "
            f"expected room for another user (about {_size(self._job_bytes)}); everything so far "
            "is saved; make room, then run the same command again"
        )

    def _is_late(self) -> bool:
        """Whether it was waited for long enough."""
        since, wait_s = self._full_since, self._wait_s
        return since is not None and wait_s is not None and time.monotonic() - since > wait_s

    def _note_full(self) -> None:
        if self._full_since is not None:
            return
        self._full_since = time.monotonic()
        num = self._remove_drafts()
        logger.warning(
            "%s: got %s free; expected room for one user (about %s); the batch waits up to %.0f s "
            "for it (engine.wait_for_room_s)%s; make room",
            self._folder,
            _size(self.free_bytes()),
            _size(self._job_bytes),
            self._wait_s,
            f"; {num} half-written drafts of dead processes were removed" if num else "",
        )

    def _remove_drafts(self) -> int:
        """Remove what killed writers left in folders that nobody holds; return how many.

        Only jobs have a holder: in the ledger's folder other shards write.
        """
        num = 0
        with suppress(OSError):
            for pattern in (f"*/{DRAFTS}", "*/checkpoints/.step-*.tmp"):
                # All names first: what a new holder begins meanwhile is not among them.
                for draft in list(self._folder.glob(pattern)):
                    job = self._folder / draft.relative_to(self._folder).parts[0]
                    with suppress(OSError):
                        if (job / ".lock").is_dir() and is_left(job):
                            remove(draft)
                            num += 1
        return num


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1000:.0f} kB"
