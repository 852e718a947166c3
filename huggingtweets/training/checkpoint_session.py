"""Keeps a training alive: resumes and saves it, stops it on request, ends it when it hangs."""

import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from accelerate import Accelerator
from torch import nn

from huggingtweets.errors import HuggingtweetsError, StoppedError
from huggingtweets.lock import JobLock
from huggingtweets.training.checkpoint import (
    Checkpoint,
    CheckpointState,
    Writer,
    latest_checkpoint,
    open_checkpoint,
)
from huggingtweets.training.collectives import all_gather, any_rank, broadcast
from huggingtweets.training.launch import Batch, on_main
from huggingtweets.training.memory import remember
from huggingtweets.training.progress import Interval, Progress
from huggingtweets.training.saver import Saver
from huggingtweets.training.scaling import load_scaler, scaler_state
from huggingtweets.training.shards import (
    GROUPS,
    is_sharded,
    local_pieces,
    optimizer_step,
    restore,
    set_optimizer_step,
)
from huggingtweets.training.stopping import stop_requested
from huggingtweets.training.watchdog import Watchdog

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What the processes agreed on after a step."""

    ran_out: bool
    """One of them had no memory left: the step counts for nothing."""
    save: bool
    stop: bool


class CheckpointSession:
    """A context manager around one training; every process has one, and calls it in step."""

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        optimizer: Any,
        *,
        root: Path,
        identity: dict[str, Any],
        lock: JobLock | None,
        save_every_s: float,
        hang_after_s: float,
    ) -> None:
        """Watch nothing and save nothing yet.

        Args:
            accelerator: the processes that share the training.
            module: what `accelerator.prepare` returned.
            optimizer: likewise.
            root: folder of the checkpoints.
            identity: all that decides the result: a checkpoint of another one is refused.
            lock: that of the job; on the main process only.
            save_every_s: seconds between checkpoints.
            hang_after_s: seconds without a step after which the processes are ended.
        """
        self._accelerator = accelerator
        self._module = module
        self._optimizer = optimizer
        self._root = root
        self._identity = identity
        self._lock = lock
        self._save_every_s = save_every_s
        self._pieces = local_pieces(module, optimizer)
        self._saver: Saver | None = None
        here = (socket.gethostname(), os.getpid())
        peers = [pid for host, pid in all_gather(here) if host == here[0]]
        self._watchdog = Watchdog(hang_after_s, peers=peers)

    def __enter__(self) -> Self:
        """Start watching."""
        self._watchdog.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop watching, and wait for a save that is under way."""
        self._watchdog.__exit__(kind, err, traceback)
        try:
            if self._saver:
                self._saver.join()
        except HuggingtweetsError as failure:
            logger.warning("the last checkpoint was not saved: %s", failure)

    def beat(self) -> None:
        """Say that something was finished."""
        self._watchdog.beat()

    def resume(self, interval: Interval) -> Progress:
        """Load the newest checkpoint into model, optimizer and interval, if there is one.

        Raises:
            CheckpointError: it belongs to another training.
        """
        accelerator, root = self._accelerator, self._root
        found = on_main(accelerator, lambda: latest_checkpoint(root, self._identity))
        folder = broadcast(found.folder if found else None)
        progress = self._load(open_checkpoint(folder), interval) if folder else Progress()
        part = accelerator.process_index if is_sharded(accelerator) else 0
        generation = broadcast(self._lock.generation if self._lock else 1)
        if accelerator.is_main_process or is_sharded(accelerator):
            writer = Writer(
                self._identity,
                generation=generation,
                world_size=accelerator.num_processes,
                part=part,
                num_parts=accelerator.num_processes if is_sharded(accelerator) else 1,
            )
            every_s = self._save_every_s
            self._saver = Saver(root, writer, every_s=every_s, step=progress.step)
        self.beat()
        return progress

    def agree(self, *, ran_out: bool) -> Verdict:
        """Settle what follows a step; every process calls it after every step."""
        self.beat()
        is_due = self._accelerator.is_main_process and bool(self._saver and self._saver.is_due())
        return Verdict(*any_rank(ran_out, is_due, stop_requested()))

    def settle(self, verdict: Verdict, progress: Progress, interval: Interval) -> None:
        """Save and stop as agreed.

        Raises:
            StoppedError: all is saved.
            CheckpointError: some process could not save.
            LaunchError: the job folder was taken over.
        """
        if not (verdict.save or verdict.stop):
            return
        state = self._state(progress, interval)
        failure = None
        try:
            if self._saver:
                self._saver.save(state)
                if verdict.stop:
                    self._saver.join()
        except HuggingtweetsError as err:
            failure = err
        for failed in filter(None, all_gather(failure)):
            raise failed
        self.beat()
        if verdict.stop:
            raise StoppedError(
                f"training: stopped on request after step {progress.step}; everything is saved; "
                "run the same command again to go on"
            )

    def start_over(self, batch: Batch) -> NoReturn:
        """End a training whose processes can no longer agree; the next start takes this batch.

        Raises:
            OutOfMemoryError: this process is alone; with others, it ends them all.
        """
        failure = remember(self._root, batch)
        if self._accelerator.num_processes > 1:
            logger.error("%s", failure)
            self._watchdog.end_group()
        raise failure

    def _state(self, progress: Progress, interval: Interval) -> CheckpointState:
        sums = interval.to_values()
        if self._saver is None:
            return CheckpointState(progress.step, {}, {})
        tensors = {
            group: {piece.name: piece.views[group] for piece in self._pieces} for group in GROUPS
        }
        values: dict[str, Any] = {"starts": {piece.name: piece.start for piece in self._pieces}}
        if self._accelerator.is_main_process:
            tensors["best"] = progress.best or {}
            values |= {
                "progress": progress.to_values(),
                "interval": sums,
                "optimizer_step": optimizer_step(self._optimizer),
                "scaler": scaler_state(self._accelerator, self._optimizer),
            }
        return CheckpointState(progress.step, tensors, values)

    def _load(self, checkpoint: Checkpoint, interval: Interval) -> Progress:
        accelerator = self._accelerator
        restore(checkpoint, self._module, self._pieces)
        values = checkpoint.values()
        set_optimizer_step(self._optimizer, values["optimizer_step"])
        if values["scaler"]:
            load_scaler(accelerator, self._optimizer, values["scaler"])
        interval.load_values(values["interval"])
        if checkpoint.world_size != accelerator.num_processes:
            logger.warning(
                "resume on %d processes what %d began: equal within rounding, not bit by bit",
                accelerator.num_processes,
                checkpoint.world_size,
            )
        if accelerator.is_main_process:
            logger.info("resume at step=%d from %s", checkpoint.step, checkpoint.folder)
        best = checkpoint.tensors("best") if accelerator.is_main_process else {}
        return Progress.from_values(values["progress"], best)
