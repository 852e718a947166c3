"""Llama and what is built like it: SmolLM 2 and 3, Qwen 2 and 3; tensors and forward pass.

They differ in biases of queries, keys and values (Qwen 2), norms of queries and keys (Qwen 3),
layers without positions (SmolLM 3), a head of its own or tied, and how far positions are stretched.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from huggingtweets.models.forward import Pass
from huggingtweets.models.layout import Layout, Rotary, Shape, Tensors, lay_out
from huggingtweets.ops.residual import Stream

_SCALINGS = ("default", "linear", "llama3", "yarn")
"""Those whose frequencies do not depend on the length of the text."""


def why_not_stacked(config: Any) -> str | None:
    """Return in one sentence why models of a transformers config cannot be stacked, or None."""
    if config.hidden_act not in ("silu", "swish"):
        return f"the fused engine knows no activation {config.hidden_act!r}"
    kind = config.rope_parameters.get("rope_type")
    if kind not in _SCALINGS:
        return f"the fused engine knows no rotary scaling {kind!r}"
    if config.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0:
        return "the fused engine turns heads whole only"
    if getattr(config, "mlp_bias", False):
        return "the fused engine knows no biases in the feed-forward layers of a Llama"
    if config.model_type != "qwen2" and getattr(config, "attention_bias", False):
        return "the fused engine knows biases of queries, keys and values in Qwen 2 only"
    return None


def read_shape(config: Any) -> Shape:
    """Return the shape of a config of one of these families."""
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    turns = getattr(config, "no_rope_layers", None) or [1] * layers
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    is_sliding = getattr(config, "use_sliding_window", True)
    return Shape(
        family=config.model_type,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=config.num_key_value_heads or heads,
        head_width=head_width,
        width=config.hidden_size,
        inner_width=config.intermediate_size,
        vocab_size=config.vocab_size,
        num_positions=config.max_position_embeddings,
        norm_eps=config.rms_norm_eps,
        score_scales=(head_width**-0.5,) * layers,
        dropouts=(0.0, config.attention_dropout, 0.0),
        can_drop=(False, True, False),
        is_tied=config.tie_word_embeddings,
        rotary=_rotary_of(config, head_width, tuple(map(bool, turns))),
        is_gated=True,
        has_head_norms=config.model_type == "qwen3",
        sliding=tuple(
            config.sliding_window if is_sliding and kind == "sliding_attention" else None
            for kind in kinds
        ),
    )


def _rotary_of(config: Any, head_width: int, layers: tuple[bool, ...]) -> Rotary:
    """Return the very frequencies that transformers computes."""
    kind = config.rope_parameters["rope_type"]
    if kind == "default":  # no function of transformers 5 has it: each model computes its own
        exponents = torch.arange(0, head_width, 2, dtype=torch.float) / head_width
        frequencies, factor = 1.0 / (config.rope_parameters["rope_theta"] ** exponents), 1.0
    else:
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config)
    return Rotary(tuple(frequencies.tolist()), factor, layers)


def layout_of(shape: Shape) -> Layout:
    """Lay out one model; what reads the same input lies side by side, for one product."""
    width, inner, head = shape.width, shape.inner_width, shape.head_width
    keys = shape.num_kv_heads * head
    sizes = {"q": shape.num_heads * head, "k": keys, "v": keys}
    at = "model.layers.{}."

    def linear(num_in: int, **outs: int) -> Tensors:
        sources = [
            (f"{at}{'self_attn' if name in 'qkvo' else 'mlp'}.{name}_proj.weight", size)
            for name, size in outs.items()
        ]
        return Tensors((num_in, sum(outs.values())), sources, is_transposed=True)

    def vector(name: str, size: int) -> Tensors:
        return Tensors((size,), [(name, size)])

    own = {"wte": Tensors((shape.padded_vocab_size, width), [("model.embed_tokens.weight", width)])}
    if not shape.is_tied:
        own["lm_head"] = Tensors((shape.padded_vocab_size, width), [("lm_head.weight", width)])
    own["norm_f_weight"] = vector("model.norm.weight", width)
    layer = {
        "qkv_weight": linear(width, **sizes),
        "attention_weight": linear(shape.num_heads * head, o=width),
        "inner_weight": linear(width, gate=inner, up=inner),
        "outer_weight": linear(inner, down=width),
        "norm_1_weight": vector(f"{at}input_layernorm.weight", width),
        "norm_2_weight": vector(f"{at}post_attention_layernorm.weight", width),
    }
    if shape.family == "qwen2":
        biases = [(f"{at}self_attn.{name}_proj.bias", size) for name, size in sizes.items()]
        layer["qkv_bias"] = Tensors((shape.qkv_width,), biases)
    if shape.has_head_norms:
        layer["q_norm_weight"] = vector(f"{at}self_attn.q_norm.weight", head)
        layer["k_norm_weight"] = vector(f"{at}self_attn.k_norm.weight", head)
    return lay_out(shape, own, layer)


def embed(run: Pass) -> Tensor:
    """Return the residual stream (K, R, C) that the layers begin with."""
    return run.embedding(wte=run.batch.input_ids)


def layer(run: Pass, index: int, x: Stream) -> Stream:
    """Return the stream after a layer; x is used up."""
    x, qkv = run.branch(x, index, "norm_1", "qkv")
    if run.stack.shape.has_head_norms:
        qkv = run.norm_heads(qkv, index, "q_norm", "k_norm")
    x = run.join(x, run.attention(run.turn(qkv, index), index), index, "attention", 0)
    x, h = run.branch(x, index, "norm_2", "inner", activate=True)
    return run.join(x, h, index, "outer", 1)
