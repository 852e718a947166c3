"""`train.py` as its users run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from job_processes import train as run
from small import ROOT, SMALL_MODEL
from transformers import pipeline

from huggingtweets.config.compose import load_config
from huggingtweets.train import wait_asleep_if_busy

QUICK = (
    *SMALL_MODEL,
    "engine.precision=fp32",
    "recipe.block_size=64",
    "recipe.max_steps=6",
    "recipe.lr=1e-3",
    "sampling.num=1",
    "sampling.max_new_tokens=20",
)


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As from a shell; `run` spares the imports."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished job and what the terminal showed."""
    folder = tmp_path_factory.mktemp("demo")
    done = train("user=demo", *QUICK, "output_dir=out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out" / "demo", done.stdout


def test_job_leaves_every_file_of_the_contract(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {
        "config.yaml", "tweets.jsonl.gz", "cleaning.json", "dataset.jsonl.gz", "metrics.jsonl",
        "predictions.jsonl", "lineage.json", "report.html", "result.json", "model/config.json",
        "model/model.safetensors", "model/generation_config.json", "model/tokenizer.json",
        "model/tokenizer_config.json", "model/README.md", "model/preview.png",
    }  # fmt: skip
    assert expected <= found
    assert not [name for name in found if name.endswith(".tmp")]
    assert not (folder / "checkpoints").exists()


def test_result_has_what_the_design_promises(demo: tuple[Path, str]) -> None:
    result = json.loads((demo[0] / "result.json").read_text())
    assert result["slug"] == "demo"
    assert result["status"] == "done"
    counts = result["tweets"]
    assert counts["downloaded"] == sum(
        counts[key] for key in ("retweets", "short", "repeats", "kept")
    )
    assert counts["users"]["demo"]["kept"] == counts["kept"] > 1000
    assert result["train"]["steps"] == 6
    assert {"train_tokens", "heldout_tokens", "blocks"} <= result["data"].keys()
    assert 0 < result["train"]["startup_frac"] < 1
    assert result["train"]["first_step_s"] > 0
    assert 0 <= result["train"]["data_wait_s"] < result["train"]["seconds"]
    assert {"epochs", "tokens", "seconds", "tokens_per_s", "mfu", "final_loss"} <= result[
        "train"
    ].keys()
    assert result["eval"]["bits_per_byte"] < result["eval"]["base_bits_per_byte"]
    assert {"engine", "versions", "started_at", "finished_at", "handles", "digest"} <= result.keys()


def test_quality_stands_in_result_card_and_report(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    result = json.loads((folder / "result.json").read_text())
    model, base = result["quality"]["model"], result["quality"]["base"]
    assert model["bits_per_byte"]["low"] < result["eval"]["bits_per_byte"]
    assert result["eval"]["bits_per_byte"] < model["bits_per_byte"]["high"]
    low, high = result["eval"]["base_bits_per_byte_interval"]
    assert low < result["eval"]["base_bits_per_byte"] < high
    assert model["train_bits_per_byte"] < base["train_bits_per_byte"]
    assert base["extraction"]["verbatim_frac"] == 0
    copying = result["quality"]["text"]["memorisation"]
    assert copying["samples"]["num_posts"] > 0
    assert copying["heldout"]["num_posts"] == result["data"]["heldout_posts"]
    assert "- type: extracted" in (folder / "model" / "README.md").read_text()
    assert "Copying from the training posts" in (folder / "report.html").read_text()


def test_metrics_are_json_lines(demo: tuple[Path, str]) -> None:
    lines = [json.loads(line) for line in (demo[0] / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    assert logged[-1]["step"] == 6
    assert {"epoch", "lr", "grad_norm", "tokens_per_s", "mfu", "data_wait_s"} <= logged[-1].keys()
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 6]


def test_model_folder_loads_in_pipeline(demo: tuple[Path, str]) -> None:
    generator = pipeline("text-generation", model=str(demo[0] / "model"))
    text = generator("My dream is", max_new_tokens=5)[0]["generated_text"]
    assert text.startswith("My dream is")
    assert generator.model.generation_config.top_p == 0.95


def test_terminal_shows_samples_counts_figures_and_files(demo: tuple[Path, str]) -> None:
    shown = demo[1]
    for part in ("My dream is", "downloaded", "bits per byte", "fine-tuned", "report.html"):
        assert part in shown
    assert "huggingtweets generate out/demo" in shown


def test_same_job_again_does_nothing_and_another_is_refused(demo: tuple[Path, str]) -> None:
    folder = demo[0].parent.parent
    before = (demo[0] / "result.json").stat().st_mtime_ns
    again = run("user=@Demo", *QUICK, "output_dir=out", cwd=folder)
    assert again.returncode == 0
    assert (demo[0] / "result.json").stat().st_mtime_ns == before
    other = run("user=demo", *QUICK, "output_dir=out", "recipe.lr=5e-3", cwd=folder)
    assert other.returncode == 2
    assert "recipe.lr: 0.001 -> 0.005" in other.stderr
    assert "Traceback" not in other.stderr


def test_config_yaml_runs_again(demo: tuple[Path, str], tmp_path: Path) -> None:
    folder = demo[0]
    again = run(
        f"--config-path={folder}",
        "--config-name=config",
        f"output_dir={tmp_path / 'again'}",
        cwd=tmp_path,
    )
    assert again.returncode == 0, again.stderr
    first, second = (
        json.loads((path / "result.json").read_text())
        for path in (folder, tmp_path / "again" / "demo")
    )
    assert first["digest"] == second["digest"]
    assert first["eval"] == second["eval"]
    assert load_config(tmp_path / "again" / "demo" / "config.yaml").user == "demo"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["user=../x"], 2, "expected a handle"),
        (["recipe.lr=1"], 2, "user: got nothing"),
        (["user=file:nowhere.txt"], 2, "nowhere.txt"),
        (["user=demo", "source=csv", "source.path=nowhere.csv"], 2, "nowhere.csv"),
        (["user=demo", "recpe.lr=1"], 2, "did you mean recipe.lr"),
        (["user=nobody_here", *QUICK], 1, "nobody_here"),
    ],
    ids=["handle", "no-user", "users-file", "posts-file", "key", "demo-user"],
)
def test_mistake_is_one_sentence(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    result = train(*arguments, cwd=tmp_path)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_help_shows_how_to_use_it(tmp_path: Path) -> None:
    result = train("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "huggingtweets train user=file:users.txt" in result.stdout
    assert "accelerate launch train.py user=" in result.stdout
    assert "recipe: huggingtweets, lora, tweets\n" in result.stdout
    assert "consent: unstated\n" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_who_reads_only_the_first_lines_of_the_help_is_told_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "huggingtweets.train", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_samples_that_the_guards_refuse_to_the_end_are_told(tmp_path: Path) -> None:
    options = ("sampling.prompts=[I think so,I like]", "sampling.banned_words=[I think]")
    done = run("user=demo", *QUICK, *options, "publish=none", "output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "samples=1 of 2: for the others all that was drawn was refused (6 banned" in done.stderr
    lines = (tmp_path / "out/demo/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["input"] for line in lines] == ["I like"]


@pytest.mark.parametrize(("load", "policy"), [(0.0, None), (1000.0, "PASSIVE")])
def test_threads_wait_asleep_only_where_others_want_the_cores(
    monkeypatch: pytest.MonkeyPatch, load: float, policy: str | None
) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    wait_asleep_if_busy()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
