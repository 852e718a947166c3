"""A causal language model as a function from blocks to its summed loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from huggingtweets.data.blocks import IGNORED, Blocks
from huggingtweets.errors import first_line
from huggingtweets.runtime.device import autocast_dtype, is_cpu, is_cuda
from huggingtweets.training.modules.attention import (
    NAME,
    Attention,
    additive_mask,
    document_mask,
    documents_of,
    register,
    windows_of,
)
from huggingtweets.training.modules.cross_entropy import linear_cross_entropy, linear_hits
from huggingtweets.training.modules.hashed_dropout import HashedDropout
from huggingtweets.upstream import attention_kind, block_classes, set_attention_kind

logger = logging.getLogger(__name__)

PLAIN = frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3", "gpt_neox"})
"""Architectures that neither scale nor cap their logits and have no bias in the head, and whose
attention is softmax over scaled scores and nothing else."""


class SummedLoss(nn.Module):
    """Wraps a model so that DDP, DeepSpeed and FSDP see one forward pass that ends in the loss."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
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
        if self.attention is Attention.masked and attention_kind(model.config) == "eager":
            self.attention = Attention.additive
        if self._outgrows_window(longest_document):
            self.attention = Attention.apart
        self._limits = most_documents, longest_document
        self.frozen_head: Tensor | None = None
        """The output embedding (V, C) in the precision of the products, where it is not trained and
        logits are hidden states times it, nothing more."""
        if self.attention in (Attention.windows, Attention.varlen):
            register()
            set_attention_kind(model.config, NAME)
        self._no_split_modules = block_classes(model)
        """What FSDP2 takes for a transformer block."""

    def forward(
        self, input_ids: Tensor, targets: Tensor, position_ids: Tensor, *, with_hits: bool = False
    ) -> Any:
        """Return the cross-entropy summed over the targets of (B, T) blocks, in nats, fp32.

        With hits, instead of the sum two of (B, T): the cross-entropy of each target, and whether
        it is the likeliest token.
        """
        if self.attention is Attention.apart and (self.isolate or not self.training):
            return self._apart(input_ids, targets, position_ids, with_hits=with_hits)
        return self._summed(self.inputs(input_ids, position_ids), targets, with_hits=with_hits)

    def _summed(self, inputs: dict[str, Any], targets: Tensor, *, with_hits: bool) -> Any:
        if self._has_plain_head():
            hidden = self.model.base_model(**inputs).last_hidden_state
            weight = self.frozen_head
            if weight is None:
                weight = self.model.get_output_embeddings().weight
            if with_hits:
                nats, hits = linear_hits(hidden.flatten(0, 1), weight, targets.flatten())
                return nats.view_as(targets), hits.view_as(targets)
            return linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten())
        logits = self.model(**inputs).logits
        loss = F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="none" if with_hits else "sum",
        )
        return (loss.view_as(targets), logits.argmax(-1) == targets) if with_hits else loss

    def _apart(
        self, input_ids: Tensor, targets: Tensor, position_ids: Tensor, *, with_hits: bool
    ) -> Any:
        """Do what `forward` does with a row for each document, padded on the right.

        What looks back only sees nothing of padding that comes after it. Documents of like length
        share a call, so that padding never costs more than the block itself.
        """
        ids, wanted = input_ids.flatten(), targets.flatten()
        starts = (position_ids.flatten() == 0).nonzero().squeeze(1).tolist()  # sync: rare families
        spans = list(zip(starts, [*starts[1:], len(ids)], strict=True))
        spans = [span for span in spans if (wanted[slice(*span)] != IGNORED).any()]
        hits = torch.zeros_like(wanted, dtype=torch.bool)
        nats = torch.zeros(wanted.shape, device=wanted.device)
        losses = []
        for group in _groups_of_like_length(spans, most_tokens=len(ids)):
            longest = max(stop - start for start, stop in group)
            rows = ids.new_zeros(len(group), longest)
            row_targets = torch.full_like(rows, IGNORED)
            for row, (start, stop) in enumerate(group):
                rows[row, : stop - start] = ids[start:stop]
                row_targets[row, : stop - start] = wanted[start:stop]
            found = self._summed(
                {"input_ids": rows, "use_cache": False}, row_targets, with_hits=with_hits
            )
            if not with_hits:
                losses.append(found)
                continue
            for row, (start, stop) in enumerate(group):
                nats[start:stop], hits[start:stop] = (part[row, : stop - start] for part in found)
        if with_hits:
            return nats.view_as(targets), hits.view_as(targets)
        return torch.stack(losses).sum()

    @torch.no_grad()
    def score(
        self, blocks: Blocks, num: int, device: torch.device
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the nats of every target, and whether each is the likeliest token, (N, T) each.

        So many blocks are computed at once. In evaluation mode; where there is no target they are 0
        and false.
        """
        found = []
        for start in range(0, len(blocks), num):
            arrays = (blocks.input_ids, blocks.targets, blocks.position_ids)
            parts = (torch.from_numpy(array[start : start + num]).long() for array in arrays)
            found.append(self(*(part.to(device) for part in parts), with_hits=True))
        # sync: once per set of posts
        nats, hits = (torch.cat(part).cpu() for part in zip(*found, strict=True))
        return nats.float().numpy(), hits.numpy()

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
        elif isolate and self.attention is Attention.additive:
            inputs["attention_mask"] = additive_mask(position_ids, self.model.dtype)
        elif isolate:
            inputs["attention_mask"] = document_mask(position_ids)
        elif self._waits_without_mask(input_ids):
            places = torch.arange(input_ids.shape[1], device=input_ids.device)
            inputs["attention_mask"] = document_mask(places.unsqueeze(0))
        return inputs

    def _waits_without_mask(self, input_ids: Tensor) -> bool:
        """Whether transformers (4.57 to 5.23) would look for documents, and so wait for the GPU."""
        is_alike = not self._outgrows_window(input_ids.shape[1])
        return is_cuda(input_ids.device) and self.attention is Attention.masked and is_alike

    def logits(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Return the logits (B, T, V) of isolated documents, in evaluation mode."""
        if self.attention is not Attention.apart:
            logits: Tensor = self.model(**self.inputs(input_ids, position_ids)).logits
            return logits
        rows = []
        for ids, positions in zip(input_ids, position_ids, strict=True):
            starts = (positions == 0).nonzero().squeeze(1).tolist()  # sync: in a check alone
            ends = [*starts[1:], len(ids)]
            parts = [ids[None, start:end] for start, end in zip(starts, ends, strict=True)]
            rows.append(
                torch.cat([self.model(input_ids=p, use_cache=False).logits[0] for p in parts])
            )
        return torch.stack(rows)

    def _outgrows_window(self, longest_document: int) -> bool:
        """Whether a document is longer than some layers may look back.

        A mask of ours stands in the place of theirs, so such documents go without it.
        """
        window = getattr(self.model.config.get_text_config(), "sliding_window", None)
        return isinstance(window, int) and 0 < window < longest_document

    def hold_head(self, device: torch.device, dtype: torch.dtype) -> None:
        """Hold a frozen output embedding in the precision of the products, if that is all it does.

        Tied to the embedding it stays in fp32 otherwise, and is cast anew for every micro-batch.
        On the device of the training at once: it moves with the module to none.
        """
        if self._has_plain_head():
            weight = self.model.get_output_embeddings().weight.detach()
            self.frozen_head = weight.to(device, dtype)

    def _has_plain_head(self) -> bool:
        """Whether logits are just hidden states times a weight that lies whole in this process."""
        if self.frozen_head is not None:
            return True
        if self.model.config.model_type not in PLAIN:
            return False
        weight = self.model.get_output_embeddings().weight
        return type(weight.data) is Tensor and weight.ndim == 2  # neither ZeRO-3 nor FSDP


def can_attend(model: transformers.PreTrainedModel) -> bool:
    """Whether this architecture's attention can be replaced by ours."""
    windowed = getattr(model.config, "sliding_window", None)
    return model.config.model_type in PLAIN and windowed is None


def swap_modules(model: transformers.PreTrainedModel, *, dropouts: bool = True) -> None:
    """Exchange modules without weights for quicker ones that compute the same.

    GPT-2's activation of eight operations becomes the one PyTorch has for it (a third of the time
    in fp32), dropouts, if wanted, become `HashedDropout` (a tenth on a CPU).
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout and dropouts:
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


def settle_attention(module: SummedLoss, bos_id: int) -> bool:
    """Whether the module keeps documents apart, once it attends in the first way that does.

    The model lies where it is to be trained, and the precision of the training is set. False: even
    a document alone looks ahead, so that this is not a causal language model.
    """
    wished = module.attention
    ways = [Attention.masked, Attention.additive, Attention.apart]
    ways = ways[ways.index(wished) :] if wished in ways else [wished, *ways]
    reason = ""
    for way in ways:
        if way is Attention.masked and attention_kind(module.model.config) == "eager":
            continue
        try:
            if way is not module.attention:
                _attend_by(module, way)
            if check_isolation(module, bos_id):
                if way is not wished:
                    logger.warning("attention=%s instead of %s: %s", way, wished, reason)
                return True
            reason = reason or "documents see each other"
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as err:
            reason = reason or first_line(err)
    return False


def _attend_by(module: SummedLoss, way: Attention) -> None:
    """Go over to a way that costs more and asks less of the architecture."""
    module.attention = way
    if attention_kind(module.model.config) == NAME:
        set_attention_kind(module.model.config, "sdpa")
    if way is Attention.additive:
        module.model.set_attn_implementation("eager")


def check_isolation(module: SummedLoss, bos_id: int) -> bool:
    """Whether this module keeps documents apart, and sees no word before it comes.

    Two packed documents are compared with each alone. Then one word changes, first in the document
    before, then at the very end: what must not see it may not change at all. A few milliseconds on
    a small model.
    """
    model = module.model
    device = next(model.parameters()).device
    ids = torch.tensor([[bos_id, 5, 6, 7, bos_id, 8, 9, 10]], device=device)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]], device=device)
    earlier, later = ids.clone(), ids.clone()
    earlier[0, 2], later[0, 7] = 9, 6
    was_training = module.training
    module.eval()
    with torch.no_grad():
        packed = module.logits(ids, positions)
        alone = model(input_ids=ids[:, 4:], use_cache=False).logits
        leaked = (module.logits(earlier, positions) - packed)[:, 4:].abs().max()
        ahead = (module.logits(later, positions) - packed)[:, :7].abs().max()
    module.train(was_training)
    tolerance = 1e-3 if packed.dtype == torch.float32 else 3e-2
    is_same = torch.allclose(packed[:, 4:], alone, rtol=tolerance, atol=tolerance)
    # Same shapes, same kernels: an isolated document's logits are equal bit for bit except for sums
    # that a kernel splits by chance. Random weights of a small model leak far more than this.
    least = 1e-4 * float(packed.float().std())
    return is_same and max(float(leaked), float(ahead)) <= least  # sync: once per job


def _groups_of_like_length(
    spans: Sequence[tuple[int, int]], *, most_tokens: int
) -> list[list[tuple[int, int]]]:
    """Cut spans, sorted by length, into groups of at most this many tokens, padding included."""
    groups: list[list[tuple[int, int]]] = []
    for span in sorted(spans, key=lambda span: span[1] - span[0]):
        if not groups or (len(groups[-1]) + 1) * (span[1] - span[0]) > most_tokens:
            groups.append([])
        groups[-1].append(span)
    return groups
