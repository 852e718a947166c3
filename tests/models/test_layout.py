import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedConfig

from huggingtweets.errors import ConfigError
from huggingtweets.models.families import layout_of, shape_of, why_not_fused


class NobodysConfig(PreTrainedConfig):
    model_type = "nobodys"


def small(**changes: object) -> GPT2Config:
    settings: dict[str, object] = {
        "vocab_size": 301, "n_positions": 20, "n_embd": 16, "n_layer": 2, "n_head": 2,
        "n_inner": 40, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    return GPT2Config(**(settings | changes))


def test_unpack_undoes_pack() -> None:
    model = GPT2LMHeadModel(small())
    layout = layout_of(shape_of(model.config))
    state = layout.unpack(layout.pack(model.state_dict()))
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    model.load_state_dict(state)


def test_unpacked_weights_keep_the_head_tied_and_share_nothing_with_the_row() -> None:
    model = GPT2LMHeadModel(small())
    layout = layout_of(shape_of(model.config))
    row = layout.pack(model.state_dict())
    state = layout.unpack(row)
    row.zero_()
    assert state["lm_head.weight"] is state["transformer.wte.weight"]
    assert state["transformer.ln_f.weight"].sum() == 16


def test_matrices_come_first_and_are_what_weight_decay_applies_to() -> None:
    model = GPT2LMHeadModel(small())
    layout = layout_of(shape_of(model.config))
    decayed = {name for name, (start, _) in layout.places.items() if start < layout.num_decayed}
    assert decayed == {name for name, p in model.named_parameters() if p.ndim >= 2}


def test_rows_begin_at_multiples_of_the_width() -> None:
    layout = layout_of(shape_of(small()))
    assert layout.size % 16 == 0
    assert layout.num_values <= layout.size < layout.num_values + 16
    assert layout.places["transformer.wpe.weight"][0] == 320 * 16  # the vocabulary is padded


def test_stack_is_views() -> None:
    layout = layout_of(shape_of(small()))
    rows = torch.zeros(3, layout.size)
    parameters = layout.stack(rows)
    for tensor in parameters.tensors():
        tensor += 1.0
    assert float(rows.sum()) == 3 * layout.num_values


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (NobodysConfig(), "this is nobodys"),
        (small(activation_function="relu"), "'relu'"),
        (small(tie_word_embeddings=False), "tied"),
        (small(add_cross_attention=True), "cross-attention"),
    ],
    ids=["unknown", "relu", "untied", "cross-attention"],
)
def test_models_that_cannot_be_stacked_are_refused_in_one_sentence(
    config: object, part: str
) -> None:
    assert part in (why_not_fused(config) or "")
    with pytest.raises(ConfigError, match=r"engine\.kind: got fused; .*; set engine=single"):
        shape_of(config)


def test_gpt2_can_be_stacked() -> None:
    assert why_not_fused(GPT2Config()) is None
