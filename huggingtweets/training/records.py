"""What training leaves behind, as plain values; imports nothing heavy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class HeldoutLoss:
    """What a model makes of a held-out set."""

    nats: float
    """Summed over all targets, the end of each post among them."""
    num_tokens: int
    num_bytes: int

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats per token."""
        return self.nats / self.num_tokens

    @property
    def perplexity(self) -> float:
        """Per token."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of text: comparable between tokenizers."""
        return self.nats / math.log(2) / self.num_bytes


@dataclass(frozen=True)
class PostScore:
    """What a model makes of one post, BOS before it and, as the last target, EOS after it."""

    nats: float
    """Negative log-likelihood, summed over the targets."""
    num_tokens: int
    num_bytes: int
    greedy: tuple[bool, ...]
    """For each target: whether it is what the model holds most likely after the true beginning."""


@dataclass(frozen=True)
class Scores:
    """What a model makes of each of the posts that are scored beside training."""

    heldout: tuple[PostScore, ...]
    probe: tuple[PostScore, ...]
    rest: tuple[int, int, float] = (0, 0, 0.0)
    """Counts of further training posts, which are tried but not scored; see `count_extracted`."""


@dataclass(frozen=True)
class Extraction:
    """What came of prompting with the first tokens of posts."""

    num_posts: int
    verbatim_frac: float
    """Share of posts whose rest came out without a mistake."""
    prefix_frac: float
    """Share of the rest that came out before the first mistake, mean over posts."""


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
    data_wait_s: float = 0.0
    """Seconds since the line before in which the loop waited for its next blocks."""


@dataclass(frozen=True)
class LoggedEval:
    """Held-out figures after an epoch; step 0 is the base."""

    step: int
    epoch: float
    heldout: HeldoutLoss
    trained: HeldoutLoss | None = None
    """The same of some training posts."""
    extracted: Extraction | None = None
    """How far these can be extracted by their beginnings."""

    def gap_since(self, base: "LoggedEval") -> float | None:
        """Return the bits per byte by which training posts got better beyond held-out ones.

        None where no training posts were scored. About 0 while nothing is memorised.
        """
        if self.trained is None or base.trained is None:
            return None
        learnt = base.trained.bits_per_byte - self.trained.bits_per_byte
        return learnt - (base.heldout.bits_per_byte - self.heldout.bits_per_byte)


class Ending(StrEnum):
    """Why a training ended."""

    full = "full"
    """All its steps are taken."""
    heldout = "heldout"
    """The held-out loss no longer fell."""
    memorisation = "memorisation"
    """Too much was learnt about the training posts alone."""
    pruned = "pruned"
    """Whoever asked for the training had seen enough of it."""


def in_order(
    history: Sequence[LoggedStep], evals: Sequence[LoggedEval]
) -> list[LoggedStep | LoggedEval]:
    """Merge lines as they were logged: an evaluation follows its step."""
    return sorted([*history, *evals], key=lambda line: (line.step, isinstance(line, LoggedEval)))


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
    ended_by: Ending = Ending.full
    first_step_s: float | None = None
    """From the command to the end of the first step; of a later job in one process, from the job's
    beginning. None where jobs train side by side."""
    startup_frac: float | None = None
    """Share of that in the whole time until training ended."""
    data_wait_s: float = 0.0
    """In which the loop waited for its next blocks."""
    scores: Mapping[int, Scores] = field(default_factory=dict)
    """Step to scores, of the base (0) and of the kept weights; without those that were made before
    a resume."""

    def lines(self) -> list[LoggedStep | LoggedEval]:
        """Return all that was logged as it came about: an evaluation follows its step."""
        return in_order(self.history, self.evals)
