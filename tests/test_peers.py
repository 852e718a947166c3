"""Benchmarks: the plain loop computes what transformers computes; reports stay whole."""

import json
import sys
from pathlib import Path

import pytest
import torch
from small import ROOT
from transformers import GPT2Config, GPT2LMHeadModel


def test_figures_are_not_written_over_by_their_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    from harness import add_training, build_parser

    parser = build_parser(None)
    add_training(parser)
    assert parser.parse_args(["--out", "x.json"]).out == Path("x.json")
    with pytest.raises(SystemExit):
        parser.parse_args(["--out", "x.md"])
    assert "got x.md; expected a name for JSON" in capsys.readouterr().err


def test_the_plain_gpt_is_the_one_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    from peers import build_gpt
    from safetensors.torch import load_file

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=60, n_positions=24, n_embd=32, n_layer=2, n_head=4)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path)
    shape = json.loads((tmp_path / "config.json").read_text())
    plain = build_gpt(shape, load_file(tmp_path / "model.safetensors")).eval()
    ids = torch.randint(0, 60, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(plain(ids), model(ids).logits, rtol=1e-4, atol=1e-5)
