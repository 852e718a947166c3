"""Keeps a training alive: resumes and saves it, stops it on request, ends it when it hangs."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import torch
from accelerate import Accelerator
from torch import Tensor

from huggingtweets.config.plan import Plan
from huggingtweets.errors import HuggingtweetsError, OutOfMemoryError, StoppedError
from huggingtweets.storage.lock import JobLock
from huggingtweets.training.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointState,
    Writer,
    latest_checkpoint,
    open_checkpoint,
)
from huggingtweets.training.checkpoints.saver import Saver
from huggingtweets.training.checkpoints.scaling import load_scaler, scaler_state
from huggingtweets.training.collectives import all_gather, any_rank, broadcast
from huggingtweets.training.launch import Batch, on_main
from huggingtweets.training.parallel.memory import halved, remember
from huggingtweets.training.parallel.shards import (
    GROUPS,
    is_sharded,
    local_pieces,
    optimizer_step,
    restore,
    set_optimizer_step,
)
from huggingtweets.training.parallel.step import ParallelModel
from huggingtweets.training.progress import LOSS, Training
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
        self, model: ParallelModel, plan: Plan, identity: dict[str, Any], lock: JobLock | None
    ) -> None:
        """Watch nothing and save nothing yet.

        Args:
            model: in training.
            plan: of the job: where its checkpoints lie, and how often they are made.
            identity: all that decides the result: a checkpoint of another one is refused.
            lock: that of the job; on the main process only.
        """
        self._model = model
        self._accelerator = model.accelerator
        self._root = plan.paths.checkpoints
        self._identity = identity
        self._lock = lock
        self._save_every_s = plan.config.engine.save_every_s
        self._pieces = local_pieces(model.module, model.optimizer)
        self._saver: Saver | None = None
        here = (socket.gethostname(), os.getpid())
        peers = [pid for host, pid in all_gather(here) if host == here[0]]
        self._watchdog = Watchdog(plan.config.engine.hang_after_s, peers=peers)

    def __enter__(self) -> Self:
        """Start watching."""
        self._watchdog.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching, and wait for a save that is under way."""
        self._watchdog.__exit__()
        try:
            if self._saver:
                self._saver.join()
        except HuggingtweetsError as failure:
            logger.warning("the last checkpoint was not saved: %s", failure)

    def beat(self) -> None:
        """Say that something was finished."""
        self._watchdog.beat()

    def resume(self, training: Training, totals: Tensor) -> None:
        """Load the newest checkpoint into model, optimizer, training and totals, if there is one.

        Raises:
            CheckpointError: it belongs to another training.
        """
        accelerator, root = self._accelerator, self._root
        found = on_main(accelerator, lambda: latest_checkpoint(root, self._identity))
        folder = broadcast(found.folder if found else None)
        if folder:
            self._load(open_checkpoint(folder), training, totals)
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
            self._saver = Saver(root, writer, every_s=every_s, step=training.step)
        self.beat()

    def agree(self, *, ran_out: bool) -> Verdict:
        """Settle what follows a step; every process calls it after every step."""
        self.beat()
        is_due = self._accelerator.is_main_process and bool(self._saver and self._saver.is_due())
        return Verdict(*any_rank(ran_out, is_due, stop_requested()))

    def settle(self, verdict: Verdict, training: Training, totals: Tensor) -> None:
        """Save and stop as agreed.

        Raises:
            StoppedError: all is saved.
            CheckpointError: some process could not save.
            LaunchError: the job folder was taken over.
        """
        if not (verdict.save or verdict.stop):
            return
        state = self._state(training, totals)
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
                f"training: stopped on request after step {training.step}; everything is saved; "
                "run the same command again to go on"
            )

    def start_over(self, batch: Batch) -> NoReturn:
        """End a training whose processes can no longer agree; the next start halves this batch.

        Raises:
            OutOfMemoryError: this process is alone; with others, it ends them all.
        """
        try:
            failure = remember(self._root, halved(batch))
        except OutOfMemoryError as one_block:  # nothing smaller is left to try
            failure = one_block
        if self._accelerator.num_processes > 1:
            logger.error("%s", failure)
            self._watchdog.end_group()
        raise failure

    def _state(self, training: Training, totals: Tensor) -> CheckpointState:
        # sync: a save. Each process has losses of its own; all else is alike.
        sums = totals[0].tolist()
        loss_sums = all_gather(sums[LOSS])
        if self._saver is None:
            return CheckpointState(training.step, {}, {})
        tensors = {
            group: {piece.name: piece.flat(group) for piece in self._pieces} for group in GROUPS
        }
        values: dict[str, Any] = {"starts": {piece.name: piece.start for piece in self._pieces}}
        if self._accelerator.is_main_process:
            tensors["best"] = training.best or {}
            values |= {
                "progress": training.to_values(),
                "interval": {
                    "loss_sums": loss_sums,
                    "sums": sums[LOSS + 1 :],
                    "tokens": training.line_tokens,
                    "steps": training.line_steps,
                    "seconds": time.perf_counter() - training.line_start,
                },
                "optimizer_step": optimizer_step(self._model.optimizer),
                "scaler": scaler_state(self._accelerator, self._model.optimizer),
            }
        return CheckpointState(training.step, tensors, values)

    def _load(self, checkpoint: Checkpoint, training: Training, totals: Tensor) -> None:
        accelerator, optimizer = self._accelerator, self._model.optimizer
        restore(checkpoint, self._model.module, self._pieces)
        values = checkpoint.values()
        set_optimizer_step(optimizer, values["optimizer_step"])
        if values["scaler"]:
            load_scaler(accelerator, optimizer, values["scaler"])
        line = values["interval"]
        own = _own_share(line["loss_sums"], accelerator)
        totals.copy_(torch.tensor([[own, *line["sums"]]], dtype=totals.dtype))
        training.line_tokens, training.line_steps = line["tokens"], line["steps"]
        training.line_start = time.perf_counter() - line["seconds"]
        if checkpoint.world_size != accelerator.num_processes:
            logger.warning(
                "resume on %d processes what %d began: equal within rounding, not bit by bit",
                accelerator.num_processes,
                checkpoint.world_size,
            )
        if accelerator.is_main_process:
            logger.info("resume at step=%d from %s", checkpoint.step, checkpoint.folder)
        best = checkpoint.tensors("best") if accelerator.is_main_process else {}
        training.load_values(values["progress"], best)


def _own_share(sums: Sequence[float], accelerator: Accelerator) -> float:
    """Return this process's part of the losses; on another number of processes one has them all."""
    rank: int = accelerator.process_index
    if len(sums) == accelerator.num_processes:
        return sums[rank]
    return sum(sums) if rank == 0 else 0.0
