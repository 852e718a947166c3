"""Saved folders mean the same to transformers 4.57, in an environment of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from architecture_kinds import KINDS
from test_architectures import make_base, plan_of
from transformers import AutoModelForCausalLM

from huggingtweets.bases.model import load_model
from huggingtweets.config.schema import RecipeConfig
from huggingtweets.pipeline.whole_model import WholeModel

pytestmark = pytest.mark.slow
READ = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
ids = json.loads(sys.argv[2])
with torch.no_grad():
    logits = model(input_ids=torch.tensor([ids])).logits[0]
texts = pipeline("text-generation", model=model, tokenizer=tokenizer)(
    ["My dream is", "I like"], batch_size=2, do_sample=False, max_new_tokens=5)
print(json.dumps({
    "version": transformers.__version__,
    "logits": logits.tolist(),
    "ids": tokenizer("My dream is").input_ids,
    "ends": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
    "texts": [one[0]["generated_text"] for one in texts],
}))
"""
NEWER = ("smollm3", "lfm2")
"""Kinds whose configuration 4.57 reads otherwise, or whose own defaults changed."""


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of transformers 4.57 and what it needs, but for PyTorch."""
    folder = Path(os.environ.get("HUGGINGTWEETS_OLDER", tmp_path_factory.mktemp("older")))
    if not (folder / "transformers").is_dir():
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder),
             "transformers==4.57.*"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"pip cannot fetch transformers 4.57: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.parametrize("name", [name for name in KINDS if name not in NEWER])
def test_older_transformers_reads_it(name: str, older: Path, tmp_path: Path) -> None:
    base = make_base(name, tmp_path / "base")
    recipe = RecipeConfig(dropout=0.0)
    model = load_model(base, recipe).eval()
    with torch.no_grad():  # what rotary positions turn must be seen in the logits
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    folder = tmp_path / "model"
    folder.mkdir()
    WholeModel(model, torch.device("cpu")).save(plan_of(base, recipe), base, folder)
    ids = [base.codec.bos_id, *range(20, 60)]
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained(folder).eval()
        expected = ours(input_ids=torch.tensor([ids])).logits[0]
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder), json.dumps(ids)],
        env=os.environ | {"PYTHONPATH": str(older), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"].startswith("4.57")
    assert torch.allclose(torch.tensor(told["logits"]), expected, rtol=1e-3, atol=1e-4)
    assert told["ends"] == [base.codec.bos_id, base.codec.eos_id, base.codec.pad_id]
    assert told["ids"] == base.tokenizer("My dream is").input_ids
    assert len(told["texts"]) == 2
