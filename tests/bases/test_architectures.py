"""Every architecture that the docs list: trained, kept apart, saved, loaded as others load it."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from architecture_kinds import KINDS
from small import ROOT
from tokenizer_kinds import KINDS as TOKENIZERS
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer, pipeline

from huggingtweets.bases.architectures import TRIED
from huggingtweets.bases.lora import adapter_state, add_lora, merge_lora
from huggingtweets.bases.model import Base, find_base, load_model
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import Adapter, ModelConfig, RecipeConfig, TrainConfig
from huggingtweets.data.blocks import Blocks, pack_heldout
from huggingtweets.errors import ConfigError
from huggingtweets.generation.guards import Guards
from huggingtweets.handles import Job
from huggingtweets.pipeline.whole_model import WholeModel
from huggingtweets.posts.sources.demo import demo_corpus
from huggingtweets.training.modules.loss import SummedLoss, settle_attention

PROMPTS = ["My dream is", "I like"]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    tf.utils.logging.set_verbosity_error()
    tf.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # tiny products; more threads take five times as long


def make_base(name: str, folder: Path) -> Base:
    kind, configure = KINDS[name]
    tokenizer = TOKENIZERS[kind]()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(configure(len(tokenizer) - 3)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return find_base(ModelConfig(path=str(folder)))


def plan_of(base: Base, recipe: RecipeConfig) -> Plan:
    sampling = SamplingConfig(num=2, prompts=PROMPTS, max_new_tokens=12, min_new_tokens=4)
    config = TrainConfig(
        user="demo", model=ModelConfig(path=base.path), recipe=recipe, sampling=sampling
    )
    return make_plan(config, Job.of(["demo"]))


def blocks_of(base: Base) -> Blocks:
    posts = demo_corpus(seed=1)[:12]
    return pack_heldout(
        base.codec.encode(posts), block_size=64, eos_id=base.eos_id, bos_id=base.codec.bos_id
    )


def alone(model: Any, blocks: Blocks) -> float:
    """The loss of each document run by itself, summed."""
    total = 0.0
    rows = zip(blocks.input_ids, blocks.targets, blocks.position_ids, strict=True)
    for ids, targets, positions in rows:
        starts = [*(positions == 0).nonzero()[0], len(ids)]
        for start, end in pairwise(starts):
            logits = model(input_ids=torch.tensor(ids[None, start:end]), use_cache=False).logits
            wanted = torch.tensor(targets[start:end]).long()
            total += float(
                torch.nn.functional.cross_entropy(logits[0], wanted, reduction="sum")
                if (wanted != -100).any()
                else 0.0
            )
    return total


def train(base: Base, recipe: RecipeConfig) -> WholeModel:
    """Two steps, as the single engine takes them."""
    model = load_model(base, recipe)
    module = SummedLoss(model, isolate=True)
    assert settle_attention(module, base.codec.bos_id)
    blocks = blocks_of(base)
    batch = [torch.tensor(array).long() for array in vars(blocks).values()]
    with torch.no_grad():
        module.eval()
        assert float(module(*batch)) == pytest.approx(alone(model, blocks), rel=2e-4)
        nats, hits = module(*batch, with_hits=True)
        assert float(nats.sum()) == pytest.approx(float(module(*batch)), rel=1e-5)
        assert hits.shape == nats.shape == batch[1].shape
    if recipe.adapter is Adapter.lora:
        add_lora(model, recipe, seed=1)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    losses = []
    module.train()
    for _ in range(3):
        loss = module(*batch) / int((batch[1] != -100).sum())
        optimizer.zero_grad()
        loss.backward()
        assert any(float(p.grad.abs().sum()) > 0 for p in trained if p.grad is not None)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    weights = {name: p.detach() for name, p in model.named_parameters()}
    if recipe.adapter is Adapter.lora:
        plain = merge_lora(load_model(base, recipe), recipe, weights)
        return WholeModel(plain.eval(), torch.device("cpu"), adapter_state(weights))
    return WholeModel(model.eval(), torch.device("cpu"))


def check_folder(folder: Path, base: Base) -> None:
    """Load a folder the ways others do."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ends = base.codec.bos_id, base.codec.eos_id, base.codec.pad_id
    for says in (tokenizer, model.config, model.generation_config):
        assert (says.bos_token_id, says.eos_token_id, says.pad_token_id) == ends
    assert model.dtype == base.dtype
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    [[single], [other]] = generator(PROMPTS, batch_size=2, do_sample=False, max_new_tokens=6)
    alone = [generator(prompt, do_sample=False, max_new_tokens=6)[0] for prompt in PROMPTS]
    assert [single, other] == alone
    inputs = tokenizer("my dream is", return_tensors="pt")
    heard: list[str] = []

    class Listener(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            heard.append(text)

    ids = model.generate(
        inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False,
        max_new_tokens=8, streamer=Listener(tokenizer, skip_special_tokens=True),
    )  # fmt: skip
    assert "".join(heard).strip() == tokenizer.decode(ids[0], skip_special_tokens=True).strip()


@pytest.mark.parametrize("adapter", [Adapter.none, Adapter.lora])
@pytest.mark.parametrize("name", KINDS)
def test_trained_saved_and_loaded(name: str, adapter: Adapter, tmp_path: Path) -> None:
    base = make_base(name, tmp_path / "base")
    recipe = RecipeConfig(dropout=0.0, adapter=adapter, lora_rank=2)
    trained = train(base, recipe)
    plan = plan_of(base, recipe)
    samples = trained.sample(plan, base, Guards())
    assert len(samples.predictions) == 4
    for one in samples.predictions:
        assert one.prediction.startswith(one.input)
    (tmp_path / "model").mkdir()
    trained.save(plan, base, tmp_path / "model")
    check_folder(tmp_path / "model", base)


def test_the_docs_list_what_is_tried() -> None:
    page = (ROOT / "docs/bases.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([a-z0-9_-]+)` \|", page.partition("## Architectures")[2], re.M)
    kinds = {configure(100).model_type for _, configure in KINDS.values()}
    assert kinds == TRIED
    assert set(table) == TRIED
    assert len(TRIED) >= 25


@pytest.mark.parametrize("kind", ["T5Config", "BertConfig", "BartConfig", "ViTConfig"])
def test_what_is_no_causal_language_model_is_refused(kind: str, tmp_path: Path) -> None:
    getattr(tf, kind)().save_pretrained(tmp_path)
    TOKENIZERS["gpt2"]().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="one word after the other") as caught:
        find_base(ModelConfig(path=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_words_beyond_the_embedding_get_rows_that_are_the_same_everywhere(tmp_path: Path) -> None:
    base = make_base("openai-gpt", tmp_path)
    first, second = (load_model(base, RecipeConfig()).get_input_embeddings() for _ in range(2))
    assert first.weight.shape[0] == len(base.tokenizer)
    assert torch.equal(first.weight, second.weight)
    assert torch.allclose(first.weight[-1], first.weight[:-3].mean(0))


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    make_base("gpt2", tmp_path)
    tokenizer = TOKENIZERS["gpt2"]()
    tokenizer.add_tokens([f"word{number}" for number in range(2000)])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="expected the tokenizer that the model was trained with"):
        find_base(ModelConfig(path=str(tmp_path)))


def test_blocks_are_no_longer_than_what_an_architecture_calls_its_positions(tmp_path: Path) -> None:
    base = make_base("mpt", tmp_path)
    assert base.max_positions == base.config.max_seq_len
    longer = torch.zeros(1, base.max_positions + 1, dtype=torch.long)
    with pytest.raises(RuntimeError):  # what would come out of it
        load_model(base, RecipeConfig())(longer)


def test_documents_longer_than_a_window_are_run_apart(tmp_path: Path) -> None:
    base = make_base("gemma3_text", tmp_path)
    model = load_model(base, replace(RecipeConfig(), dropout=0.0)).eval()
    ids = list(range(5, 115))  # the window is 64
    blocks = pack_heldout([ids, ids[:9]], block_size=128, eos_id=base.eos_id, bos_id=7)
    batch = [torch.tensor(array).long() for array in vars(blocks).values()]
    module = SummedLoss(model, isolate=True, longest_document=111).eval()
    with torch.no_grad():
        assert float(module(*batch)) == pytest.approx(alone(model, blocks), rel=1e-4)
