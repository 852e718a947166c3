"""Save checkpoints behind the back of training: a snapshot now, the writing in a thread."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from huggingtweets.attempt import tell_progress
from huggingtweets.errors import CheckpointError
from huggingtweets.runtime.device import host_like, synchronize
from huggingtweets.training.checkpoints.checkpoint import (
    CheckpointState,
    Writer,
    num_bytes,
    prune,
    save_checkpoint,
)
from huggingtweets.training.meter import available_bytes
from huggingtweets.training.stopping import tell_save

logger = logging.getLogger(__name__)

MAX_OVERHEAD_FRAC = 0.03
"""Most of the time that training may stand still for saves; saves are rarer where it would."""

NUM_KEPT = 2
"""Checkpoints: should the newest be damaged, there is one before it."""


class Saver:
    """Saves one job's checkpoints every this many seconds and keeps the newest ones.

    Holds a copy of the state in CPU memory where at least twice as much is free; else saving waits
    for the disk. One save is under way at a time. One that failed is made good by the next: a disk
    that is full for a moment ends no training. It raises where that fails too, or at `join`.
    """

    def __init__(self, root: Path, writer: Writer, *, every_s: float, step: int = 0) -> None:
        """Start the clock; `step` is what is on disk already, 0 for nothing."""
        self._root = root
        self._writer = writer
        self._every_s = every_s
        self._saved_step = step
        self._saved_at = time.monotonic()
        self._blocked_s = 0.0
        self._copies: dict[tuple[str, str], Tensor] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._save: Future[None] | None = None
        self._failure: CheckpointError | None = None
        """Of the last save, where it was waited for."""

    def is_due(self) -> bool:
        """Whether the interval has passed; the main process asks and tells the others.

        Never while a save is under way, and not before the last one is 3 % of the time since.
        """
        if self._save is not None and not self._save.done():
            return False
        interval_s = max(self._every_s, self._blocked_s / MAX_OVERHEAD_FRAC)
        return time.monotonic() - self._saved_at >= interval_s

    def save(self, state: CheckpointState) -> None:
        """Start saving, after the save before has ended; does nothing for a step on disk already.

        Raises:
            CheckpointError: the save before failed, and so does this one.
            LaunchError: the job folder was taken over.
        """
        failure = self._finish()
        if state.step == self._saved_step:
            if failure is not None:
                raise failure
            return
        if failure is not None:
            logger.warning("the last checkpoint was not saved, this one is tried: %s", failure)
        self._saved_step = state.step
        self._saved_at = time.monotonic()
        if failure is None and self._fits(state):
            self._save = self._pool.submit(self._write, self._copied(state))
        else:
            try:
                self._write(state)
            except CheckpointError as err:
                if failure is not None:
                    raise
                self._failure = err
        self._blocked_s = time.monotonic() - self._saved_at

    def join(self) -> None:
        """Wait until all is on disk.

        Raises:
            CheckpointError: a save failed.
        """
        self._pool.shutdown()
        failure = self._finish()
        if failure is not None:
            raise failure

    def _finish(self) -> CheckpointError | None:
        """Wait for the save that is under way; return why the last one failed."""
        save, self._save = self._save, None
        failure, self._failure = self._failure, None
        try:
            if save is not None:
                save.result()
        except CheckpointError as err:
            failure = err
        return failure

    def _write(self, state: CheckpointState) -> None:
        began = time.monotonic()
        save_checkpoint(self._root, state, self._writer)
        tell_save(time.monotonic() - began)
        if self._writer.part == 0:
            tell_progress()
            prune(self._root, keep=NUM_KEPT)

    def _fits(self, state: CheckpointState) -> bool:
        held = sum(copy.nbytes for copy in self._copies.values())
        return 2 * (num_bytes(state) - held) <= available_bytes()

    def _copied(self, state: CheckpointState) -> CheckpointState:
        """Copy the tensors to CPU memory, which is kept for the next time."""
        tensors = {
            group: {name: self._copy(group, name, tensor) for name, tensor in members.items()}
            for group, members in state.tensors.items()
        }
        for device in {t.device for group in state.tensors.values() for t in group.values()}:
            synchronize(device)  # sync: copies to pinned memory are under way
        return CheckpointState(state.step, tensors, dict(state.values))

    def _copy(self, group: str, name: str, tensor: Tensor) -> Tensor:
        copy = self._copies.get((group, name))
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            copy = host_like(tensor)
            self._copies[group, name] = copy
        return copy.copy_(tensor.detach(), non_blocking=True)
