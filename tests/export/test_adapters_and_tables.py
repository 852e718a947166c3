"""Folders of adapters, tables, and publishing afterwards."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from huggingtweets.bases.lora import adapter_state, add_lora, save_adapters
from huggingtweets.cli import main as cli
from huggingtweets.config.schema import Consent, RecipeConfig
from huggingtweets.errors import ConfigError, PublishError
from huggingtweets.export.adapters import export_adapters
from huggingtweets.export.finished import finished_jobs
from huggingtweets.export.hub import export_hub
from huggingtweets.posts.optout import handle_hash


def write_job(folder: Path, slug: str, **result: Any) -> Path:
    job = folder / slug
    (job / "model").mkdir(parents=True)
    (job / "result.json").write_text(json.dumps({"slug": slug, "handles": [slug], **result}))
    rows = [{"input": "My", "prediction": text} for text in ("My day", "=HYPERLINK(1)", '"a", b')]
    (job / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return job


@pytest.fixture
def adapted(tmp_path: Path) -> Path:
    """Two people with adapters of one base, and one with a whole model."""
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    plain = LlamaForCausalLM(config)
    plain.save_pretrained(tmp_path / "base")
    output = tmp_path / "output"
    for slug in ("ann", "bob"):
        model = LlamaForCausalLM(config)
        add_lora(model, RecipeConfig(), seed=1)
        save_adapters(
            write_job(output, slug) / "model", adapter_state(dict(model.named_parameters())), plain,
            RecipeConfig(), base_name=str(tmp_path / "base"), revision=None,
        )  # fmt: skip
    write_job(output, "cy")
    return output


def test_adapters_lie_flat_and_the_command_names_them(
    adapted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = adapted.parent / "flat"
    words = ["export", "adapters", str(adapted), "--to", str(folder), "--base", "smol"]
    assert cli.main(words) == cli.main(words) == 0
    assert len(list((folder / "ann").iterdir())) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["ann", "bob"]
    ours, theirs = (
        place / "adapter_model.safetensors" for place in (adapted / "ann" / "model", folder / "ann")
    )
    assert ours.samefile(theirs)
    assert json.loads((folder / "ann" / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == "smol"  # fmt: skip
    shown = capsys.readouterr().out
    assert "vllm serve smol --enable-lora --max-lora-rank 8" in shown
    assert f"VLLM_LORA_RESOLVER_CACHE_DIR={folder}" in shown


@pytest.mark.parametrize("fault", ["name", "shape"])
def test_adapters_that_do_not_fit_the_base_are_refused(fault: str, adapted: Path) -> None:
    path = adapted / "bob" / "model" / "adapter_model.safetensors"
    tensors = load_file(path)
    first = next(name for name in tensors if "lora_A" in name)
    if fault == "name":
        tensors[first.replace(".layers.", ".blocks.")] = tensors.pop(first)
    else:
        tensors[first] = torch.zeros(8, 7)
    save_file(tensors, path)
    with pytest.raises(ConfigError, match=r"bob: got .*expected"):
        export_adapters(finished_jobs(adapted), adapted.parent / "flat")
    assert not (adapted.parent / "flat").exists()


@pytest.mark.parametrize("to", ["output", "output/ann/model", "foreign"])
def test_adapters_are_written_over_nothing_of_others(
    to: str, adapted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (adapted.parent / "foreign" / "bob").mkdir(parents=True)
    (adapted.parent / "foreign" / "bob" / "README.md").touch()
    before = sorted(adapted.parent.rglob("*"))
    assert cli.main(["export", "adapters", str(adapted), "--to", str(adapted.parent / to)]) == 2
    assert "--to: got" in capsys.readouterr().err
    assert sorted(adapted.parent.rglob("*")) == before


def test_folder_without_adapters_is_one_sentence(adapted: Path) -> None:
    with pytest.raises(ConfigError, match=r"none with adapters; .*publish\.lora=adapter"):
        export_adapters(finished_jobs(adapted, ["cy"]), adapted.parent / "flat")


def test_tables_hold_everybody_and_compute_nothing(adapted: Path) -> None:
    path = adapted.parent / "all.csv"
    assert cli.main(["export", "csv", str(adapted), "--samples", "--to", str(path)]) == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert rows[1]["prediction"] == "'=HYPERLINK(1)"
    assert rows[2]["prediction"] == '"a", b'
    assert cli.main(["export", "parquet", str(adapted), "--user", "ann"]) == 0
    assert (adapted / "export.parquet").is_file()


ENDLESS = '{"base_model_name_or_path": "x", "r": Infinity}'


@pytest.mark.parametrize("text", ["[1]", '{"r": null}', "{", '{"r": 8}', ENDLESS])
def test_adapters_that_do_not_say_of_what_are_one_sentence(text: str, adapted: Path) -> None:
    (adapted / "bob" / "model" / "adapter_config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"bob: adapter_config\.json cannot be read"):
        export_adapters(finished_jobs(adapted), adapted.parent / "flat")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_takes_no_folders_place(
    kind: str, adapted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", kind, str(adapted), "--samples"]
    (adapted / f"export.{kind}").mkdir()
    assert cli.main(words) == cli.main([*words, "--to", str(adapted)]) == 2
    said = "got a folder; expected a file; name one with --to"
    assert capsys.readouterr().err.count(said) == 2
    assert (adapted / "ann" / "result.json").is_file()


@pytest.mark.parametrize("text", ["[1]\n", "{}\n", "no json\n"])
def test_samples_that_are_damaged_are_left_out(
    text: str, adapted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (adapted / "bob" / "predictions.jsonl").write_text(text)
    path = adapted.parent / "all.csv"
    assert cli.main(["export", "csv", str(adapted), "--samples", "--to", str(path)]) == 0
    with path.open(newline="") as file:
        assert {row["slug"] for row in csv.DictReader(file)} == {"ann", "cy"}
    assert "predictions.jsonl is left out" in capfd.readouterr().err


def test_who_opted_out_is_exported_nowhere(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "optout.txt").write_text(handle_hash("ann") + "\n")
    monkeypatch.setenv("HUGGINGTWEETS_OPTOUT", str(tmp_path / "optout.txt"))
    assert [job.slug for job in finished_jobs(adapted)] == ["bob", "cy"]
    with pytest.raises(ConfigError, match="has no finished job"):
        finished_jobs(adapted, ["ann"])


def test_publishing_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slug in ("ann", "bob", "cy"):
        (write_job(tmp_path, slug) / "model" / "config.json").write_text("{}")
    asked: list[str] = []

    def publish(folder: Path, slug: str, **options: object) -> str:
        asked.append(slug)
        if slug == "bob" and asked.count("bob") == 1:
            raise PublishError("bob: the Hub did not take it")
        if slug == "cy" and asked.count("cy") == 1:
            raise KeyboardInterrupt
        return f"https://example.org/{slug}"

    monkeypatch.setattr("huggingtweets.export.hub.publish_model", publish)

    def run(consent: Consent = Consent["own-archive"], private: bool = True) -> Any:
        return export_hub(
            finished_jobs(tmp_path), tmp_path / "published.jsonl", org=None, private=private,
            consent=consent,
        )  # fmt: skip

    with pytest.raises(ConfigError, match="consent: got unstated for ann"):
        run(Consent.unstated)
    with pytest.raises(KeyboardInterrupt):
        run()
    found = run()
    assert asked == ["ann", "bob", "cy", "bob", "cy"]
    assert (found.num_before, [slug for slug, _ in found.new]) == (1, ["bob", "cy"])
    (tmp_path / "ann" / "model" / "config.json").write_text("{ }")
    assert [slug for slug, _ in run().new] == ["ann"]
    shutil.rmtree(tmp_path / "ann")
    assert run().num_before == 2
    (tmp_path / "published.jsonl").write_text("[1]\n")
    assert [slug for slug, _ in run().new] == ["bob", "cy"]
    for other in ((Consent["own-archive"], False), (Consent.permission, False)):
        assert [slug for slug, _ in run(*other).new] == ["bob", "cy"]
        assert run(*other).num_before == 2
