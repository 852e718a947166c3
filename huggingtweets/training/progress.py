"""A job in training: how far it is and what follows from that, whoever takes its steps.

Logging, evaluating, keeping and ending are decided here, once; *parallel* (`loop`) and *stacked*
(`stacked/loop`) differ in who computes. All of it are functions of the step and of figures that
every process has alike, so no process needs to be asked.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from huggingtweets.config.plan import Plan
from huggingtweets.config.schema import RecipeConfig, Stop
from huggingtweets.data.blocks import IGNORED, TrainingSet
from huggingtweets.data.prepare import HeldoutSet, Prepared
from huggingtweets.errors import TrainingError
from huggingtweets.training.ending import Judge, ending_after, is_to_keep
from huggingtweets.training.extraction import SetScores
from huggingtweets.training.records import (
    Ending,
    Extraction,
    HeldoutLoss,
    LoggedEval,
    LoggedStep,
    Scores,
    TrainResult,
    in_order,
)
from huggingtweets.training.schedule import count_steps, epoch_end_steps, epochs_at, lr_at

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]
Report = Callable[[LoggedStep | LoggedEval], None]

LOSS, GOOD_TARGETS, BAD_STEPS, GRAD_NORM = range(4)
"""Columns of totals (K, 4) fp64: what K models did since their last logged lines."""

MOST_BAD_STEPS = 10
"""In a row, before a training is given up. The loss scale of fp16 begins at 2**16 and doubles now
and then: one or a few steps overflow until it fits, and a line may be of a single step."""

_KEPT = ("step", "tokens", "seconds", "num_bad_steps", "history", "evals", "kept_step")
"""What a checkpoint holds of a training, beside weights and optimizer state."""


def new_totals(num: int, device: torch.device) -> Tensor:
    """Return the totals of K models that did nothing yet."""
    return torch.zeros(num, 4, dtype=torch.float64, device=device)


def add_step(
    totals: Tensor,
    losses: Tensor,
    norms: Tensor,
    *,
    taken: Tensor,
    num_targets: Tensor | int,
    is_due: Tensor | int = 1,
) -> None:
    """Add one optimizer step of K models to their totals; nothing leaves the device.

    Args:
        totals: (K, 4).
        losses: (K,) summed over the targets.
        norms: (K,) of the gradients.
        taken: (K,) 1 where the gradient was finite, else 0: the step changed nothing.
        num_targets: (K,) of the step.
        is_due: (K,) 0 where a model is idle.
    """
    is_taken = taken > 0
    loss, good_targets, bad_steps, grad_norm = totals.unbind(1)
    loss += torch.where(is_taken, losses, 0.0)
    good_targets += taken * num_targets
    bad_steps += is_due - taken
    grad_norm.copy_(torch.where(is_taken, norms, grad_norm))


@dataclass(frozen=True)
class Speed:
    """What turns tokens per second into a model FLOPs utilisation."""

    flops_per_token: float
    peak_flops: float | None
    """Of one device."""
    num_devices: int = 1

    def mfu(self, tokens_per_s: float) -> float | None:
        """Return the share of the devices' peak, or None where that is not known."""
        if self.peak_flops is None:
            return None
        return tokens_per_s * self.flops_per_token / (self.peak_flops * self.num_devices)


@dataclass(frozen=True)
class TrainingJob:
    """What is trained: one job, as either engine sees it."""

    slug: str
    training_set: TrainingSet
    heldout: HeldoutSet | None
    recipe: RecipeConfig
    seed: int
    """Of dropout."""
    probe: HeldoutSet | None = None
    """Training posts scored beside the held-out ones."""
    judge: Judge | None = None
    """Asked beside the recipe's own `stop`; ends the training where it gives a reason. A sweep
    prunes its trials so: the slot is free for the next job after the very evaluation."""


def training_job(
    plan: Plan, prepared: Prepared, *, slug: str | None = None, judge: Judge | None = None
) -> TrainingJob:
    """Return what is trained of a job that is prepared; by its own slug where none is given."""
    scores_known = plan.config.publish.known or plan.config.recipe.stop is Stop.memorisation
    return TrainingJob(
        slug or plan.job.slug,
        prepared.training_set,
        prepared.heldout,
        plan.config.recipe,
        plan.config.seed,
        prepared.probe if scores_known else None,
        judge,
    )


@dataclass(frozen=True)
class PendingLine:
    """A logged line whose totals are still on their way from the device."""

    step: int
    lr: float
    tokens: int
    num_steps: int
    seconds: float
    """Since the line before."""
    data_wait_s: float


@dataclass(eq=False)
class Training:
    """How far a job is."""

    job: TrainingJob
    report: Report = field(default=lambda line: None)
    """Takes each logged line and evaluation."""
    step: int = 0
    """Optimizer steps taken."""
    tokens: int = 0
    seconds: float = 0.0
    num_bad_steps: int = 0
    history: list[LoggedStep] = field(default_factory=list)
    evals: list[LoggedEval] = field(default_factory=list)
    best: Any = None
    """Weights of the lowest held-out loss so far, in the engine's own form."""
    kept_step: int = 0
    ended_by: Ending = Ending.full
    scores: dict[int, Scores] = field(default_factory=dict)
    """By step, of the base, the kept weights and the last evaluation; not in checkpoints."""
    bad_in_a_row: int = 0
    """Steps of the last lines that had no good one."""
    line_tokens: int = 0
    line_steps: int = 0
    line_wait_s: float = 0.0
    line_start: float = 0.0
    """By the clock that `end_line` is given; these four are since the last logged line."""

    def __post_init__(self) -> None:
        """Count once what every step asks for."""
        training_set, recipe = self.job.training_set, self.job.recipe
        self.total_steps = count_steps(training_set, recipe)
        self.epoch_ends = epoch_end_steps(training_set, recipe)
        targets = training_set.blocks.targets
        self._targets_per_block: npt.NDArray[np.int64] = (targets != IGNORED).sum(axis=1)

    @property
    def blocks(self) -> range:
        """Blocks of the next step."""
        size = self.job.recipe.global_batch_size
        start = self.step * size
        return range(start, min(start + size, len(self.job.training_set.blocks)))

    @property
    def num_targets(self) -> int:
        """Targets of the next step."""
        blocks = self.blocks
        return int(self._targets_per_block[blocks.start : blocks.stop].sum())

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self._lr_at(self.step)

    def _lr_at(self, step: int) -> float:
        return lr_at(step, recipe=self.job.recipe, total_steps=self.total_steps)

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step ended an epoch, or the training: time to evaluate."""
        return self._is_end(self.step)

    def _is_end(self, step: int) -> bool:
        return step in self.epoch_ends or step == self.total_steps

    def is_due(self, log_every: int) -> bool:
        """Whether the last step is followed by a logged line."""
        return self.step % log_every == 0 or self.ends_epoch

    @property
    def ending(self) -> Ending | None:
        """Why the training ends now; None: it goes on."""
        if self.step == self.total_steps:
            return Ending.full
        if len(self.evals) < 2 or self.evals[-1].step != self.step:
            return None
        ending = ending_after(self.job.recipe, self.evals)
        return ending or (self.job.judge(self.evals) if self.job.judge else None)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as spent waiting for data."""
        start = time.perf_counter()
        yield
        self.line_wait_s += time.perf_counter() - start

    def count_step(self) -> None:
        """Count a step that was taken."""
        num_targets = self.num_targets
        self.step += 1
        self.tokens += num_targets
        self.line_tokens += num_targets
        self.line_steps += 1

    def end_line(self, now: float) -> PendingLine:
        """Return the line up to the last step, and begin the next; `now` in seconds."""
        line = PendingLine(
            self.step,
            self._lr_at(self.step - 1),
            self.line_tokens,
            self.line_steps,
            now - self.line_start,
            self.line_wait_s,
        )
        self.line_tokens, self.line_steps, self.line_wait_s, self.line_start = 0, 0, 0.0, now
        return line

    def log(self, line: PendingLine, totals: Sequence[float], speed: float | None) -> None:
        """Write a line whose totals have arrived; `speed` is the utilisation of the device.

        Raises:
            TrainingError: no step had a finite gradient, for some time.
        """
        num_bad = int(totals[BAD_STEPS])
        self.seconds += line.seconds
        self.num_bad_steps += num_bad
        if num_bad:
            slug = self.job.slug
            logger.warning(
                "job=%s skipped=%d steps with a gradient that is not finite", slug, num_bad
            )
        self.bad_in_a_row = self.bad_in_a_row + num_bad if num_bad == line.num_steps else 0
        if self.bad_in_a_row:  # nothing to log: there was no loss
            # Of the line's step, not the last one: the next lines may be on their way already.
            learnt_nothing = self._is_end(line.step) and not self.history
            if self.bad_in_a_row >= MOST_BAD_STEPS or learnt_nothing:
                raise self._diverged()
            return
        self.history.append(
            LoggedStep(
                step=line.step,
                epoch=round(epochs_at(line.step, self.epoch_ends), 4),
                loss=totals[LOSS] / totals[GOOD_TARGETS],
                lr=line.lr,
                grad_norm=totals[GRAD_NORM],
                tokens_per_s=line.tokens / line.seconds,
                mfu=speed,
                data_wait_s=line.data_wait_s,
            )
        )
        self.report(self.history[-1])

    def add_eval(self, heldout: SetScores, probe: SetScores | None) -> bool:
        """Take the figures of an evaluation; return whether the weights are the best so far.

        Raises:
            TrainingError: they are not finite.
        """
        if not math.isfinite(heldout.loss.nats):
            raise self._diverged()
        epoch = epochs_at(self.step, self.epoch_ends)
        known = (probe.loss, probe.extraction) if probe else (None, None)
        self.evals.append(LoggedEval(self.step, epoch, heldout.loss, *known))
        self.report(self.evals[-1])
        is_best = is_to_keep(self.job.recipe, self.evals)
        if is_best:
            self.kept_step = self.step
        scores = self.scores | {self.step: Scores(heldout.posts, probe.posts if probe else ())}
        wanted = (0, self.kept_step, self.step)
        self.scores = {step: one for step, one in scores.items() if step in wanted}
        return is_best

    def _diverged(self) -> TrainingError:
        return TrainingError(
            f"training: the loss is not finite at step {self.step} "
            f"({self.num_bad_steps} steps were skipped); expected a finite loss; lower recipe.lr, "
            "raise recipe.warmup_frac or set engine.precision=fp32"
        )

    def result(self, mfu: float | None, peak_memory_gib: float) -> TrainResult:
        """Return how the training went."""
        return TrainResult(
            steps=self.step,
            epochs=epochs_at(self.step, self.epoch_ends),
            tokens=self.tokens,
            seconds=self.seconds,
            tokens_per_s=self.tokens_per_s,
            mfu=mfu,
            final_loss=self.history[-1].loss,
            peak_memory_gib=peak_memory_gib,
            history=tuple(self.history),
            evals=tuple(self.evals),
            kept_step=self.kept_step,
            scores=self.scores,
            ended_by=self.ended_by,
            data_wait_s=sum(line.data_wait_s for line in self.history),
        )

    @property
    def tokens_per_s(self) -> float:
        """Targets trained per second of training."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_values(self) -> dict[str, Any]:
        """Return everything but the weights, as plain JSON values."""
        values = {name: getattr(self, name) for name in _KEPT}
        for name in ("history", "evals"):
            values[name] = [asdict(line) for line in values[name]]
        return values | {"has_best": self.best is not None}

    def load_values(self, values: dict[str, Any], best: Weights) -> None:
        """Undo `to_values`, and report again all that was reported."""
        vars(self).update({name: values[name] for name in _KEPT})
        self.history = [LoggedStep(**line) for line in values["history"]]
        self.evals = [
            LoggedEval(
                **line
                | {key: line[key] and HeldoutLoss(**line[key]) for key in ("heldout", "trained")}
                | {"extracted": line["extracted"] and Extraction(**line["extracted"])}
            )
            for line in values["evals"]
        ]
        self.best = best if values["has_best"] else None
        for line in in_order(self.history, self.evals):
            self.report(line)
