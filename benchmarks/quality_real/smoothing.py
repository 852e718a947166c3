"""Labels smoothed towards a person's own token statistics, for adapters on a frozen head.

The loss of a token y is (1 - e) * -log p(y) + e * sum over v of q(v) * -log p(v), where q holds the
shares of tokens in the person's training posts. Both parts have the same log-sum-exp, so it is the
plain loss and e * (z(y) - sum of q(v) z(v)), which is e * h . (W(y) - sum of q(v) W(v)) for hidden
states h and the output embedding W: no further product with the vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from huggingtweets.data.blocks import IGNORED, Ids
from huggingtweets.training.stacked.grouped import GroupedBase


def token_shares(targets: Ids, vocab_size: int) -> Tensor:
    """Return q (vocab_size,) of one person's training targets."""
    counts = np.bincount(targets[targets != IGNORED], minlength=vocab_size)
    return torch.from_numpy(counts / counts.sum()).float()


@contextmanager
def smoothed_labels(frac: float, shares: Tensor) -> Iterator[None]:
    """Have adapters of one person be trained on smoothed labels for a while.

    Args:
        frac: e above.
        shares: q above.
    """
    plain = GroupedBase.losses

    def losses(self: GroupedBase, blocks: Any, *arguments: Any) -> Tensor:
        states: list[Tensor] = []
        trunk = self.grouped.model.base_model
        with trunk.register_forward_hook(lambda _, __, out: states.append(out.last_hidden_state)):
            loss: Tensor = plain(self, blocks, *arguments)
        table, targets = self.module.frozen_head, blocks[1].flatten(1)
        assert table is not None, "its logits are not hidden states times the output embedding"
        hidden = states[0].view(*targets.shape, -1)
        apart = table[targets.clamp(min=0)] - shares @ table
        loss += frac * ((hidden * apart).sum(-1) * (targets != IGNORED)).sum(1)
        return loss

    patched: Any = GroupedBase
    patched.losses = losses
    try:
        yield
    finally:
        patched.losses = plain
