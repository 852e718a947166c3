import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from huggingtweets.cli.base import show
from huggingtweets.jobs.ledger import JobState, JobStatus, Writer, open_ledger, own_writer
from huggingtweets.jobs.status import as_json, build_status, kind_of, read_states, summarise


def make_folder(output_dir: Path, slug: str, *names: str) -> None:
    for name in names:
        path = output_dir / slug / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        if name == "result.json":
            path.write_text(json.dumps({"digest": "0" * 64}))
            (path.parent / "model").mkdir()
            (path.parent / "model" / "model.safetensors").touch()


def rewrite(output_dir: Path, **changes: object) -> None:
    """Change fields of every line of the ledger."""
    path = output_dir / "ledger" / "main.jsonl"
    rows = [json.loads(line) | changes for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def status_of(output_dir: Path, slug: str = "alice") -> tuple[str, str]:
    state = read_states(output_dir)[slug]
    return str(state.status), state.reason


def record(output_dir: Path, status: JobStatus, **fields: object) -> None:
    with open_ledger(output_dir) as ledger:
        ledger.record("alice", status, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_job_with_a_result_is_done_whatever_the_ledger_says(
    tmp_path: Path, status: JobStatus
) -> None:
    record(tmp_path, status, reason="x")
    make_folder(tmp_path, "alice", "config.yaml", "result.json")
    # What the ledger says of a job that is done is why it ended early.
    assert status_of(tmp_path) == ("done", "x" if status is JobStatus.done else "")


def test_a_done_job_without_its_result_waits_again(tmp_path: Path) -> None:
    record(tmp_path, JobStatus.done)
    assert status_of(tmp_path) == ("queued", "was done, but its result.json is gone")


@pytest.mark.parametrize("status", [JobStatus.queued, JobStatus.failed, JobStatus.skipped])
def test_other_states_are_taken_from_the_ledger(tmp_path: Path, status: JobStatus) -> None:
    record(tmp_path, status, reason="because")
    make_folder(tmp_path, "alice", "config.yaml")
    assert status_of(tmp_path) == (str(status), "because")


def test_a_running_job_of_a_living_process_runs(tmp_path: Path) -> None:
    record(tmp_path, JobStatus.running)
    assert status_of(tmp_path) == ("running", "")


def test_a_running_job_of_a_dead_process_was_interrupted(tmp_path: Path) -> None:
    record(tmp_path, JobStatus.running)
    rewrite(tmp_path, started="1")
    assert status_of(tmp_path) == ("queued", "interrupted")


@pytest.mark.parametrize(
    ("silent_s", "status"), [(60, "running"), (3600, "queued"), (None, "running")]
)
def test_a_running_job_elsewhere_is_judged_by_its_lock(
    tmp_path: Path, silent_s: float | None, status: str
) -> None:
    record(tmp_path, JobStatus.running)
    rewrite(tmp_path, host="node17")
    if silent_s is not None:
        make_folder(tmp_path, "alice", ".lock/00000001")
        moment = time.time() - silent_s
        os.utime(tmp_path / "alice" / ".lock" / "00000001", (moment, moment))
    assert status_of(tmp_path)[0] == status


def test_jobs_without_a_ledger_are_found_by_their_folders(tmp_path: Path) -> None:
    make_folder(tmp_path, "alice", "config.yaml", "result.json")
    make_folder(tmp_path, "bob", "config.yaml")
    make_folder(tmp_path, "notes", "todo.txt")
    make_folder(tmp_path, ".wandb", "config.yaml")
    states = read_states(tmp_path)
    assert {slug: str(state.status) for slug, state in states.items()} == {
        "alice": "done",
        "bob": "queued",
    }


def test_a_user_called_ledger_does_no_harm(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record("ledger", JobStatus.running)
    make_folder(tmp_path, "ledger", "config.yaml", "result.json")
    (tmp_path / "ledger" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "ledger" / "predictions.jsonl").write_text('{"input": "a", "prediction": "b"}\n')
    assert {slug: str(state.status) for slug, state in read_states(tmp_path).items()} == {
        "ledger": "done"
    }


def test_a_hostile_slug_reads_nothing_outside(tmp_path: Path) -> None:
    make_folder(tmp_path, "elsewhere", "result.json")
    output_dir = tmp_path / "output"
    with open_ledger(output_dir) as ledger:
        ledger.record("../elsewhere", JobStatus.failed)
    assert status_of(output_dir, "../elsewhere")[0] == "failed"


def state(
    slug: str, status: JobStatus, changed_at: float = 0.0, seconds: float | None = None, reason=""
) -> JobState:
    return JobState(slug, status, reason, False, 1, changed_at, seconds, own_writer())


def test_summary_counts_every_status() -> None:
    summary = summarise([state("a", JobStatus.done), state("b", JobStatus.queued)])
    assert summary.total == 2
    assert summary.counts == {
        JobStatus.queued: 1,
        JobStatus.running: 0,
        JobStatus.done: 1,
        JobStatus.failed: 0,
        JobStatus.skipped: 0,
    }


def test_summary_estimates_from_the_last_half_hour() -> None:
    old = [state(f"old{n}", JobStatus.done, changed_at=n) for n in range(5)]
    new = [state(f"new{n}", JobStatus.done, changed_at=1e6 + 36 * n) for n in range(11)]
    left = [state(f"left{n}", JobStatus.queued) for n in range(49)]
    summary = summarise([*old, *new, *left, state("now", JobStatus.running)])
    assert summary.jobs_per_hour == pytest.approx(100)
    assert summary.remaining_s == pytest.approx(1800)


@pytest.mark.parametrize(
    "states",
    [
        [],
        [state("a", JobStatus.done, 1), state("b", JobStatus.done, 2)],
        [state("a", JobStatus.done, 1), state("b", JobStatus.running, 2)],
        [
            state("a", JobStatus.done, 1),
            state("b", JobStatus.done, 1),
            state("c", JobStatus.running),
        ],
    ],
    ids=["nothing", "not running", "one", "same moment"],
)
def test_summary_estimates_nothing_without_grounds(states: list[JobState]) -> None:
    summary = summarise(states)
    assert summary.jobs_per_hour is None
    assert summary.remaining_s is None


def test_reasons_of_one_kind_are_alike() -> None:
    reasons = {
        "alice": "alice: got 5,120 characters; expected 6000",
        "bob": "Bob: got 7 characters; expected 6000",
        "a.bsky.social": "a.bsky.social: got 9 characters; expected 6000",
        "carol": "loss is NaN",
        "dave": "",
    }
    failed = [state(slug, JobStatus.failed, reason=reason) for slug, reason in reasons.items()]
    assert Counter(kind_of(one) for one in failed) == {
        "USER: got N characters; expected N": 3,
        "loss is NaN": 1,
        "no reason given": 1,
    }


def test_summary_names_the_slowest() -> None:
    states = [state(f"u{n}", JobStatus.done, seconds=float(n)) for n in range(9)]
    assert summarise(states).slowest == tuple((f"u{n}", float(n)) for n in (8, 7, 6, 5, 4))


def test_json_has_the_agreed_shape(tmp_path: Path) -> None:
    record(tmp_path, JobStatus.failed, reason="because", retryable=True, attempt=3)
    value = json.loads(json.dumps(as_json(read_states(tmp_path))))
    assert {key: value[key] for key in ("total", "done", "failed", "skipped", "running")} == {
        "total": 1,
        "done": 0,
        "failed": 1,
        "skipped": 0,
        "running": 0,
    }
    assert value["queued"] == 0
    [job] = value["jobs"]
    assert (job["slug"], job["status"], job["reason"]) == ("alice", "failed", "because")
    assert (job["retryable"], job["attempt"]) == (True, 3)


def test_table_shows_hostile_reasons_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[red]x[/] \x1b[2J \u202eabc"
    states = {
        "alice": state("alice", JobStatus.failed, reason=hostile),
        "bob": JobState("bob", JobStatus.running, writer=Writer("node17", 1, "")),
    }
    show(build_status(Path("out"), states))
    shown = capsys.readouterr().out
    assert "out: 2 jobs, 1 running, 1 failed" in shown
    assert r"[red]x[/] \x1b[2J \u202eabc" in shown
    assert "node17" in shown
    assert "\x1b" not in shown


def test_states_of_10000_jobs_are_read_in_seconds(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        for number in range(10_000):
            ledger.record(f"user{number}", JobStatus.done)
            if number % 2:
                make_folder(tmp_path, f"user{number}", "result.json")
    start = time.process_time()
    summary = summarise(read_states(tmp_path).values())
    assert time.process_time() - start < 3
    assert summary.counts[JobStatus.done] == summary.counts[JobStatus.queued] == 5000


def test_a_link_that_leads_to_itself_is_no_job_and_no_error(tmp_path: Path) -> None:
    make_folder(tmp_path, "bob", "config.yaml")
    (tmp_path / "alice").symlink_to(tmp_path / "alice")
    record(tmp_path, JobStatus.failed, reason="got Too many levels of symbolic links")
    assert status_of(tmp_path)[0] == "failed"
