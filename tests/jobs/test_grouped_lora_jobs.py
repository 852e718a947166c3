"""LoRA of bases that are not GPT-2, many people at once: from the command to what peft loads."""

import json
from pathlib import Path

import job_processes
import pytest
import torch
from architecture_kinds import KINDS
from safetensors.torch import load_file
from tokenizer_kinds import KINDS as TOKENIZERS
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

peft = pytest.importorskip("peft")

HANDLES = ("demo", "gran_turbo", "captain_biscuit")
QUICK = (
    "recipe.adapter=lora",
    "recipe.lora_rank=4",
    "recipe.block_size=64",
    "recipe.max_steps=4",
    "recipe.lr=1e-2",
    "recipe.dropout=0",
    "engine.precision=fp32",
    "engine.slots=2",
    "sampling.num=1",
    "sampling.max_new_tokens=12",
)


def make_base(name: str, folder: Path) -> None:
    kind, configure = KINDS[name]
    tokenizer = TOKENIZERS[kind]()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(configure(len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train(cwd: Path, base: str, output: str, *arguments: str) -> str:
    words = ["user=file:users.txt", f"model.path={base}", f"output_dir={output}", *QUICK]
    result = job_processes.train(*words, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a Llama's adapters by either engine, and of whole models of an OPT."""
    cwd = tmp_path_factory.mktemp("batches")
    (cwd / "users.txt").write_text("".join(f"{handle}\n" for handle in HANDLES))
    for name in ("llama3", "opt"):
        make_base(name, cwd / name)
    said = train(cwd, "llama3", "auto", "publish.lora=adapter")
    assert "engine=single is used" not in said
    train(cwd, "llama3", "single", "publish.lora=adapter", "engine=single")
    assert "engine=single is used" not in train(cwd, "opt", "whole", "engine=fused")
    return cwd


def result_of(folder: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((folder / "result.json").read_text())
    return found


@pytest.mark.parametrize("handle", HANDLES)
def test_both_engines_leave_the_same_adapters(batches: Path, handle: str) -> None:
    single, fused = (batches / engine / handle for engine in ("single", "auto"))
    assert (result_of(single)["engine"], result_of(fused)["engine"]) == ("single", "fused")
    theirs, ours = (
        load_file(folder / "model" / "adapter_model.safetensors") for folder in (single, fused)
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        # Adam turns rounding of near-zero gradients into steps of at most lr=1e-2.
        assert (tensor - theirs[name]).abs().max() < 2e-3, name
    for figure in ("bits_per_byte", "base_bits_per_byte"):
        one, other = (result_of(folder)["eval"][figure] for folder in (single, fused))
        assert one == pytest.approx(other, rel=1e-4)


def test_both_engines_draw_the_same_posts(batches: Path) -> None:
    for handle in HANDLES:
        single, fused = (
            (batches / engine / handle / "predictions.jsonl").read_text()
            for engine in ("single", "auto")
        )
        assert single == fused


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        said: Tensor = model.eval()(input_ids=torch.arange(20)[None]).logits
    return said


def test_peft_loads_the_folder(batches: Path) -> None:
    folder = batches / "auto" / "demo" / "model"
    assert "library_name: peft" in (folder / "README.md").read_text()
    base = AutoModelForCausalLM.from_pretrained(batches / "llama3")
    before = logits(base)
    adapted = peft.PeftModel.from_pretrained(base, str(folder))
    by_transformers = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(adapted), logits(by_transformers), rtol=0, atol=1e-4)
    assert (logits(adapted) - before).abs().max() > 1e-2
    assert AutoTokenizer.from_pretrained(folder).eos_token_id is not None


def test_a_base_of_no_family_of_ours_leaves_whole_models(batches: Path) -> None:
    for handle in HANDLES:
        folder = batches / "whole" / handle
        assert result_of(folder)["engine"] == "fused"
        assert (folder / "report.html").is_file()
        assert (folder / "predictions.jsonl").read_text().strip()
        model = AutoModelForCausalLM.from_pretrained(folder / "model")
        base = AutoModelForCausalLM.from_pretrained(batches / "opt")
        assert (logits(model) - logits(base)).abs().max() > 1e-2


def test_a_base_that_cannot_be_stacked_goes_to_the_other_engine(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("demo\ngran_turbo\n")
    make_base("bloom", tmp_path / "bloom")
    said = train(tmp_path, "bloom", "out", "recipe.max_steps=1", "sampling.num=0")
    assert "engine=single is used: adapters of bloom (bloom) are not stacked: its posts go" in said
    assert result_of(tmp_path / "out" / "demo")["engine"] == "single"
