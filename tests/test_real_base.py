"""The one real pretrained model at hand: SmolLM2-135M, as `make real-base` leaves it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from job_processes import write_posts
from small import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from huggingtweets.bases.lora import add_lora
from huggingtweets.bases.model import Base, find_base, load_model
from huggingtweets.config.bases import BASES, unpacked_folder
from huggingtweets.config.schema import Adapter, ModelConfig, RecipeConfig
from huggingtweets.data.blocks import pack_heldout
from huggingtweets.evaluation.figures import bits_per_byte
from huggingtweets.evaluation.score import score_posts
from huggingtweets.training.modules.loss import Attention, SummedLoss

pytestmark = pytest.mark.real_base
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
POSTS = [
    "I went to the market today and bought some bread and a bottle of milk.",
    "The train is late again. Third time this week!",
    "Happy birthday to my wonderful sister, who is the best person I know.",
]


@pytest.fixture(scope="module")
def base(real_base_dir: Path) -> Base:
    """The base by its name, from a cache that holds it and nothing else."""
    folder = unpacked_folder(NAME)
    assert folder is not None
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(real_base_dir)
    return find_base(ModelConfig(path=NAME))


def test_the_base_is_known_by_name_licence_and_origin(base: Base) -> None:
    assert (base.hub_id, base.license) == (NAME, "apache-2.0")
    assert base.origin is not None
    assert base.origin.quantisation == "Q4_1"
    assert base.dtype == torch.bfloat16
    weights = sum(p.numel() for p in load_model(base, RecipeConfig()).parameters())
    assert weights == BASES[NAME].parameters


def test_it_speaks_english(base: Base) -> None:
    """Greedy, and far better than chance at sentences that it has not seen."""
    model = load_model(base, RecipeConfig()).eval()
    begun = base.codec.begin(["The capital of France is"])
    with torch.no_grad():
        ids = model.generate(torch.tensor(begun), do_sample=False, max_new_tokens=4)
    assert "Paris" in base.tokenizer.decode(ids[0])
    assert bits_per_byte(score_posts(model, base.codec, POSTS, max_positions=256)) < 1.5


def test_lora_learns_in_a_few_steps(base: Base) -> None:
    recipe = RecipeConfig(adapter=Adapter.lora, lora_rank=4, dropout=0.0)
    model = load_model(base, recipe)
    module = SummedLoss(model, isolate=True, attention=Attention.windows)
    add_lora(model, recipe, seed=1)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    blocks = pack_heldout(base.codec.encode(POSTS), block_size=64, eos_id=base.eos_id)
    batch = [torch.tensor(array).long() for array in vars(blocks).values()]
    losses = []
    for _ in range(4):
        loss = module(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_the_folder_is_plain_and_others_read_it(base: Base) -> None:
    config = json.loads((Path(base.path) / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    assert config["rope_theta"] == 100000.0
    settings = json.loads((Path(base.path) / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    text = "naïve 😀 สวัสดี  two\nlines"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert AutoModelForCausalLM.from_pretrained(base.path).dtype == torch.bfloat16


@pytest.mark.slow  # .ci/run runs it
def test_people_are_trained_side_by_side_by_the_command_that_users_type(
    base: Base, tmp_path: Path
) -> None:
    """Two people's adapters on the real base, stacked, sampled and finished."""
    (tmp_path / "users.txt").write_text("ann\nbob\n")
    posts = write_posts(tmp_path / "posts", "ann", "bob", num=40)
    command = [
        sys.executable, str(ROOT / "train.py"), "user=file:users.txt", "source=jsonl",
        f"source.path={posts}", "consent=public-figure-research", "model=smollm2-135m",
        "cleaning.min_chars=0", "recipe.adapter=lora", "recipe.max_steps=3",
        "recipe.block_size=64", "recipe.lr=2e-3",
        "recipe.dropout=0", "sampling.num=1", "sampling.max_new_tokens=12", "tracking=none",
        "publish.lora=adapter", "output_dir=out",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    for handle in ("ann", "bob"):
        folder = tmp_path / "out" / handle
        result = json.loads((folder / "result.json").read_text())
        assert result["engine"] == "fused"
        assert result["eval"]["bits_per_byte"] < result["eval"]["base_bits_per_byte"]
        settings = json.loads((folder / "model" / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == base.hub_id
        assert (folder / "report.html").is_file()
        assert (folder / "predictions.jsonl").read_text().count("\n") == 5  # a prompt each
