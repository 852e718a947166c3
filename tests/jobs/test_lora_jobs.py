"""LoRA from the command line, by either engine: the same adapters, in folders that peft loads."""

import json
from pathlib import Path

import job_processes
import pytest
import torch
from safetensors.torch import load_file
from small import SMALL_MODEL
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from huggingtweets.bases.model import find_base, load_model
from huggingtweets.config.schema import ModelConfig, RecipeConfig

peft = pytest.importorskip("peft")

HANDLES = ("demo", "gran_turbo")
QUICK = (
    *SMALL_MODEL,
    "recipe.adapter=lora",
    "engine.precision=fp32",
    "recipe.block_size=64",
    "recipe.max_steps=6",
    "recipe.lr=1e-2",
    "recipe.dropout=0",
    "sampling.num=1",
    "sampling.max_new_tokens=12",
)


def train(cwd: Path, *arguments: str) -> None:
    result = job_processes.train("user=file:users.txt", *QUICK, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "engine=single is used" not in result.stderr
    assert "Warning: " not in result.stderr  # of a library, which the user can do nothing about


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `single` and `fused` with adapters, `whole` with merged models."""
    cwd = tmp_path_factory.mktemp("batches")
    (cwd / "users.txt").write_text("".join(f"{handle}\n" for handle in HANDLES))
    recomputed = "engine.activation_checkpointing=true"  # which changes no gradient
    train(cwd, "engine=single", "publish.lora=adapter", "output_dir=single", recomputed)
    train(cwd, "engine=fused", "publish.lora=adapter", "output_dir=fused")
    train(cwd, "engine=fused", "output_dir=whole")
    return cwd


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        said: Tensor = model.eval()(input_ids=torch.arange(20)[None]).logits
    return said


def test_both_engines_leave_the_same_adapters(batches: Path) -> None:
    for handle in HANDLES:
        single, fused = (
            load_file(batches / engine / handle / "model" / "adapter_model.safetensors")
            for engine in ("single", "fused")
        )
        assert single.keys() == fused.keys()
        assert all(".lora_" in name for name in single)
        for name, tensor in single.items():
            # Adam turns rounding of near-zero gradients into steps of at most lr=1e-2.
            assert (tensor - fused[name]).abs().max() < 2e-3, (handle, name)


@pytest.mark.parametrize("engine", ["single", "fused"])
def test_adapter_folder_loads_as_its_readers_do(batches: Path, engine: str) -> None:
    whole = load_model(find_base(ModelConfig(path=str(batches / "whole/demo/model"))), NO_DROPOUT)
    folder = batches / engine / "demo" / "model"
    assert not (folder / "model.safetensors").exists()
    assert "library_name: peft" in (folder / "README.md").read_text()
    expected = logits(whole)
    base_path = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    untrained = AutoModelForCausalLM.from_pretrained(base_path)
    assert (logits(untrained) - expected).abs().max() > 1e-2
    by_peft = peft.PeftModel.from_pretrained(untrained, str(folder))
    by_transformers = AutoModelForCausalLM.from_pretrained(folder)
    by_us = load_model(find_base(ModelConfig(path=str(folder))), NO_DROPOUT)
    assert by_us.state_dict().keys() == whole.state_dict().keys()
    assert AutoTokenizer.from_pretrained(folder).eos_token_id is not None
    for model in (by_peft, by_transformers, by_us):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-3)


@pytest.mark.slow
def test_adapter_can_be_trained_further(batches: Path) -> None:
    folder = batches / "fused" / "demo"
    train(batches, f"model.path={folder / 'model'}", "recipe.replay=1", "output_dir=further")
    further = json.loads((batches / "further" / "demo" / "result.json").read_text())
    assert further["train"]["steps"] == 6


NO_DROPOUT = RecipeConfig(dropout=0.0)
