"""GPT-2: its tensors, and its forward pass for K models."""

from typing import Any

from torch import Tensor

from huggingtweets.models.forward import Pass
from huggingtweets.models.layout import Layout, Shape, Tensors, lay_out
from huggingtweets.ops.residual import Stream

_TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


def why_not_stacked(config: Any) -> str | None:
    """Return in one sentence why models of a transformers config cannot be stacked, or None."""
    if config.activation_function not in _TANH_GELUS:
        return f"the fused engine knows no activation {config.activation_function!r}"
    if not config.tie_word_embeddings:
        return "the fused engine needs the output embedding of a GPT-2 tied to the input embedding"
    if config.add_cross_attention or config.reorder_and_upcast_attn:
        return "the fused engine knows neither cross-attention nor upcast attention scores"
    return None


def read_shape(config: Any) -> Shape:
    """Return the shape of a GPT2Config."""
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    by_layer = config.scale_attn_by_inverse_layer_idx
    return Shape(
        family="gpt2",
        num_layers=config.n_layer,
        num_heads=config.n_head,
        num_kv_heads=config.n_head,
        head_width=config.n_embd // config.n_head,
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


def layout_of(shape: Shape) -> Layout:
    """Lay out one model."""
    width, inner = shape.width, shape.inner_width

    def one(name: str, *size: int) -> Tensors:
        return Tensors(size, [(f"transformer.{name}", size[-1])])

    own = {
        "wte": one("wte.weight", shape.padded_vocab_size, width),
        "wpe": one("wpe.weight", shape.num_positions, width),
        "norm_f_weight": one("ln_f.weight", width),
        "norm_f_bias": one("ln_f.bias", width),
    }
    layer = {
        "qkv_weight": one("h.{}.attn.c_attn.weight", width, 3 * width),
        "attention_weight": one("h.{}.attn.c_proj.weight", width, width),
        "inner_weight": one("h.{}.mlp.c_fc.weight", width, inner),
        "outer_weight": one("h.{}.mlp.c_proj.weight", inner, width),
        "norm_1_weight": one("h.{}.ln_1.weight", width),
        "norm_1_bias": one("h.{}.ln_1.bias", width),
        "qkv_bias": one("h.{}.attn.c_attn.bias", 3 * width),
        "attention_bias": one("h.{}.attn.c_proj.bias", width),
        "norm_2_weight": one("h.{}.ln_2.weight", width),
        "norm_2_bias": one("h.{}.ln_2.bias", width),
        "inner_bias": one("h.{}.mlp.c_fc.bias", inner),
        "outer_bias": one("h.{}.mlp.c_proj.bias", width),
    }
    return lay_out(shape, own, layer)


def embed(run: Pass) -> Tensor:
    """Return the residual stream (K, R, C) that the layers begin with."""
    return run.embedding(wte=run.batch.input_ids, wpe=run.batch.position_ids)


def layer(run: Pass, index: int, x: Stream) -> Stream:
    """Return the stream after a layer; x is used up."""
    x, qkv = run.branch(x, index, "norm_1", "qkv")
    x = run.join(x, run.attention(qkv, index), index, "attention", 0)
    x, h = run.branch(x, index, "norm_2", "inner", activate=True)
    return run.join(x, h, index, "outer", 1)
