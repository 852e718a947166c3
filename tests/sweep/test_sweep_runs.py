"""Sweeps as their users run them, by a process each: side by side, one by one, killed, resumed."""

import json
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from architecture_kinds import KINDS
from job_processes import SMALL, Running, Start, is_alive
from job_processes import run as train
from tokenizer_kinds import KINDS as TOKENIZERS
from transformers import AutoModelForCausalLM

from huggingtweets.config.compose import load_config
from huggingtweets.sweep.status import read_sweep

SPACE = """
space:
  recipe.lr: {low: 3e-4, high: 3e-2, log: true}
  recipe.epochs: {low: 1, high: 3}
  recipe.schedule: [constant, cosine]
"""
LIMIT_S = 900.0
"""Seconds that a sweep may take on a machine that does much else."""
ARGUMENTS = (*(text for text in SMALL if not text.startswith("engine=")), "source=jsonl")


def write_people(folder: Path, handles: list[str]) -> None:
    """Write posts that differ enough for some to be held out."""
    folder.mkdir(parents=True, exist_ok=True)
    for handle in handles:
        rng = random.Random(handle)
        words = ["".join(rng.choices("aeioulnrst", k=rng.randint(2, 7))) for _ in range(300)]
        rows = [{"text": " ".join(rng.choices(words, k=rng.randint(4, 12)))} for _ in range(60)]
        lines = [json.dumps({"id": str(at), **row}) for at, row in enumerate(rows)]
        (folder / f"{handle}.jsonl").write_text("\n".join(lines) + "\n")


def sweep(folder: Path, text: str, *arguments: str, users: str = "ann", out: str = "out") -> Start:
    """How to start a sweep over made-up people."""
    write_people(folder / "posts", users.split(","))
    (folder / "sweep.yaml").write_text(text)
    shared = (f"source.path={folder / 'posts'}", f"user={users}", f"output_dir={folder / out}")
    words = [str(folder / "sweep.yaml"), *ARGUMENTS, *shared, *arguments]
    return Start(words, log=folder / f"{out}.log", command="sweep")


def run(start: Start, code: int = 0) -> str:
    running = Running(start)
    assert running.wait(LIMIT_S) == code, running.words()
    return running.words()


def rows(root: Path) -> list[Any]:
    return list(read_sweep(root)[1].rows)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a sweep of six trials over two users, and what the terminal showed."""
    folder = tmp_path_factory.mktemp("sweep")
    words = run(sweep(folder, SPACE + "trials: 6", users="ann,bob"))
    return folder, words


def test_each_trial_trains_every_user_and_scores_their_mean(finished: tuple[Path, str]) -> None:
    folder, words = finished
    found = rows(folder / "out")
    assert [row.number for row in found] == list(range(6))
    assert "engine=fused" in words
    for row in found:
        assert row.state == "complete"
        assert row.users.keys() == {"ann", "bob"}
        scores = [user.heldout for user in row.users.values()]
        assert row.values == (pytest.approx(sum(scores) / 2),)
        assert scores[0] != scores[1]
        epochs = row.params["recipe.epochs"]
        assert [len(user.curve) for user in row.users.values()] == [epochs, epochs]
        config = load_config(folder / "out" / f"trial-{row.number:04d}" / "config.yaml")
        assert config.recipe.lr == row.params["recipe.lr"]
        assert config.recipe.schedule == row.params["recipe.schedule"]


def test_the_end_of_a_sweep_names_the_best(finished: tuple[Path, str]) -> None:
    folder, words = finished
    found = rows(folder / "out")
    best = min(found, key=lambda row: row.values)
    config = load_config(folder / "out" / "best.yaml")
    assert config.recipe.lr == best.params["recipe.lr"]
    assert f"{best.values[0]:.4f}" in words
    page = (folder / "out" / "report.html").read_text()
    for part in ("History", "Slices", "User by user", "Cost", "ann", "bob"):
        assert part in page
    assert page.count("<circle") >= 6 * 4
    assert not re.search(r'(?:src|href)="(?!data:)|<script|url\(|@import', page)


def test_the_best_configuration_trains_as_it_is(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    arguments = [f"--config-path={folder / 'out'}", "--config-name=best", "sampling.num=0"]
    train([*arguments, f"output_dir={folder / 'again'}"])
    best = min(rows(folder / "out"), key=lambda row: row.values)
    for slug, user in best.users.items():
        result = json.loads((folder / "again" / slug / "result.json").read_text())
        assert result["eval"]["bits_per_byte"] == pytest.approx(user.heldout, abs=1e-4)


def test_a_larger_total_goes_on_and_another_sweep_is_refused(
    finished: tuple[Path, str],
) -> None:
    folder, _ = finished
    before = rows(folder / "out")
    run(sweep(folder, SPACE + "trials: 8", users="ann,bob"))
    after = rows(folder / "out")
    assert after[:6] == before
    assert len(after) == 8
    words = run(sweep(folder, SPACE + "trials: 8", users="ann"), code=2)
    assert "other settings (users)" in words


def test_status_is_one_json_object(
    finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingtweets.cli.main import main

    assert main(["sweep", "status", str(finished[0] / "out"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["users"] == ["ann", "bob"]
    assert sum(status["counts"].values()) == len(status["rows"]) >= 6
    assert status["rows"][status["best"][0]]["values"]
    assert main(["sweep", "status", str(finished[0])]) == 2
    assert "holds no study" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_give_the_same_values(tmp_path: Path) -> None:
    text = SPACE.replace("high: 3}", "high: 2}") + "trials: 1\nstorage: journal\n"
    run(sweep(tmp_path, text, "recipe.dropout=0", out="fused"))
    words = run(sweep(tmp_path, text + "way: processes", "recipe.dropout=0", out="processes"))
    assert "engine=fused" not in words
    one, other = rows(tmp_path / "fused"), rows(tmp_path / "processes")
    assert [row.params for row in one] == [row.params for row in other]
    for a, b in zip(one, other, strict=True):
        assert a.values == pytest.approx(b.values, abs=1e-4)
        assert (a.steps, a.planned_steps) == (b.steps, b.planned_steps)


@pytest.mark.slow
def test_adapters_of_another_family_are_searched_side_by_side(tmp_path: Path) -> None:
    kind, configure = KINDS["llama3"]
    tokenizer = TOKENIZERS[kind]()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(configure(len(tokenizer))).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    text = "space:\n  recipe.lora_rank: [2, 4]\n  recipe.lr: [1e-3, 3e-3]\nsampler: grid\n"
    words = ("recipe.adapter=lora", "recipe.dropout=0", f"model.path={tmp_path / 'base'}")
    assert "engine=fused" in run(sweep(tmp_path, text, *words, out="fused"))
    run(sweep(tmp_path, text + "way: processes", *words, out="processes"))
    one, other = rows(tmp_path / "fused"), rows(tmp_path / "processes")
    assert {str(row.params) for row in one} == {str(row.params) for row in other}
    values = {str(row.params): row.values for row in other}
    for row in one:
        assert row.values == pytest.approx(values[str(row.params)], abs=1e-4), row.params


def test_a_diverging_trial_is_a_bad_one_and_no_failure(tmp_path: Path) -> None:
    text = "space: {recipe.lr: [1e-3, 9.0]}\nsampler: grid\nconfig: [recipe.max_grad_norm=0]"
    arguments = ("recipe.epochs=3", "recipe.weight_decay=1")
    run(sweep(tmp_path, text, *arguments))
    by_lr = {row.params["recipe.lr"]: row for row in rows(tmp_path / "out")}
    assert by_lr[1e-3].state == "complete"
    assert by_lr[9.0].state in ("complete", "pruned")
    assert read_sweep(tmp_path / "out")[1].best == (by_lr[1e-3].number,)


def test_a_new_sweep_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("ann  # the very file that names the people\n")
    start = sweep(tmp_path, SPACE + "trials: 1", out="")
    assert "users.txt: got a file in the place of one that a sweep writes" in run(start, code=2)
    assert (tmp_path / "users.txt").read_text().startswith("ann  #")


def test_bad_posts_end_a_sweep_before_its_first_trial(tmp_path: Path) -> None:
    start = sweep(tmp_path, SPACE, "cleaning.min_chars=999999")
    words = run(start, code=1)
    assert "ann" in words
    assert "Traceback" not in words
    assert not list((tmp_path / "out").glob("trial-*"))


def kill_and_go_on(
    folder: Path, text: str, total: int, kills: int, number_of_first: int = signal.SIGKILL
) -> None:
    """Kill a sweep at random moments and start it again, until it ends by itself."""
    rng = random.Random(7)
    root = folder / "out"
    for number in range(kills):
        running = Running(sweep(folder, text))
        ended = sum(1 for _ in root.glob("trial-*/trial.json")) if root.exists() else 0
        goal = min(total - 1, ended + max(1, total // (kills + 1)))
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and running.is_running():
            if sum(1 for _ in root.glob("trial-*/trial.json")) >= goal:
                break
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        assert running.is_running(), (number, running.words())
        if number == 0 and number_of_first != signal.SIGKILL:
            running.kill(running.launcher, number_of_first)
            assert running.wait() == 75, running.words()
            continue
        running.kill(running.launcher)
        while is_alive(running.launcher):
            time.sleep(0.01)
    run(sweep(folder, text))


def check_total(root: Path, total: int) -> None:
    """Exactly so many trials ended, each in a folder of its own, none twice."""
    found = rows(root)
    assert [row.number for row in found] == list(range(total))
    assert {row.state for row in found} <= {"complete", "pruned"}
    folders = sorted(path.name for path in root.glob("trial-*"))
    assert folders == [f"trial-{number:04d}" for number in range(total)]
    for row in found:
        trial = json.loads((root / f"trial-{row.number:04d}" / "trial.json").read_text())
        assert trial["params"] == dict(row.params)
        assert trial["state"] == row.state


def test_a_stopped_and_killed_sweep_reaches_its_total(tmp_path: Path) -> None:
    text = SPACE + "trials: 10\npruner: median\nparallel: 3\n"
    kill_and_go_on(tmp_path, text, 10, 2, signal.SIGTERM)
    check_total(tmp_path / "out", 10)


@pytest.mark.slow
def test_forty_trials_survive_five_kills(tmp_path: Path) -> None:
    text = SPACE + "trials: 40\npruner: asha\nparallel: 4\n"
    kill_and_go_on(tmp_path, text, 40, 5)
    check_total(tmp_path / "out", 40)


@pytest.mark.slow
def test_processes_survive_kills(tmp_path: Path) -> None:
    text = SPACE + "trials: 4\npruner: median\nway: processes\nparallel: 2\n"
    kill_and_go_on(tmp_path, text, 4, 2)
    check_total(tmp_path / "out", 4)


@pytest.mark.slow
def test_two_tasks_share_a_study(tmp_path: Path) -> None:
    text = SPACE + "trials: 16\nstorage: journal\nparallel: 2\n"
    start = sweep(tmp_path, text)
    tasks = [Running(start) for _ in range(2)]
    assert [task.wait(LIMIT_S) for task in tasks] == [0, 0], tasks[0].words()
    check_total(tmp_path / "out", 16)


def test_every_trial_is_a_run_in_the_group_of_the_sweep(tmp_path: Path) -> None:
    text = SPACE + "trials: 2\nstorage: journal\n"
    run(sweep(tmp_path, text, "tracking=wandb", "tracking.mode=offline", out="group"))
    for number in range(2):
        (record,) = (tmp_path / "group" / f"trial-{number:04d}" / "wandb").glob(
            "offline-run-*/*.wandb"
        )
        data = record.read_bytes()
        for part in (b"group", f"@sweep-{number:04d}-trial".encode(), b"eval/bits_per_byte"):
            assert part in data


def test_pruning_spares_steps(tmp_path: Path) -> None:
    text = "space: {recipe.lr: [1e-6, 3e-6, 1e-5, 1e-3, 3e-3, 1e-2]}\nsampler: grid\n"
    text += "pruner: {kind: median, startup_trials: 2}\nparallel: 2\nstorage: journal\n"
    run(sweep(tmp_path, text, "recipe.epochs=4"))
    _, summary = read_sweep(tmp_path / "out")
    assert summary.counts["pruned"] >= 1
    assert summary.saved_frac > 0
    for row in summary.rows:
        if row.state == "pruned":
            assert row.steps < row.planned_steps
            assert re.fullmatch(r"pruned after epoch \d", row.reason)
    assert summary.row(summary.best[0]).params["recipe.lr"] >= 1e-3


def test_optuna_sees_the_figures_of_each_epoch(tmp_path: Path) -> None:
    text = SPACE + "trials: 3\nsampler: tpe\npruner: hyperband\nstorage: journal\n"
    run(sweep(tmp_path, text))
    path = str(tmp_path / "out" / "study.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    study = optuna.load_study(study_name="sweep", storage=storage)
    for trial in study.trials:
        assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
