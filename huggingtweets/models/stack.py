"""K models of one shape in memory: weights of their own, or adapters on one frozen base."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from huggingtweets.models.layout import Layout, Parameters, Shape
from huggingtweets.ops.linear import Gradients, Linear, LowRank
from huggingtweets.runtime.device import is_cuda
from huggingtweets.upstream import copy_tensors


@dataclass(frozen=True)
class Adapters:
    """Low-rank additions to the linear layers of K models: one mapping per layer, by name."""

    master: tuple[Mapping[str, LowRank], ...]
    """Views of the rows of a stack."""
    compute: tuple[Mapping[str, LowRank], ...]
    """The same in the precision of the matrix products."""
    scale: Tensor
    """(K,) fp32."""

    def slots(self, start: int, stop: int) -> "Adapters":
        """Return those of some neighbouring slots; shares memory."""
        master, compute = (
            tuple(
                {name: part.map(lambda tensor: tensor[start:stop]) for name, part in layer.items()}
                for layer in layers
            )
            for layers in (self.master, self.compute)
        )
        return Adapters(master, compute, self.scale[start:stop])

    def refresh(self) -> None:
        """Bring the copy up to date with the master."""
        copies, masters = (
            [tensor for layer in layers for part in layer.values() for tensor in part.tensors()]
            for layers in (self.compute, self.master)
        )
        if copies[0].dtype != masters[0].dtype:
            copy_tensors(copies, masters)


@dataclass(frozen=True)
class Stack:
    """K models of one shape."""

    shape: Shape
    rows: Tensor
    """(K, N) fp32, contiguous: what is trained."""
    master: Parameters
    """fp32: views of the rows, or the frozen base as the only model."""
    compute: Parameters
    """What the matrix products use: the master itself, or its copy in bf16. On a CPU the copy is no
    row but tensors of their own: bf16 products there would copy what is not contiguous."""
    table: Tensor
    """(n, C): the rows that hold the embeddings, cut in widths."""
    adapters: Adapters | None = None
    copies: Tensor | None = None
    """(K, N) on CUDA: the copy of the rows that what products use are views of."""
    frequencies: Tensor | None = None
    """(head width / 2,) fp32, of rotary positions; on the device, as a pass that is captured as a
    CUDA graph may not copy from the host."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix products."""
        return self.head.dtype

    @property
    def head(self) -> Tensor:
        """The output embedding (K, padded vocabulary, C), in the precision of the products."""
        return self.compute.own["wte" if self.shape.is_tied else "lm_head"]

    def slots(self, start: int, stop: int) -> "Stack":
        """Return the stack of some neighbouring slots; shares memory."""
        rows = self.rows[start:stop]
        copies = None if self.copies is None else self.copies[start:stop]
        if self.adapters is not None:
            adapters = self.adapters.slots(start, stop)
            return replace(self, rows=rows, adapters=adapters, copies=copies)
        master = self.master.map(lambda tensor: tensor[start:stop])
        compute = master
        if self.compute is not self.master:
            compute = self.compute.map(lambda tensor: tensor[start:stop])
        table = rows.view(-1, self.shape.width)
        return replace(self, rows=rows, master=master, compute=compute, table=table, copies=copies)

    def refresh(self) -> None:
        """Bring the copy up to date with the master."""
        if self.copies is not None:
            self.copies.copy_(self.rows)
        elif self.adapters is not None:
            self.adapters.refresh()
        elif self.compute is not self.master:
            copy_tensors(self.compute.tensors(), self.master.tensors())

    def load(self, slot: int, row: Tensor, scale: float = 1.0) -> None:
        """Put a model (N,) into a slot, or adapters and their scale."""
        self.rows[slot].copy_(row)
        if self.adapters is not None:
            self.adapters.scale[slot].fill_(scale)
        self.slots(slot, slot + 1).refresh()

    def state(self) -> tuple[Tensor, ...]:
        """Return what belongs to the slots: (K, ...) each."""
        return (self.rows,) if self.adapters is None else (self.rows, self.adapters.scale)

    def linear(self, index: int, name: str) -> Linear:
        """Return a linear layer of layer `index`, in the precision of the matrix products."""
        layer = self.compute.layers[index]
        weight, bias = layer[f"{name}_weight"], layer.get(f"{name}_bias")
        if self.adapters is None:
            return Linear(weight, bias)
        return Linear(weight, bias, self.adapters.compute[index][name], self.adapters.scale)

    def gradients(self, index: int, name: str) -> Gradients:
        """Return where the gradients of a linear layer go, in a stack of gradients."""
        if self.adapters is not None:
            adapter = self.adapters.master[index][name]
            return Gradients(adapter.down, adapter.up)
        return gradients_of(self.master.layers[index], name)


def gradients_of(part: Mapping[str, Tensor], name: str) -> Gradients:
    """Return the weight and the bias, if there is one, of this name."""
    return Gradients(part[f"{name}_weight"], part.get(f"{name}_bias"))


def build_stack(layout: Layout, rows: Tensor, dtype: torch.dtype) -> Stack:
    """Return the stack of a contiguous (K, N) fp32 buffer, for products in fp32 or bf16."""
    master = layout.stack(rows)
    compute, copies = master, copies_of(rows, dtype)
    if copies is not None:
        compute = layout.stack(copies)
    elif dtype != rows.dtype:
        compute = master.map(lambda t: t.to(dtype, copy=True).contiguous())
    table, rotary = rows.view(-1, layout.shape.width), layout.shape.rotary
    frequencies = None if rotary is None else torch.tensor(rotary.frequencies, device=rows.device)
    return Stack(layout.shape, rows, master, compute, table, copies=copies, frequencies=frequencies)


def copies_of(rows: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return the copy (K, N) that products are to use; None: the rows, or tensors of their own."""
    return rows.to(dtype) if dtype != rows.dtype and is_cuda(rows.device) else None
