from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig

from huggingtweets.bases.model import check_block_size, find_base, load_model, open_base
from huggingtweets.bases.tiny import tiny_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.errors import ConfigError
from huggingtweets.jobs.runner import check_base
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.training.meter import flops_of_layout, flops_per_token

register()

SMALL = ModelConfig(
    path=None, num_layers=2, width=32, num_heads=2, vocab_size=400, max_positions=64
)


def test_tiny_base_is_a_plain_folder_made_once() -> None:
    folder = tiny_base(SMALL)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert tiny_base(SMALL) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert isinstance(AutoModelForCausalLM.from_pretrained(folder), GPT2LMHeadModel)
    assert tiny_base(ModelConfig(path=None, num_layers=1, width=32, num_heads=2)) != folder


def test_tiny_tokenizer_gives_any_text_back() -> None:
    tokenizer = find_base(SMALL).tokenizer
    text = "naïve 😀 สวัสดี  two\nlines"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_find_base_of_a_folder_and_dropout_of_the_recipe() -> None:
    base = find_base(ModelConfig(path=str(tiny_base(SMALL))))
    assert base.max_positions == 64
    model = load_model(base, RecipeConfig(dropout=0.25))
    assert model.config.resid_pdrop == model.config.attn_pdrop == 0.25
    assert model.transformer.drop.p == 0.25
    assert load_model(base, RecipeConfig(dropout=None)).config.resid_pdrop == 0.1
    assert model.dtype == torch.float32


def test_blocks_longer_than_the_base_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"set recipe\.block_size=64"):
        check_block_size(find_base(SMALL), 128)


def test_a_base_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="model=tiny") as caught:
        find_base(ModelConfig(path="nobody/no-such-model-anywhere"))
    assert "HF_HOME" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_a_folder_that_is_no_model_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        find_base(ModelConfig(path=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_weights_that_are_cut_say_so(tmp_path: Path) -> None:
    for path in tiny_base(SMALL).iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:1000] if path.suffix == ".safetensors" else data)
    base = find_base(ModelConfig(path=str(tmp_path)))
    for load in (load_model, open_base):
        with pytest.raises(ConfigError, match="cannot be loaded"):
            load(base, RecipeConfig())


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n# A base\n", "apache-2.0"),
        ("---\nlicense: unknown\n---\n", None),
        ("---\nlanguage: en\n---\n", None),
        ("---\nlicense: [mit\n---\n", None),
        ("no front matter", None),
        (None, None),
    ],
)
def test_the_licence_of_a_folder_is_that_of_its_card(
    tmp_path: Path, card: str | None, expected: str | None
) -> None:
    for path in tiny_base(SMALL).iterdir():
        (tmp_path / path.name).symlink_to(path)
    if card is not None:
        (tmp_path / "README.md").unlink(missing_ok=True)
        (tmp_path / "README.md").write_text(card)
    assert find_base(ModelConfig(path=str(tmp_path))).license == expected


def test_a_known_name_on_the_hub_tells_the_licence_of_a_folder() -> None:
    folder = str(tiny_base(SMALL))
    known = find_base(ModelConfig(path=folder, hub_id="distilgpt2"))
    assert (known.license, known.public_name) == ("apache-2.0", "distilgpt2")
    assert find_base(ModelConfig(path=folder)).public_name == folder


def test_adapters_that_nobody_could_use_are_refused_before_they_are_trained() -> None:
    words = [
        "user=demo", "recipe.adapter=lora", "publish=hub", "publish.lora=adapter",
        "recipe.block_size=32", f"model.path={tiny_base(SMALL)}",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"set model\.hub_id=NAME"):
        check_base(to_config(compose_config(words)))
    named = to_config(compose_config([*words, "model.hub_id=lab/base"]))
    assert check_base(named).public_name == "lab/base"


@pytest.mark.parametrize("kind", [GPT2Config, LlamaConfig], ids=["tied", "untied"])
def test_weights_read_without_a_model_are_those_of_the_model(tmp_path: Path, kind: Any) -> None:
    sizes: dict[str, Any] = {"vocab_size": 401, "hidden_size": 32, "intermediate_size": 64}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    made = AutoModelForCausalLM.from_config(kind(**sizes))
    made.to(torch.bfloat16).save_pretrained(tmp_path)
    find_base(SMALL).tokenizer.save_pretrained(tmp_path)
    base = find_base(ModelConfig(path=str(tmp_path)))
    recipe = RecipeConfig(dropout=0.25)
    opened, model = open_base(base, recipe), load_model(base, recipe)
    assert type(opened.config) is kind
    assert opened.config.to_dict() | {"dtype": None} == model.config.to_dict() | {"dtype": None}
    layout = layout_of(shape_of(opened.config))
    assert torch.equal(layout.pack(opened.weights), layout.pack(model.state_dict()))
    assert "model" not in vars(opened), "no model of transformers was made"
    # Without a few rows that pad the vocabulary.
    assert flops_of_layout(layout, 16) == pytest.approx(flops_per_token(model, 16), rel=0.05)
    assert type(opened.model) is type(model)


def test_weights_under_other_names_are_read_by_transformers(tmp_path: Path) -> None:
    """As those of GPT-2 on the Hub, whose names have no `transformer.` before them."""
    base = find_base(ModelConfig(path=str(tiny_base(SMALL))))
    load_model(base, RecipeConfig()).transformer.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    opened = open_base(find_base(ModelConfig(path=str(tmp_path))), RecipeConfig())
    expected = load_model(base, RecipeConfig()).state_dict()
    assert opened.weights.keys() == expected.keys()
    assert all(torch.equal(opened.weights[name], one) for name, one in expected.items())
