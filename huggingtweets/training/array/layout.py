"""K GPT-2 models of one shape as the rows of one buffer: what lies where, and the way in and out.

One row is one model. Copying a model in, zeroing its moments, taking its gradient norm or an AdamW
step is one operation on a row, and a layer of all K models is a strided view (K, ...).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from huggingtweets.errors import ConfigError

_VOCAB_MULTIPLE = 64
"""The embedding gets zero rows up to a multiple of this: an odd 50,257 is slow on tensor cores."""

_TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


@dataclass(frozen=True)
class Shape:
    """All that the arithmetic of a GPT-2 depends on, beside its weights."""

    num_layers: int
    num_heads: int
    width: int
    inner_width: int
    vocab_size: int
    num_positions: int
    norm_eps: float
    score_scales: tuple[float, ...]
    """What attention scores are multiplied by, one a layer."""
    dropouts: tuple[float, float, float]
    """The base's own: of embeddings, attention and residuals."""

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding as stored; those from `vocab_size` on are zero and stay so."""
        return -(-self.vocab_size // _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE


def why_not_fused(config: Any) -> str | None:
    """Return in one sentence why models of a transformers config cannot be stacked, or None."""
    if config.model_type != "gpt2":
        return f"the fused engine stacks GPT-2 models only, and this is {config.model_type}"
    if config.activation_function not in _TANH_GELUS:
        return f"the fused engine knows no activation {config.activation_function!r}"
    if not config.tie_word_embeddings:
        return "the fused engine needs the output embedding tied to the input embedding"
    if config.add_cross_attention or config.reorder_and_upcast_attn:
        return "the fused engine knows neither cross-attention nor upcast attention scores"
    return None


def shape_of(config: Any) -> Shape:
    """Return the shape of a transformers GPT2Config.

    Raises:
        ConfigError: such models cannot be stacked.
    """
    reason = why_not_fused(config)
    if reason:
        raise ConfigError(f"engine.kind: got fused; {reason}; set engine=single")
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    by_layer = config.scale_attn_by_inverse_layer_idx
    return Shape(
        num_layers=config.n_layer,
        num_heads=config.n_head,
        width=config.n_embd,
        inner_width=config.n_inner or 4 * config.n_embd,
        vocab_size=config.vocab_size,
        num_positions=config.n_positions,
        norm_eps=config.layer_norm_epsilon,
        score_scales=tuple(
            scale / (layer + 1) if by_layer else scale for layer in range(config.n_layer)
        ),
        dropouts=(config.embd_pdrop, config.attn_pdrop, config.resid_pdrop),
    )


@dataclass(frozen=True)
class Layer:
    """Views of one layer of all K models: matrices (K, in, out), vectors (K, width)."""

    qkv_weight: Tensor
    attention_weight: Tensor
    inner_weight: Tensor
    outer_weight: Tensor
    norm_1_weight: Tensor
    norm_1_bias: Tensor
    qkv_bias: Tensor
    attention_bias: Tensor
    norm_2_weight: Tensor
    norm_2_bias: Tensor
    inner_bias: Tensor
    outer_bias: Tensor


_LAYER_NAMES = {
    "qkv_weight": "attn.c_attn.weight",
    "attention_weight": "attn.c_proj.weight",
    "inner_weight": "mlp.c_fc.weight",
    "outer_weight": "mlp.c_proj.weight",
    "norm_1_weight": "ln_1.weight",
    "norm_1_bias": "ln_1.bias",
    "qkv_bias": "attn.c_attn.bias",
    "attention_bias": "attn.c_proj.bias",
    "norm_2_weight": "ln_2.weight",
    "norm_2_bias": "ln_2.bias",
    "inner_bias": "mlp.c_fc.bias",
    "outer_bias": "mlp.c_proj.bias",
}
"""What transformers calls the fields of Layer."""

LINEAR_NAMES = ("qkv", "attention", "inner", "outer")
"""The linear layers: fields `NAME_weight` and `NAME_bias` of Layer."""


@dataclass(frozen=True)
class Parameters:
    """The parameters of K models, or their gradients: tensors (K, ...)."""

    wte: Tensor
    """(K, padded vocabulary, width): embedding and, transposed, output."""
    wpe: Tensor
    layers: tuple[Layer, ...]
    norm_f_weight: Tensor
    norm_f_bias: Tensor

    def tensors(self) -> list[Tensor]:
        """Return all of them, always in the same order."""
        own = [self.wte, self.wpe, self.norm_f_weight, self.norm_f_bias]
        return own + [getattr(layer, f.name) for layer in self.layers for f in fields(Layer)]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Parameters":
        """Return what a function makes of each tensor."""
        return Parameters(
            change(self.wte),
            change(self.wpe),
            tuple(
                Layer(**{f.name: change(getattr(layer, f.name)) for f in fields(Layer)})
                for layer in self.layers
            ),
            change(self.norm_f_weight),
            change(self.norm_f_bias),
        )


@dataclass(frozen=True)
class Layout:
    """Where the parameters of a model lie in its row: matrices first, vectors after."""

    shape: Shape
    places: Mapping[str, tuple[int, tuple[int, ...]]]
    """Name as in transformers -> first value, and shape as stored."""
    num_decayed: int
    """Values in matrices, which weight decay applies to: the first of the row."""
    num_values: int
    """Values in all; what follows in the row is zero and stays so."""
    size: int
    """N, a multiple of the width."""

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear layers of each layer, by name."""
        width, inner = self.shape.width, self.shape.inner_width
        return {
            "qkv": (width, 3 * width),
            "attention": (width, width),
            "inner": (width, inner),
            "outer": (inner, width),
        }

    @staticmethod
    def linear_name(index: int, name: str) -> str:
        """Return what transformers calls a linear layer."""
        return _layer_name(index, f"{name}_weight").removesuffix(".weight")

    def stack(self, rows: Tensor) -> Parameters:
        """Return the views of a contiguous (K, N) buffer."""
        views = {
            name: rows[:, start : start + math.prod(shape)].view(len(rows), *shape)
            for name, (start, shape) in self.places.items()
        }
        return Parameters(
            wte=views["transformer.wte.weight"],
            wpe=views["transformer.wpe.weight"],
            layers=tuple(
                Layer(**{f.name: views[_layer_name(index, f.name)] for f in fields(Layer)})
                for index in range(self.shape.num_layers)
            ),
            norm_f_weight=views["transformer.ln_f.weight"],
            norm_f_bias=views["transformer.ln_f.bias"],
        )

    def pack(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the row (N,), fp32 on the CPU, of a GPT2LMHeadModel's state dict."""
        row = torch.zeros(self.size)
        for name, (start, shape) in self.places.items():
            values = state[name].detach().reshape(-1)
            assert values.numel() <= math.prod(shape), name
            row[start : start + values.numel()] = values
        return row

    def unpack(self, row: Tensor) -> dict[str, Tensor]:
        """Return the state dict of a row (N,), copied; the tied output embedding is one tensor."""
        state = {
            name: row[start : start + math.prod(shape)].view(shape).clone()
            for name, (start, shape) in self.places.items()
        }
        wte = state["transformer.wte.weight"][: self.shape.vocab_size].clone()
        return state | {"transformer.wte.weight": wte, "lm_head.weight": wte}


def layout_of(shape: Shape) -> Layout:
    """Lay out one model."""
    width, inner = shape.width, shape.inner_width
    sizes = {
        "qkv_weight": (width, 3 * width),
        "attention_weight": (width, width),
        "inner_weight": (width, inner),
        "outer_weight": (inner, width),
        "qkv_bias": (3 * width,),
        "inner_bias": (inner,),
    }
    named: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (shape.padded_vocab_size, width),
        "transformer.wpe.weight": (shape.num_positions, width),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
    }
    for index in range(shape.num_layers):
        for field in _LAYER_NAMES:
            named[_layer_name(index, field)] = sizes.get(field, (width,))
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
        size=end + -end % width,
    )


def _layer_name(index: int, field: str) -> str:
    return f"transformer.h.{index}.{_LAYER_NAMES[field]}"
