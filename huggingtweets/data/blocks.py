"""Blocks of token ids: the one form in which text reaches an engine."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORED = -100
"""A target that counts for nothing."""

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Blocks:
    """N blocks of T tokens, all int32 arrays of shape (N, T)."""

    input_ids: Ids
    targets: Ids
    """The id that follows each input (already shifted); IGNORED where there is none to learn."""
    position_ids: Ids
    """Position within the document, restarting at 0 where attention must not look back further.

    Padding at the end of a block is a document of its own: EOS inputs, IGNORED targets.
    """

    def __len__(self) -> int:
        """Return N."""
        return len(self.input_ids)

    @property
    def num_targets(self) -> int:
        """Targets that count, over all blocks."""
        return int((self.targets != IGNORED).sum())


@dataclass(frozen=True)
class TrainingSet:
    """The blocks of a whole training, epoch after epoch, in the order in which they are used.

    Step s (from 0) trains on blocks s * G to (s + 1) * G of `blocks`, G the global batch size; the
    last step may have fewer, nothing is dropped, and a step may hold the end of one epoch and the
    start of the next.
    """

    blocks: Blocks
    blocks_per_epoch: tuple[int, ...]
    """Sums to N. Where blocks run on across epochs, a block belongs to the epoch of its start."""
