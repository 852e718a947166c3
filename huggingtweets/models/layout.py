"""K models of one shape as the rows of one buffer: what lies where, and the way in and out.

One row is one model. Copying a model in, zeroing its moments, taking its gradient norm or an AdamW
step is one operation on a row, and a layer of all K models is a strided view (K, ...).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_VOCAB_MULTIPLE = 64
"""The embedding gets zero rows up to a multiple of this: an odd 50,257 is slow on tensor cores."""


@dataclass(frozen=True)
class Rotary:
    """Rotary positions of a shape."""

    frequencies: tuple[float, ...]
    """(head width / 2,), radians per position."""
    factor: float
    """What cosines and sines are multiplied by."""
    layers: tuple[bool, ...]
    """Which layers turn their queries and keys."""


@dataclass(frozen=True)
class Shape:
    """All that the arithmetic of a model depends on, beside its weights."""

    family: str
    """The `model_type` of transformers."""
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    width: int
    inner_width: int
    vocab_size: int
    num_positions: int
    norm_eps: float
    score_scales: tuple[float, ...]
    """What attention scores are multiplied by, one per layer."""
    dropouts: tuple[float, float, float]
    """The base's own: of embeddings, attention and residuals."""
    can_drop: tuple[bool, bool, bool] = (True, True, True)
    """Which of these the family has at all."""
    is_tied: bool = True
    """The output embedding is the input embedding."""
    rotary: Rotary | None = None
    is_gated: bool = False
    """The feed-forward layers have a gate beside what it lets through."""
    has_head_norms: bool = False
    """Queries and keys are normed head by head."""
    sliding: tuple[int | None, ...] = ()
    """How many tokens each layer sees at most; empty: all see all before them."""

    def dropouts_at(self, rate: float | None) -> tuple[float, float, float]:
        """Return the dropout of embeddings, attention and residuals; None: the base's own."""
        if rate is None:
            return self.dropouts
        first, second, third = (rate if can else 0.0 for can in self.can_drop)
        return first, second, third

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding as stored; those from `vocab_size` on are zero and stay so."""
        return -(-self.vocab_size // _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE

    @property
    def qkv_width(self) -> int:
        """Queries, keys and values of a token, side by side."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_width


@dataclass(frozen=True)
class Tensors:
    """One tensor of K models, or several of transformers side by side in one."""

    shape: tuple[int, ...]
    """As stored, of one model: matrices (in, out), vectors (out,)."""
    sources: Sequence[tuple[str, int]]
    """Names in transformers, `{}` for the number of the layer, and how many columns each has."""
    is_transposed: bool = False
    """Transformers stores (out, in)."""


@dataclass(frozen=True)
class Parameters:
    """The parameters of K models, or their gradients: tensors (K, ...) by our own names."""

    own: Mapping[str, Tensor]
    layers: tuple[Mapping[str, Tensor], ...]

    def tensors(self) -> list[Tensor]:
        """Return all of them, always in the same order."""
        return [tensor for part in (self.own, *self.layers) for tensor in part.values()]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Parameters":
        """Return what a function makes of each tensor."""
        own, *layers = (
            {name: change(tensor) for name, tensor in part.items()}
            for part in (self.own, *self.layers)
        )
        return Parameters(own, tuple(layers))


@dataclass(frozen=True)
class Layout:
    """Where the parameters of a model lie in its row: matrices first, vectors after."""

    shape: Shape
    places: Mapping[str, tuple[int, tuple[int, ...]]]
    """Name as in transformers, or several joined by +, -> first value, and shape as stored."""
    num_decayed: int
    """Values in matrices, which weight decay applies to: the first of the row."""
    num_values: int
    """Values in all; what follows in the row is zero and stays so."""
    size: int
    """N, a multiple of the width."""
    own: Mapping[str, Tensors] = field(repr=False)
    """Our own name -> what it is, outside of the layers."""
    layer: Mapping[str, Tensors] = field(repr=False)
    """Likewise, of each layer."""

    def stack(self, rows: Tensor) -> Parameters:
        """Return the views of a contiguous (K, N) buffer."""

        def view(tensors: Tensors, index: int) -> Tensor:
            start, shape = self.places[_place_name(tensors, index)]
            return rows[:, start : start + math.prod(shape)].view(len(rows), *shape)

        return Parameters(
            {name: view(tensors, 0) for name, tensors in self.own.items()},
            tuple(
                {name: view(tensors, index) for name, tensors in self.layer.items()}
                for index in range(self.shape.num_layers)
            ),
        )

    def pack(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the row (N,), fp32 on the CPU, of a state dict of transformers."""
        row = torch.zeros(self.size)
        for name, view in self.named(row).items():
            view.copy_(state[name].detach())
        return row

    def holds(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict has all that `pack` asks for, in these shapes."""
        views = self.named(torch.empty(self.size))
        return all(name in state and state[name].shape == v.shape for name, v in views.items())

    @property
    def num_multiplied(self) -> int:
        """Weights of matrix products and what little belongs to them; what is looked up is not."""
        looked_up = ("wpe",) if self.shape.is_tied else ("wpe", "wte")
        sizes = [math.prod(self.own[name].shape) for name in looked_up if name in self.own]
        return self.num_values - sum(sizes)

    def unpack(self, row: Tensor) -> dict[str, Tensor]:
        """Return the state dict of a row (N,), copied; a tied output embedding is one tensor."""
        state = {}
        for name, view in self.named(row).items():
            state[name] = view.clone(memory_format=torch.contiguous_format)
        if self.shape.is_tied:
            [(table, _)] = self.own["wte"].sources
            state["lm_head.weight"] = state[table]
        return state

    def named(self, row: Tensor) -> dict[str, Tensor]:
        """Return the views of a row, each in the form that transformers has it, by its name."""
        parameters = self.stack(row.unsqueeze(0))
        found = {}
        parts = ((self.own, parameters.own), *((self.layer, part) for part in parameters.layers))
        for index, (table, views) in enumerate(parts):
            for name, tensors in table.items():
                start = 0
                for source, columns in tensors.sources:
                    view = views[name][0][..., start : start + columns]
                    if name in ("wte", "lm_head"):
                        view = view[: self.shape.vocab_size]
                    start += columns
                    found[source.format(index - 1)] = view.T if tensors.is_transposed else view
        return found


def lay_out(shape: Shape, own: Mapping[str, Tensors], layer: Mapping[str, Tensors]) -> Layout:
    """Lay out one model of a family's tensors; the first is its embedding, `wte`."""
    named: dict[str, tuple[int, ...]] = {_place_name(t, 0): t.shape for t in own.values()}
    for index in range(shape.num_layers):
        named |= {_place_name(tensors, index): tensors.shape for tensors in layer.values()}
    # Matrices first, so that weight decay is over one stretch of a row; a whole number of widths,
    # so that all rows of the K models are one table of embeddings.
    matrices = {name: size for name, size in named.items() if len(size) == 2}
    vectors = {name: size for name, size in named.items() if len(size) == 1}
    places, end = {}, 0
    for name, size in (matrices | vectors).items():
        places[name] = (end, size)
        end += math.prod(size)
    return Layout(
        shape,
        places,
        num_decayed=sum(map(math.prod, matrices.values())),
        num_values=end,
        size=end + -end % shape.width,
        own=own,
        layer=layer,
    )


def _place_name(tensors: Tensors, index: int) -> str:
    return "+".join(name for name, _ in tensors.sources).format(*[index] * len(tensors.sources))
