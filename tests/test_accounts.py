"""Real accounts and a base of the real size, through the real command."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import ROOT, SMALL_MODEL
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, pipeline

from huggingtweets.jobs.ledger import JobStatus
from huggingtweets.jobs.status import read_states

QUICK = ("engine.precision=fp32", "recipe.max_steps=2", "recipe.epochs=1", "sampling.num=0")


def train(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


@pytest.mark.slow
def test_all_accounts_are_trained_or_refused_with_their_counts(
    shared: Path, tmp_path: Path
) -> None:
    with (shared / "tweets" / "stats.csv").open(newline="") as file:
        accounts = {row["account"]: row for row in csv.DictReader(file)}
    (tmp_path / "users.txt").write_text("".join(f"{account}\n" for account in accounts))
    result = train(
        tmp_path,
        "user=file:users.txt",
        "source=jsonl",
        f"source.path={shared / 'tweets'}",
        "cleaning=huggingtweets",
        "output_dir=out",
        "publish=none",
        "recipe.block_size=64",
        *SMALL_MODEL,
        *QUICK,
    )
    states = read_states(tmp_path / "out")
    assert len(states) == len(accounts) == 64
    assert "Traceback" not in result.stderr
    for account, row in accounts.items():
        state = states[account.lower()]
        if row["enough"] == "1":
            assert state.status is JobStatus.done, state.reason
            counts = json.loads((tmp_path / "out" / account.lower() / "result.json").read_text())
            for key in ("downloaded", "retweets", "short", "kept"):
                assert counts["tweets"][key] == int(row[key]), (account, key)
        else:
            assert state.status is JobStatus.failed
            assert account.lower() in state.reason
            assert row["downloaded"] in state.reason
    assert result.returncode == 1  # four of them have too little


@pytest.mark.slow
def test_cyborg_of_three_real_accounts_trains(shared: Path, tmp_path: Path) -> None:
    result = train(
        tmp_path,
        "user=[SenWhitehouse,NASA,TheOnion]",
        "source=jsonl",
        f"source.path={shared / 'tweets'}",
        "output_dir=out",
        "recipe.block_size=64",
        *SMALL_MODEL,
        *QUICK,
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "out" / "nasa-senwhitehouse-theonion"
    card = (folder / "model" / "README.md").read_text()
    assert "AI CYBORG" in card
    assert len(json.loads((folder / "result.json").read_text())["tweets"]["users"]) == 3


@pytest.mark.slow
def test_gpt2_of_the_real_size_goes_through_model_path(shared: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(base)
    AutoTokenizer.from_pretrained(shared / "gpt2-tokenizer").save_pretrained(base)
    result = train(
        tmp_path,
        "user=NASA",
        "source=jsonl",
        f"source.path={shared / 'tweets'}",
        f"model.path={base}",
        "output_dir=out",
        "recipe=huggingtweets",
        "recipe.heldout_frac=0.01",
        "recipe.max_steps=2",
        "sampling.num=1",
        "sampling.max_new_tokens=12",
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "out" / "nasa"
    generator = pipeline("text-generation", model=str(folder / "model"))
    assert generator.model.num_parameters() == 124_439_808
    assert generator.tokenizer("My dream is").input_ids == [3666, 4320, 318]
    assert generator("My dream is", max_new_tokens=12)[0]["generated_text"]
    assert json.loads((folder / "result.json").read_text())["train"]["steps"] == 2
