import torch
from transformers import GPT2LMHeadModel

from huggingtweets.bases.lora import add_lora, merge_lora
from huggingtweets.bases.model import find_base, load_model
from huggingtweets.config.schema import Adapter, ModelConfig, RecipeConfig

BASE = ModelConfig(path=None, num_layers=2, width=32, num_heads=2, vocab_size=400, max_positions=64)
RECIPE = RecipeConfig(adapter=Adapter.lora, lora_rank=4, lora_alpha=8, dropout=0.0)
IDS = torch.arange(20).view(2, 10)


def trained() -> GPT2LMHeadModel:
    model = load_model(find_base(BASE), RECIPE)
    add_lora(model, RECIPE, seed=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_only_adapters_are_trained() -> None:
    model = trained()
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names
    assert all("lora_" in name for name in names)
    base = load_model(find_base(BASE), RECIPE).state_dict()
    for name, weights in model.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(weights, base[name.replace(".base_layer", "")])


def test_merged_model_is_plain_and_says_the_same() -> None:
    model = trained()
    merged = merge_lora(load_model(find_base(BASE), RECIPE), RECIPE, model.state_dict())
    plain = load_model(find_base(BASE), RECIPE)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    model.eval()
    merged.eval()
    with torch.no_grad():
        ours, theirs = (each(input_ids=IDS).logits for each in (merged, model))
        untrained = plain.eval()(input_ids=IDS).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours - untrained).abs().max() > 1e-3
