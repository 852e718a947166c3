import logging
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from huggingtweets.config.compose import dump_config
from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.config.schema import Consent, TrainConfig
from huggingtweets.handles import Job
from huggingtweets.jobs.consent import settle_consent

ANN, BOB = Job.of(["ann"]), Job.of(["bob"])


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    source = SourceConfig(kind=SourceKind.jsonl, path="posts")
    return TrainConfig(user="ann", output_dir=str(tmp_path), source=source)


def test_a_batch_goes_on_with_a_warning(
    config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    assert settle_consent(config, [ANN, BOB]) == config
    assert "consent=own-archive|permission|" in caplog.text


def test_nothing_is_said_where_the_ground_is_stated_or_nobody_is_real(
    config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    stated = replace(config, consent=Consent.permission)
    assert settle_consent(stated, [ANN]) == stated
    settle_consent(TrainConfig(user="demo"), [Job.of(["demo"])])
    assert caplog.text == ""


def test_only_the_main_process_warns(
    config: TrainConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level(logging.WARNING):
        settle_consent(config, [ANN])
    assert caplog.text == ""


def test_what_was_stated_for_the_job_before_stays(config: TrainConfig, tmp_path: Path) -> None:
    stated = replace(config, consent=Consent("own-archive"))
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "config.yaml").write_text(dump_config(stated))
    assert settle_consent(config, [ANN]).consent == "own-archive"
    assert settle_consent(config, [BOB]).consent == "unstated"


CODE = """
from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.config.schema import TrainConfig
from huggingtweets.handles import Job
from huggingtweets.jobs.consent import settle_consent
source = SourceConfig(kind=SourceKind.jsonl, path="posts")
config = TrainConfig(user="ann", output_dir="nowhere", source=source)
print("GROUND", settle_consent(config, [Job.of(["ann"])]).consent)
"""


@pytest.mark.parametrize(
    ("typed", "ground"),
    [("1", "own-archive"), ("permission", "permission"), ("", "unstated"), ("9", "unstated")],
)
def test_somebody_at_a_terminal_is_asked(typed: str, ground: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    os.write(ours, f"{typed}\n".encode())
    out, _ = process.communicate(timeout=60)
    os.close(theirs)
    os.close(ours)
    assert out.strip() == f"GROUND {ground}"


def test_several_processes_ask_nobody(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {"WORLD_SIZE": "2", "RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=env,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    os.close(ours)
    assert done.stdout.strip() == "GROUND unstated"
