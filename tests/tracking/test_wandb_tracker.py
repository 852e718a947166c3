"""W&B for real, against servers on the loopback; each job in a process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from wandb.proto.wandb_internal_pb2 import Record

from huggingtweets.storage.files import read_json
from huggingtweets.tracking.wandb_session import _remove_earlier

Start = Callable[..., Any]
SECRETS = (b"hf_INTHE", b"hf_ONTHE", b"0123456789abcdef0123")


def read_record(path: Path) -> list[Record]:
    """Records of a `.wandb` file: LevelDB log blocks of 32 KiB after a header of 7 bytes."""
    data, position, part, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        size, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        part += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # full or last
            records.append(Record.FromString(part))
            part = b""
    return records


def every_byte_under(*folders: Path) -> bytes:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)


def assert_recorded_offline(job: Any) -> None:
    """Nothing is lost: both phases, all figures and the table lie on the disk, and can be read."""
    records = [read_record(path) for path in job.offline_records]
    assert len(records) == 2
    names = {record.run.display_name for run in records for record in run if record.HasField("run")}
    assert names == {"@alice-bob-preprocess", "@alice-bob-train"}
    steps = [
        item.value_json
        for run in records
        for record in run
        if record.HasField("history")
        for item in record.history.item
        if item.nested_key == ["train/loss"] or item.key == "train/loss"
    ]
    assert len(steps) == 100
    assert len(list(job.job.glob("wandb/*/files/media/table/examples*.table.json"))) == 1


def assert_lineage_kept(job: Any) -> None:
    edges = read_json(job.job / "lineage.json")["edges"]
    assert [(edge["run"], edge["direction"], edge["artifact"]) for edge in edges] == [
        ("@alice-bob-preprocess", "output", "tweets-alice-bob"),
        ("@alice-bob-preprocess", "output", "dataset-alice-bob"),
        ("@alice-bob-train", "input", "gpt2"),
        ("@alice-bob-train", "input", "dataset-alice-bob"),
        ("@alice-bob-train", "output", "alice-bob"),
    ]


@pytest.fixture(scope="module")
def healthy(start_wandb: Callable[[], Any], start_job: Start) -> tuple[Any, Any]:
    """A server in good health and the job it took in."""
    fake = start_wandb()
    job = start_job(fake.url)
    job.wait()
    return fake, job


def test_wandb_online_sends_runs_and_figures(healthy: tuple[Any, Any]) -> None:
    fake, job = healthy
    assert [name for name in fake.runs if name] == ["@alice-bob-preprocess", "@alice-bob-train"]
    assert fake.received.count(b'\\"train/loss\\":') >= 100
    assert b'\\"eval/perplexity\\":25.8' in fake.received
    assert b"train/mfu" not in fake.received
    assert any("examples" in name for name in fake.uploads)
    assert len(job.report["urls"]) == 2
    assert list(read_json(job.job / "lineage.json")["pages"].values()) == job.report["urls"]


def test_wandb_online_sends_artifacts_and_edges(healthy: tuple[Any, Any]) -> None:
    fake, job = healthy
    assert {
        "raw-dataset tweets-alice-bob",
        "train-dataset dataset-alice-bob",
        "pretrained-model gpt2",
        "finetuned-model alice-bob",
    } < set(fake.made)
    assert {"tweets-alice-bob", "dataset-alice-bob", "gpt2", "alice-bob"} < set(fake.committed)
    assert sorted(fake.used) == ["dataset-alice-bob", "gpt2"]
    assert fake.uploads["id-tweets-alice-bob/tweets.jsonl.gz"] == b"the posts as received"
    assert fake.uploads["id-alice-bob/model.safetensors"] == b"weights"
    assert "id-alice-bob/.hidden" not in fake.uploads
    assert_lineage_kept(job)


def test_wandb_never_makes_the_job_wait(healthy: tuple[Any, Any]) -> None:
    assert healthy[1].report["slowest_s"] < 1


def test_wandb_shows_no_secret_to_server_or_disk(healthy: tuple[Any, Any]) -> None:
    fake, job = healthy
    seen = bytes(fake.received) + every_byte_under(job.output_dir, job.home)
    assert b"train/loss" in seen
    assert not [secret for secret in SECRETS if secret in seen]


def test_wandb_leaves_the_home_folder_alone(healthy: tuple[Any, Any]) -> None:
    assert list(healthy[1].home.iterdir()) == []


def test_wandb_without_a_key_is_offline_and_can_be_sent_later(
    fake_wandb: Any, start_job: Start
) -> None:
    job = start_job(fake_wandb.url, WANDB_API_KEY="")
    job.wait()
    assert fake_wandb.runs == []
    assert b"tweets.jsonl.gz" in b"".join(path.read_bytes() for path in job.offline_records)
    assert job.report["urls"] == []
    assert_recorded_offline(job)
    assert_lineage_kept(job)
    assert not [secret for secret in SECRETS if secret in every_byte_under(job.output_dir)]

    wandb = shutil.which("wandb", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    key = "f" * 40
    subprocess.run(
        [wandb, "sync", *(path.parent for path in job.offline_records)],
        env={**job.env, "WANDB_API_KEY": key},
        cwd=job.output_dir,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert {"@alice-bob-preprocess", "@alice-bob-train"} <= set(fake_wandb.runs)
    assert fake_wandb.received.count(b'\\"train/loss\\":') >= 100
    assert {"tweets-alice-bob", "dataset-alice-bob", "alice-bob"} <= set(fake_wandb.committed)
    assert fake_wandb.uploads["id-alice-bob/model.safetensors"] == b"weights"


def assert_costs_little(jobs: dict[str, Any], control: Any) -> None:
    """At most 20 s more than a job beside it that asks no server: the machine may be busy."""
    control.wait()
    for trouble, job in jobs.items():
        job.wait()
        cost_s = job.report["finish_s"] + job.exit_s - control.report["finish_s"] - control.exit_s
        assert cost_s < 20, f"{trouble} cost {cost_s:.1f} s"
        assert job.report["slowest_s"] < 1


def test_wandb_unreachable_costs_little_and_loses_nothing(
    fake_wandb: Any, black_hole: str, refused: str, start_job: Start
) -> None:
    fake_wandb.mode = "401"
    jobs = {
        "refused": start_job(refused),
        "black hole": start_job(black_hole),
        "wrong key": start_job(fake_wandb.url),
    }
    assert_costs_little(jobs, start_job(refused, WANDB_MODE="offline"))
    for job in jobs.values():
        assert job.report["urls"] == []
        assert_recorded_offline(job)
        assert_lineage_kept(job)


OUTAGES = ["hang-early", "hang-late", "503-early", "503-late", "kill-early", "kill-late"]


@pytest.mark.parametrize(
    "troubles",
    [["kill-early"], pytest.param(OUTAGES, marks=pytest.mark.slow)],
    ids=["one", "all"],
)
def test_wandb_outage_in_mid_job_costs_little(
    troubles: list[str], refused: str, start_wandb: Callable[[], Any], start_job: Start
) -> None:
    jobs = {trouble: start_job(start_wandb().url, trouble) for trouble in troubles}
    assert_costs_little(jobs, start_job(refused, WANDB_MODE="offline"))
    for job in jobs.values():
        assert len(job.records) >= 2
        assert_lineage_kept(job)


@pytest.mark.parametrize(
    "trouble",
    ["end-late", pytest.param("freeze-early", marks=pytest.mark.slow)],
)
def test_wandb_process_that_is_lost_or_hangs_is_left_behind(
    trouble: str, start_wandb: Callable[[], Any], start_job: Start
) -> None:
    job = start_job(start_wandb().url, trouble)
    job.wait()
    assert job.report["finish_s"] < 60
    assert job.report["slowest_s"] < 1
    assert "W&B" in job.log, "nothing goes untracked in silence"
    assert "Traceback" not in job.log
    assert_lineage_kept(job)
    left = [one for one in psutil.process_iter(["environ"]) if is_of(one, job.output_dir)]
    assert not left, "no process stays"


def is_of(process: psutil.Process, output_dir: Path) -> bool:
    """Whether a process talks to W&B for a job."""
    environment = process.info["environ"] or {}
    return str(output_dir) in environment.get("WANDB_DATA_DIR", "")


def runs_of(job: Any) -> dict[str, Any]:
    """The runs recorded offline below a job's folder for all, by their job type."""
    paths = job.folder.rglob("offline-run-*/run-*.wandb")
    records = [record for path in paths for record in read_record(path)]
    runs = [record.run for record in records if record.HasField("run")]
    assert len({run.run_id for run in runs}) == len({run.job_type for run in runs})
    return {run.job_type: run for run in runs}


def test_wandb_is_set_up_as_its_users_do_and_goes_on_after_a_requeue(
    refused: str, start_job: Start, tmp_path: Path
) -> None:
    settings = {
        "WANDB_MODE": "offline",
        "WANDB_RUN_ID": "abc123",
        "WANDB_NAME": "mine",
        "WANDB_RUN_GROUP": "ours",
        "WANDB_TAGS": "first,second",
        "WANDB_PROJECT": "elsewhere",
        "WANDB_DIR": str(tmp_path / "records"),
    }
    (tmp_path / "records").mkdir()
    alone = '{"identity": "digest", "is_alone": true}'
    for _ in range(2):  # a requeue
        job = start_job(refused, folder=tmp_path, BUILD=alone, **settings)
        job.wait()
        runs = runs_of(job)
        assert (runs["train"].run_id, runs["train"].display_name) == ("abc123", "mine")
        assert runs["preprocess"].run_id.startswith("abc123-")
        for run in runs.values():
            assert (run.run_group, run.project) == ("ours", "elsewhere")
            assert list(run.tags) == ["first", "second"]
    assert len(list(tmp_path.glob("records/wandb/offline-run-*"))) == 2, job.log


def test_wandb_of_a_batch_under_a_sweeps_agent_has_a_run_per_job(
    refused: str, start_job: Start, tmp_path: Path
) -> None:
    """W&B ignores the ids of runs under an agent: all jobs would be written into the agent's."""
    agent = {"WANDB_MODE": "offline", "WANDB_RUN_ID": "abc123", "WANDB_SWEEP_ID": "sweep1"}
    job = start_job(refused, folder=tmp_path, BUILD='{"identity": "digest"}', **agent)
    job.wait()
    runs = runs_of(job)
    assert {*runs} == {"preprocess", "train"}
    assert all(run.run_id.startswith("abc123-") for run in runs.values())
    assert not any(run.sweep_id for run in runs.values())
    assert job.log.count("train one job per trial") == 1


def test_only_earlier_starts_of_the_same_run_are_removed(tmp_path: Path) -> None:
    """Runs of others lie beside it where WANDB_DIR is one folder for all."""
    names = ["20260101_000000-7", "20260102_000000-7", "20260101_000000-other-7"]
    folders = [tmp_path / f"offline-run-{name}" for name in names]
    for folder in folders:
        folder.mkdir()
    _remove_earlier(folders[1], "7")
    assert [folder.exists() for folder in folders] == [False, True, True]


@pytest.mark.slow
def test_wandb_slow_but_alive_gets_everything(fake_wandb: Any, start_job: Start) -> None:
    fake_wandb.upload_s = 8.0
    job = start_job(fake_wandb.url)
    job.wait()
    assert job.report["finish_s"] > 20
    assert {"tweets-alice-bob", "dataset-alice-bob", "alice-bob"} < set(fake_wandb.committed)


def test_wandb_keeps_posts_back_when_asked(start_job: Start, refused: str) -> None:
    job = start_job(refused, TRACKING='{"upload_posts": false}')
    job.wait()
    recorded = b"".join(path.read_bytes() for path in job.offline_records)
    assert b"tweets-alice-bob" in recorded
    assert b"tweets.jsonl.gz" not in recorded
    assert b"model.safetensors" in recorded
