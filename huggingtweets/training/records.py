"""What training leaves behind, as plain values."""

from dataclasses import dataclass

from huggingtweets.training.heldout import HeldoutLoss


@dataclass(frozen=True)
class LoggedStep:
    """One line of metrics.jsonl."""

    step: int
    """Optimizer steps taken."""
    epoch: float
    loss: float
    """Mean nats per target since the line before."""
    lr: float
    grad_norm: float
    """Of the last step, before clipping."""
    tokens_per_s: float
    """Targets trained per second since the line before, over all processes."""
    mfu: float | None
    """Model FLOPs utilisation; None where the device's peak is not known."""


@dataclass(frozen=True)
class LoggedEval:
    """Held-out figures after an epoch; step 0 is the base."""

    step: int
    epoch: float
    heldout: HeldoutLoss


@dataclass(frozen=True)
class TrainResult:
    """How a training went."""

    steps: int
    epochs: float
    tokens: int
    """Targets trained."""
    seconds: float
    """In training steps alone: no start-up, evaluation or saving."""
    tokens_per_s: float
    mfu: float | None
    final_loss: float
    """That of the last logged line."""
    peak_memory_gib: float | None
    history: tuple[LoggedStep, ...]
    evals: tuple[LoggedEval, ...]
    kept_step: int
    """The step whose weights became the model."""
