"""What the training loop knows beside weights and optimizer state, and how it is kept."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from huggingtweets.errors import TrainingError
from huggingtweets.training.collectives import all_gather
from huggingtweets.training.records import (
    Extraction,
    HeldoutLoss,
    LoggedEval,
    LoggedStep,
    PostScore,
    Scores,
    in_order,
)

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    num_bad_steps: int = 0
    history: list[LoggedStep] = field(default_factory=list)
    evals: list[LoggedEval] = field(default_factory=list)
    best: Weights | None = None
    """Weights of the lowest held-out loss so far, on the CPU of the main process; {} elsewhere."""
    kept_step: int = 0
    scores: dict[int, Scores] = field(default_factory=dict)
    """By step, of the base, the kept weights and the last evaluation; not in checkpoints."""

    def keep_scores(self, heldout: tuple[PostScore, ...], probe: tuple[PostScore, ...]) -> None:
        """Take those of an evaluation just made, and forget what nobody will ask for."""
        scores = self.scores | {self.step: Scores(heldout, probe)}
        wanted = (0, self.kept_step, self.step)
        self.scores = {step: one for step, one in scores.items() if step in wanted}

    def lines(self) -> list[LoggedStep | LoggedEval]:
        """Return all that was reported, in the order in which it was."""
        return in_order(self.history, self.evals)

    def to_values(self) -> dict[str, Any]:
        """Return everything but the weights, as plain JSON values."""
        values = {key: value for key, value in vars(self).items() if key not in ("best", "scores")}
        values["history"] = [asdict(line) for line in self.history]
        values["evals"] = [asdict(line) for line in self.evals]
        return values | {"has_best": self.best is not None}

    @staticmethod
    def from_values(values: dict[str, Any], best: Weights) -> "Progress":
        """Undo `to_values`."""
        values = dict(values)
        has_best = values.pop("has_best")
        values["history"] = [LoggedStep(**line) for line in values["history"]]
        values["evals"] = [
            LoggedEval(
                **line
                | {key: line[key] and HeldoutLoss(**line[key]) for key in ("heldout", "trained")}
                | {"extracted": line["extracted"] and Extraction(**line["extracted"])}
            )
            for line in values["evals"]
        ]
        return Progress(**values, best=best if has_best else None)


@dataclass(frozen=True)
class Speed:
    """What turns tokens per second into a model FLOPs utilisation."""

    flops_per_token: float
    peak_flops: float | None

    def mfu(self, tokens_per_s: float, world_size: int) -> float | None:
        """Return the share of the devices' peak, or None where that is not known."""
        if self.peak_flops is None:
            return None
        return tokens_per_s * self.flops_per_token / (self.peak_flops * world_size)


def diverged(progress: Progress) -> TrainingError:
    """Return the error of a training that went astray."""
    return TrainingError(
        f"training: the loss is not finite at step {progress.step} "
        f"({progress.num_bad_steps} steps were skipped); expected a finite loss; lower recipe.lr, "
        "raise recipe.warmup_frac or set engine.precision=fp32"
    )


class Interval:
    """Sums over the steps since the last logged line; stays on the device until it is closed."""

    def __init__(self, accelerator: Accelerator, speed: Speed) -> None:
        """Begin with nothing."""
        self._accelerator = accelerator
        self._speed = speed
        self._reset()

    def _reset(self) -> None:
        zero = torch.zeros((), dtype=torch.float64, device=self._accelerator.device)
        self._loss_sum = self._good_tokens = zero
        self._grad_norm = self._bad = zero.float()
        self._tokens = 0
        self._steps = 0
        self._wait_s = 0.0
        self._start = time.perf_counter()

    def restart_clock(self) -> None:
        """Leave what happened since the last line out of the next."""
        self._start = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as spent waiting for data."""
        start = time.perf_counter()
        yield
        self._wait_s += time.perf_counter() - start

    def add(self, loss_sum: Tensor, grad_norm: Tensor, num_targets: int) -> None:
        """Count one step."""
        is_good = grad_norm.isfinite()
        self._loss_sum = self._loss_sum + torch.where(is_good, loss_sum, 0.0)
        self._good_tokens = self._good_tokens + is_good * num_targets
        self._bad = self._bad + ~is_good
        self._grad_norm = torch.where(is_good, grad_norm, self._grad_norm)
        self._tokens += num_targets
        self._steps += 1

    def close(self, progress: Progress, epoch: float, lr: float) -> LoggedStep:
        """Turn the sums into a line and start again; the one place where the loop waits.

        Raises:
            TrainingError: no step since the last line had a finite gradient.
        """
        loss = self._accelerator.reduce(self._loss_sum) / self._good_tokens
        num_bad = int(self._bad)  # sync: a logged line
        seconds = time.perf_counter() - self._start
        progress.seconds += seconds
        progress.num_bad_steps += num_bad
        if num_bad:
            logger.warning("skipped=%d steps with a gradient that is not finite", num_bad)
        if num_bad == self._steps:
            raise diverged(progress)
        tokens_per_s = self._tokens / seconds
        line = LoggedStep(
            step=progress.step,
            epoch=round(epoch, 4),
            loss=float(loss),  # sync: a logged line
            lr=lr,
            grad_norm=float(self._grad_norm),  # sync: a logged line
            tokens_per_s=tokens_per_s,
            mfu=self._speed.mfu(tokens_per_s, self._accelerator.num_processes),
            data_wait_s=self._wait_s,
        )
        self._reset()
        return line

    def to_values(self) -> dict[str, Any]:
        """Return the sums as plain values, those of every process; every process calls it."""
        return {
            "loss_sums": all_gather(float(self._loss_sum)),  # sync: a save
            "sums": [float(self._good_tokens), float(self._bad), float(self._grad_norm)],
            "tokens": self._tokens,
            "steps": self._steps,
            "seconds": time.perf_counter() - self._start,
        }

    def load_values(self, values: dict[str, Any]) -> None:
        """Undo `to_values`, on as many processes or on another number of them."""
        device = self._accelerator.device
        own = _own_share(values["loss_sums"], self._accelerator)
        self._loss_sum = torch.tensor(own, dtype=torch.float64, device=device)
        good, bad, norm = values["sums"]
        self._good_tokens = torch.tensor(good, dtype=torch.float64, device=device)
        self._bad = torch.tensor(bad, device=device)
        self._grad_norm = torch.tensor(norm, device=device)
        self._tokens, self._steps = values["tokens"], values["steps"]
        self._start = time.perf_counter() - values["seconds"]


def _own_share(sums: Sequence[float], accelerator: Accelerator) -> float:
    rank: int = accelerator.process_index
    if len(sums) == accelerator.num_processes:
        return sums[rank]
    return sum(sums) if rank == 0 else 0.0
