"""A causal language model as a function from blocks to its summed loss."""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from huggingtweets.data.blocks import IGNORED, Blocks
from huggingtweets.runtime.device import autocast_dtype, is_cpu, is_cuda
from huggingtweets.training.attention import (
    NAME,
    Attention,
    document_mask,
    documents_of,
    windows_of,
)
from huggingtweets.training.cross_entropy import linear_cross_entropy, linear_hits
from huggingtweets.training.hashed_dropout import HashedDropout

logger = logging.getLogger(__name__)

PLAIN = frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3", "gpt_neox"})
"""Architectures that neither scale nor cap their logits and have no bias in the head, and whose
attention is softmax over scaled scores and nothing else."""


class SummedLoss(nn.Module):
    """Wraps a model so that DDP, DeepSpeed and FSDP see one forward pass that ends in the loss."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        isolate: bool,
        attention: Attention = Attention.masked,
        most_documents: int = 0,
        longest_document: int = 0,
    ) -> None:
        """Wrap a causal LM; `isolate` keeps attention within each document while training.

        In evaluation mode documents are always kept apart.

        Args:
            model: it is changed so that it attends by `attention`, where it can be.
            isolate: see above.
            attention: how; only PLAIN architectures do otherwise than masked.
            most_documents: of a block, at most; for varlen.
            longest_document: tokens, at most; for varlen.
        """
        super().__init__()
        self.model = model
        self.isolate = isolate
        self.attention = attention if can_attend(model) else Attention.masked
        self._limits = most_documents, longest_document
        if self.attention is not Attention.masked:
            model.config._attn_implementation = NAME
        self._no_split_modules = getattr(model, "_no_split_modules", None)
        """What FSDP2 takes for a transformer block."""

    def forward(
        self, input_ids: Tensor, targets: Tensor, position_ids: Tensor, *, with_hits: bool = False
    ) -> Any:
        """Return the cross-entropy summed over the targets of (B, T) blocks, in nats, fp32.

        With hits, a pair of it and (B, T) booleans: whether the target is the likeliest token.
        """
        inputs = self.inputs(input_ids, position_ids)
        if self._has_plain_head():
            hidden = self.model.base_model(**inputs).last_hidden_state
            weight = self.model.get_output_embeddings().weight
            if with_hits:
                loss, hits = linear_hits(hidden.flatten(0, 1), weight, targets.flatten())
                return loss, hits.view_as(targets)
            return linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten())
        logits = self.model(**inputs).logits
        loss = F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        return (loss, logits.argmax(-1) == targets) if with_hits else loss

    def inputs(self, input_ids: Tensor, position_ids: Tensor) -> dict[str, Any]:
        """Return what the model is called with.

        A mask is explicit: left to itself, transformers isolates documents by their positions
        only without a cache and without a mask, and lets them leak silently otherwise.
        """
        isolate = self.isolate or not self.training
        inputs: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": None,
            "position_ids": position_ids if isolate else None,
            "use_cache": False,
        }
        if self.attention is Attention.windows:
            dtype = autocast_dtype(input_ids.device) or self.model.dtype
            inputs["spans"] = windows_of(position_ids, isolate=isolate, dtype=dtype)
        elif isolate and self.attention is Attention.varlen:
            most, longest = self._limits
            most *= len(input_ids)
            inputs["spans"] = documents_of(position_ids, most=most, longest=longest)
        elif isolate:
            inputs["attention_mask"] = document_mask(position_ids)
        return inputs

    def _has_plain_head(self) -> bool:
        """Whether logits are just hidden states times a weight that lies whole in this process."""
        if self.model.config.model_type not in PLAIN:
            return False
        weight = self.model.get_output_embeddings().weight
        return type(weight.data) is Tensor and weight.ndim == 2  # neither ZeRO-3 nor FSDP


def can_attend(model: PreTrainedModel) -> bool:
    """Whether this architecture's attention can be replaced by ours."""
    windowed = getattr(model.config, "sliding_window", None)
    return model.config.model_type in PLAIN and windowed is None


def quicken(model: PreTrainedModel) -> None:
    """Exchange modules without weights for quicker ones that compute the same.

    GPT-2's activation of eight operations becomes the one PyTorch has for it (a third of the time
    in fp32), dropouts become `HashedDropout` (a tenth on a CPU).
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, HashedDropout(child.p))
            elif type(child).__name__ == "NewGELUActivation":
                setattr(parent, name, nn.GELU(approximate="tanh"))


def spare_embeddings(module: SummedLoss) -> None:
    """Have the embeddings' gradient touch the rows looked up only, where a head shares the weights.

    That of the head is whole, and the other is added to it in place. For one process on a CPU: DDP
    wants gradients of one kind, and CUDA would wait.
    """
    table: Any = module.model.get_input_embeddings()
    head: Any = module.model.get_output_embeddings()
    if type(table) is nn.Embedding and head is not None and head.weight is table.weight:
        table.sparse = True


def document_limits(*sets: Blocks) -> tuple[int, int]:
    """Return the most documents of any block, and the tokens of the longest document of any."""
    starts = [blocks.position_ids == 0 for blocks in sets]
    most = max(int(each.sum(axis=1).max()) for each in starts)
    longest = max(int(blocks.position_ids.max()) + 1 for blocks in sets)
    return max(most, 2), max(longest, 8)  # `check_isolation` has 2 and 4


def choose_attention(
    device: torch.device, dtype: torch.dtype, *, is_sharded: bool, is_compiled: bool
) -> Attention:
    """Return how to attend on a device, in the precision of the matrix products."""
    if is_cuda(device) and dtype != torch.float32 and not is_sharded:
        return Attention.varlen
    if is_cpu(device) and not is_compiled:
        return Attention.windows
    return Attention.masked


def settle_attention(module: SummedLoss, eos_id: int) -> bool:
    """Whether the module keeps documents apart; one that does not with its kernel goes without.

    The model lies where it is to be trained, and the precision of the training is set.
    """
    try:
        if check_isolation(module, eos_id):
            return True
        reason = "documents see each other"
    except (RuntimeError, TypeError, NotImplementedError) as err:
        if module.attention is Attention.masked:
            raise
        reason = str(err).splitlines()[0]
    if module.attention is Attention.masked:
        return False
    logger.warning("attention=masked instead of %s: %s", module.attention, reason)
    module.attention = Attention.masked
    return check_isolation(module, eos_id)


def check_isolation(module: SummedLoss, eos_id: int) -> bool:
    """Whether this module really keeps documents apart.

    Compares two packed documents with each alone; a few milliseconds on a small model.
    """
    model = module.model
    device = next(model.parameters()).device
    ids = torch.tensor([[eos_id, 5, 6, 7, eos_id, 8, 9, 10]], device=device)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]], device=device)
    was_training = module.training
    module.eval()
    with torch.no_grad():
        packed = model(**module.inputs(ids, positions)).logits
        alone = model(input_ids=ids[:, 4:], use_cache=False).logits
    module.train(was_training)
    tolerance = 1e-3 if packed.dtype == torch.float32 else 3e-2
    return torch.allclose(packed[:, 4:], alone, rtol=tolerance, atol=tolerance)  # sync: once a job
