"""Damaged files of one user between two starts: no traceback, nobody else touched, all done."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from job_processes import SMALL, Running, Start, weights_digest, write_posts

from huggingtweets.jobs.status import read_states

HANDLES = ("ann", "bob", "carl")
FILES = (
    "config.yaml", "result.json", "tweets.jsonl.gz", "dataset.jsonl.gz", "cleaning.json",
    "metrics.jsonl", "lineage.json", "predictions.jsonl", "report.html", "model/model.safetensors",
    "model/config.json", "model/tokenizer.json", "model", "checkpoints", ".lock",
)  # fmt: skip


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes() or b"x")
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


def replace(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    make(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b"") if path.is_file() else None,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2) if path.is_file() else None,
    "flipped": lambda path: flip(path) if path.is_file() else None,
    "list": lambda path: replace(path, lambda to: to.write_text("- a\n")),
    "deep": lambda path: replace(path, lambda to: to.write_text("[" * 100_000)),
    "nonsense": lambda path: replace(path, lambda to: to.write_text('{"eval": [1], "train": 3}')),
    "folder": lambda path: replace(path, lambda to: to.mkdir()),
    "pipe": lambda path: replace(path, os.mkfifo),
    "link": lambda path: replace(path, lambda to: to.symlink_to("/dev/null")),
    "dangling": lambda path: replace(path, lambda to: to.symlink_to("nowhere")),
    "unreadable": lambda path: path.chmod(0),
    "gone": lambda path: shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True),
}
BATCH_FILES = (
    "index.html", "results.csv", "results.parquet", "ledger", "ledger/main.jsonl",
    "ledger/command.txt", "ledger/metrics.prom", "ledger/spent-usd.txt",
)  # fmt: skip
BATCH_SAMPLE = (("ledger", "pipe"), ("ledger/main.jsonl", "link"), ("index.html", "folder"))
EVERY = tuple((name, damage) for name in FILES for damage in DAMAGES)
SAMPLE = (
    ("config.yaml", "flipped"), ("result.json", "deep"), ("tweets.jsonl.gz", "flipped"),
    ("model/model.safetensors", "cut"), ("model", "gone"), ("result.json", "pipe"),
)  # fmt: skip


def command(folder: Path) -> list[str]:
    users = folder / "users.txt"
    users.write_text("\n".join(HANDLES) + "\n")
    small = [word for word in SMALL if not word.startswith(("engine=single", "publish="))]
    return [
        *small,
        "engine=fused",
        "publish=none",
        "recipe.max_steps=4",
        "consent=permission",
        f"user=file:{users}",
        "source=jsonl",
        f"source.path={write_posts(folder / 'posts', *HANDLES)}",
        f"output_dir={folder / 'out'}",
    ]


def go(folder: Path, arguments: list[str]) -> tuple[int, str]:
    log = folder / "log"
    log.unlink(missing_ok=True)
    running = Running(Start(arguments, log=log))
    return running.wait(120), running.words()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    code, words = go(folder, command(folder))
    assert code == 0, words
    shutil.copytree(folder / "out", folder / "calm")
    return folder


def begin_calm(folder: Path) -> Path:
    """Return the output folder as the undisturbed batch left it."""
    out = folder / "out"
    shutil.rmtree(out)
    shutil.copytree(folder / "calm", out)
    return out


def go_on(folder: Path, damaged: object) -> str:
    """Start again, where bob's model has to come out as ever and nobody else's is touched."""
    out = folder / "out"
    others = {one: (out / one / "result.json").stat().st_mtime_ns for one in ("ann", "carl")}
    code, words = go(folder, command(folder))
    assert code == 0, (damaged, words)
    assert "Traceback" not in words, (damaged, words)
    assert "bug of ours" not in words, (damaged, words)
    for one, time in others.items():
        assert (out / one / "result.json").stat().st_mtime_ns == time, (damaged, one)
    assert weights_digest(out / "bob") == weights_digest(folder / "calm" / "bob"), damaged
    return words


def check(folder: Path, damages: list[tuple[str, str]], *, was_done: bool) -> None:
    """Damage bob's files, start again, and compare everybody with the undisturbed ones."""
    out = begin_calm(folder)
    if not was_done and not any(name == "result.json" for name, _ in damages):
        (out / "bob" / "result.json").unlink()
    for name, damage in damages:
        if (out / "bob" / name).exists():
            DAMAGES[damage](out / "bob" / name)
    said = {slug: state.status for slug, state in read_states(out).items()}
    words = go_on(folder, damages)
    result = json.loads((out / "bob" / "result.json").read_text())
    assert result["model"]["files"]["model.safetensors"]["bytes"] > 0
    is_begun_anew = "job=bob done" in words
    assert (said["bob"] != "done") == is_begun_anew, (damages, "status says something else", words)


@pytest.mark.parametrize(("name", "damage"), SAMPLE)
def test_a_damaged_file_of_one_user_touches_one_user(calm: Path, name: str, damage: str) -> None:
    check(calm, [(name, damage)], was_done=name.startswith(("model", "result")))


@pytest.mark.slow
@pytest.mark.parametrize("was_done", [True, False])
@pytest.mark.parametrize(("name", "damage"), EVERY)
def test_the_whole_matrix(calm: Path, name: str, damage: str, was_done: bool) -> None:
    check(calm, [(name, damage)], was_done=was_done)


def check_batch(folder: Path, name: str, damage: str) -> None:
    """Damage a file that belongs to all and start again: one job is left, the others stand."""
    out = begin_calm(folder)
    (out / "bob" / "result.json").unlink()
    DAMAGES[damage](out / name)
    go_on(folder, (name, damage))
    assert {slug: state.status for slug, state in read_states(out).items()} == dict.fromkeys(
        HANDLES, "done"
    )
    assert (out / "index.html").read_text().count("bob"), "the page is made again"


@pytest.mark.parametrize(("name", "damage"), BATCH_SAMPLE)
def test_a_damaged_file_of_the_batch_touches_nobody(calm: Path, name: str, damage: str) -> None:
    check_batch(calm, name, damage)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", BATCH_FILES)
def test_the_whole_matrix_of_a_batch(calm: Path, name: str, damage: str) -> None:
    check_batch(calm, name, damage)


def test_other_settings_are_refused_once_and_change_nothing(calm: Path) -> None:
    out = begin_calm(calm)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code, words = go(calm, [*command(calm), "recipe.lr=0.5"])
    assert code == 2
    assert words.count("other settings") == 1
    assert "output_dir=" in words
    assert "overwrite=true" in words
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    code, words = go(calm, [*command(calm), "recipe.lr=0.5", "overwrite=true"])
    assert code == 0, words
    assert weights_digest(out / "ann") != weights_digest(calm / "calm" / "ann")
