"""A causal language model as a function from blocks to its summed loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from huggingtweets.data.blocks import IGNORED
from huggingtweets.training.cross_entropy import linear_cross_entropy

PLAIN_HEADS = frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3", "gpt_neox"})
"""Architectures that neither scale nor cap their logits and have no bias in the head."""


def document_mask(position_ids: Tensor) -> Tensor:
    """Return where attention may look: causal, and never across a restart of the positions.

    Args:
        position_ids: (B, T) integers; each 0 begins a document.

    Returns:
        (B, 1, T, T) booleans, True where the row may attend to the column.
    """
    documents = (position_ids == 0).cumsum(dim=1)
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    return same.tril().unsqueeze(1)


class SummedLoss(nn.Module):
    """Wraps a model so that DDP, DeepSpeed and FSDP see one forward pass that ends in the loss."""

    def __init__(self, model: PreTrainedModel, *, isolate: bool) -> None:
        """Wrap a causal LM; `isolate` keeps attention within each document while training.

        In evaluation mode documents are always kept apart.
        """
        super().__init__()
        self.model = model
        self.isolate = isolate
        self._no_split_modules = getattr(model, "_no_split_modules", None)
        """What FSDP2 takes for a transformer block."""

    def forward(self, input_ids: Tensor, targets: Tensor, position_ids: Tensor) -> Tensor:
        """Return the cross-entropy summed over the targets of (B, T) blocks, in nats, fp32.

        The mask is explicit: left to itself, transformers isolates documents by their positions
        only without a cache and without a mask, and lets them leak silently otherwise.
        """
        isolate = self.isolate or not self.training
        mask = document_mask(position_ids) if isolate else None
        inputs = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": position_ids if isolate else None,
            "use_cache": False,
        }
        if self._has_plain_head():
            hidden = self.model.base_model(**inputs).last_hidden_state
            weight = self.model.get_output_embeddings().weight
            return linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten())
        logits = self.model(**inputs).logits
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def _has_plain_head(self) -> bool:
        """Whether logits are just hidden states times a weight that lies whole in this process."""
        if self.model.config.model_type not in PLAIN_HEADS:
            return False
        weight = self.model.get_output_embeddings().weight
        return type(weight.data) is Tensor and weight.ndim == 2  # neither ZeRO-3 nor FSDP


def check_isolation(model: PreTrainedModel, eos_id: int) -> bool:
    """Whether this architecture really keeps documents apart under `document_mask`.

    Compares two packed documents with each alone; a few milliseconds on a small model.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([[eos_id, 5, 6, 7, eos_id, 8, 9, 10]], device=device)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]], device=device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        packed = model(
            input_ids=ids,
            attention_mask=document_mask(positions),
            position_ids=positions,
            use_cache=False,
        ).logits
        alone = model(input_ids=ids[:, 4:], use_cache=False).logits
    model.train(was_training)
    return bool(torch.allclose(packed[:, 4:], alone, rtol=1e-3, atol=1e-3))  # sync: once a job
