import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from huggingtweets.cli import main as cli
from huggingtweets.jobs.ledger import JobStatus, keep_command, open_ledger


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    with open_ledger(tmp_path) as ledger:
        ledger.record("alice", JobStatus.done)
        ledger.record("bob", JobStatus.failed, reason="bob: got 12 characters; expected 6000")
        ledger.record("carol", JobStatus.skipped, reason="opted out")
    (tmp_path / "alice" / "model").mkdir(parents=True)
    (tmp_path / "alice" / "model" / "model.safetensors").touch()
    (tmp_path / "alice" / "result.json").write_text(json.dumps({"digest": "0" * 64}))
    return tmp_path


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "huggingtweets.cli", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | env,
        timeout=120,
    )


def test_status_shows_counts_and_reasons(batch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(batch)]) == 0
    shown = capsys.readouterr().out
    assert f"{batch}: 3 jobs, 1 done, 1 failed, 1 skipped" in shown
    assert "bob: got 12 characters; expected 6000" in shown
    assert not [line for line in shown.splitlines() if line != line.rstrip()]


def test_status_sums_up_quality_and_names_the_command_for_what_is_curable(
    batch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for slug, bits in (("alice", 1.5), ("dora", 1.2), ("emil", 2.5)):
        (batch / slug / "model").mkdir(parents=True, exist_ok=True)
        (batch / slug / "model" / "model.safetensors").touch()
        held_out = {"bits_per_byte": bits, "base_bits_per_byte": 3.0}
        (batch / slug / "result.json").write_text(
            json.dumps({"digest": "0" * 64, "eval": held_out})
        )
    with open_ledger(batch) as ledger:
        for slug in ("ina", "jo", "kim", "lea", "mia"):
            reason = f"{slug}: disk full after {len(slug)} files"
            ledger.record(slug, JobStatus.failed, reason=reason, retryable=True)
    keep_command(batch, ["user=file:a b.txt", "shard=1/2", "seed=3"])
    assert cli.main(["status", str(batch)]) == 0
    shown = capsys.readouterr().out
    assert "1.500 bits per byte, with the base 3.000 (medians of 3)" in shown
    assert "best dora 1.200, worst emil 2.500" in shown
    assert "5 ina, jo, kim and 2 more ina: disk full after 3 files" in " ".join(shown.split())
    command = "huggingtweets train 'user=file:a b.txt' seed=3 only_curable=true"
    assert f"5 of them may go well when tried again: {command}" in shown


def test_status_prints_one_json_object(batch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(batch), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["total"], value["done"], value["failed"], value["skipped"]) == (3, 1, 1, 1)
    assert [job["slug"] for job in value["jobs"]] == ["alice", "bob", "carol"]


def test_status_watches_until_nothing_is_left(batch: Path) -> None:
    with open_ledger(batch, shard="1/2") as ledger:
        ledger.record("dave", JobStatus.running)
        watch = ["status", str(batch), "--json", "--watch", "--every", "0.1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "huggingtweets.cli", *watch],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["running"] == 1
        ledger.record("dave", JobStatus.failed, reason="NaN")
        last = process.stdout.read().splitlines()[-1]
    assert process.wait(30) == 0
    assert json.loads(last)["failed"] == 2


def test_status_of_no_folder_is_one_sentence(tmp_path: Path) -> None:
    done = run("status", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert done.stderr == (
        f"huggingtweets: status: got {tmp_path / 'absent'}, which is not a folder; expected the "
        "output_dir of a run; check the path\n"
    )


def test_an_unknown_command_names_the_nearest() -> None:
    done = run("statsu")
    assert done.returncode == 2
    assert "did you mean status?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["status"], ["status", "x", "--jsn"]], ids=str)
def test_a_usage_error_has_no_traceback(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "usage: huggingtweets" in done.stderr


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["generate", "d", "-n", "1", "My dream is"], "prompts", ["My dream is"]),
        (["compare", "a", "--json", "b"], "folders", ["a", "b"]),
        (["optout", "a", "--file", "x", "b"], "handles", ["a", "b"]),
        (["import", "jsonl", "a", "--to", "d", "b"], "handles", ["a", "b"]),
        (["sweep", "status", "--json", "d"], "arguments", ["d"]),
        (["check", "seed=1", "--show", "seed=2"], "overrides", ["seed=1", "seed=2"]),
        (["prefetch", "seed=1", "--from", "hub", "seed=2"], "overrides", ["seed=1", "seed=2"]),
    ],
    ids=str,
)
def test_words_may_follow_an_option(words: list[str], name: str, expected: list[str]) -> None:
    assert getattr(cli.parse(words), name) == expected


LONG = "x" * 300
HOMELESS = "~nobody_of_this_name/x"


@pytest.mark.parametrize(
    "words",
    [
        ["status", LONG],
        ["export", "csv", LONG],
        ["compare", LONG, "a"],
        ["attribute", LONG],
        ["generate", LONG],
        ["sweep", LONG],
        ["sweep", "status", LONG],
        ["purge", "a", "--outputs", LONG],
        ["prefetch", f"model.path={LONG}"],
        ["train", "user=demo", f"--config-dir={LONG}"],
        ["train", "user=demo", f"output_dir={LONG}", "model=tiny", "recipe.block_size=128"],
        ["check", f"user=file:{HOMELESS}"],
        ["check", "user=demo", f"optout_file={HOMELESS}"],
        ["check", "user=demo", "source=jsonl", f"source.path={HOMELESS}"],
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_a_path_that_nobody_can_take_is_one_sentence(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    assert cli.main(words) in (1, 2)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hugg")]
    assert len(said) == 1
    assert "expected" in said[0] or "does not exist" in said[0]


def test_init_writes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "here" / "conf").mkdir(parents=True)
    (tmp_path / "here" / "conf" / "train.yaml").symlink_to(tmp_path / "outside")
    assert cli.main(["init", str(tmp_path / "here")]) == 0
    assert not (tmp_path / "outside").exists()


def test_help_answers_at_once() -> None:
    start = time.monotonic()
    done = run("--help")
    assert done.returncode == 0
    assert "status" in done.stdout
    assert time.monotonic() - start < 5


def test_output_to_a_closed_pipe_is_no_error(batch: Path) -> None:
    command = f"{sys.executable} -m huggingtweets.cli status {batch} --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("status", "doctor"):
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert f"usage: huggingtweets {name}" in capsys.readouterr().out


def test_doctor_tells_what_it_finds_and_no_secret(tmp_path: Path) -> None:
    config = tmp_path / "hf" / "accelerate" / "default_config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    (tmp_path / "hf" / "hub" / "models--openai--thing").mkdir(parents=True)
    done = run(
        "doctor",
        "--json",
        HF_HOME=str(tmp_path / "hf"),
        HF_TOKEN="hf_SECRETSECRET",
        WANDB_API_KEY="0123456789" * 4,
        WANDB_MODE="",
        ACCELERATE_USE_CPU="true",
    )
    assert done.returncode == 0, done.stderr
    findings = {finding["topic"]: finding for finding in json.loads(done.stdout)}
    assert "torch" in findings["packages"]["value"]
    assert str(config) in findings["accelerate"]["value"]
    assert "--config_file" in findings["accelerate"]["advice"]
    assert "openai/thing" in findings["hub cache"]["value"]
    assert findings["hub"]["value"].endswith("a token")
    assert "would be online: a key" in findings["wandb"]["value"]
    assert "ACCELERATE_USE_CPU" in findings["environment"]["value"]
    assert "cores usable" in findings["cpu"]["value"]
    assert {"gpu", "gpu 0"} & findings.keys()
    assert {"deepspeed", "compilers", "fonts", "slurm", "disk here"} <= findings.keys()
    assert "SECRET" not in done.stdout + done.stderr
    assert "0123456789" not in done.stdout + done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence(batch: Path) -> None:
    command = f"{sys.executable} -m huggingtweets.cli status {batch} > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("huggingtweets: status: got No space left")
    assert "Traceback" not in done.stderr


def test_without_a_word_the_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main([])
    assert done.value.code == 2
    assert "train a model per person" in capsys.readouterr().err


def test_people_are_asked_for_before_the_base(tmp_path: Path) -> None:
    """The base gpt2 is not here and no Hub is asked for it: the handle is wrong already."""
    done = run("train", "user=you", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.returncode != 0
    assert "source=demo: got user=you; expected one of demo, " in done.stderr
    assert "gpt2" not in done.stderr


def test_serve_answers_a_wrong_path_before_anything_heavy(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingtweets.serve.run", None)  # to import it would fail
    assert cli.main(["serve", "nowhere"]) == 2
    assert "serve: got nowhere, which is not a folder" in capfd.readouterr().err
