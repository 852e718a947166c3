"""Arrays of real jobs on a real SLURM: whatever strikes, each user is done, once and alike."""

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from cluster import LIMIT_S, USERS, Batch, Cluster, status, wait_for
from job_processes import weights_digest

pytestmark = pytest.mark.slurm
SLUGS = {user.lower() for user in USERS}


def weights(batch: Batch) -> dict[str, str]:
    return {
        path.parent.name: weights_digest(path.parent) for path in batch.output.glob("*/result.json")
    }


def trainings(batch: Batch) -> Counter[str]:
    """How often each user was finished, by the ledger of all tasks and attempts."""
    files = batch.output.glob("ledger/*.jsonl")
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return Counter(row["slug"] for row in rows if row["status"] == "done")


def check_all_done(cluster: Cluster, batch: Batch, undisturbed: Batch) -> None:
    expected = weights(undisturbed)
    assert weights(batch) == {slug: expected[slug] for slug in weights(batch)}, "bit by bit"
    shown = status(cluster, batch)
    slugs = {job["slug"] for job in shown["jobs"]}
    assert set(weights(batch)) == slugs
    assert shown["done"] == shown["total"] == len(slugs), shown
    assert trainings(batch) == Counter(slugs), "each once"
    assert "\r" not in batch.logs()
    assert not list(cluster.marks.iterdir()), "nothing is left of the marks"
    if cluster.script:
        assert not cluster.processes(), "orphans"


def test_a_submitted_array_does_every_user_once(cluster: Cluster, undisturbed: Batch) -> None:
    said = (undisturbed.folder / "said").read_text()
    assert "24 to do" in said
    assert f"huggingtweets status {undisturbed.output}" in said
    assert set(weights(undisturbed)) == SLUGS
    check_all_done(cluster, undisturbed, undisturbed)


def test_the_last_job_retries_what_a_rerun_may_cure(undisturbed: Batch) -> None:
    before = json.loads((undisturbed.folder / "before-the-last.json").read_text())
    assert (before["done"], before["failed"]) == (23, 1)
    assert [job["slug"] for job in before["jobs"] if job["retryable"]] == ["oreo"]
    last = next(undisturbed.folder.rglob("huggingtweets-last-*.out")).read_text()
    assert re.findall(r"job=(\S+) done:", last) == ["oreo"]
    assert "oreo" in (undisturbed.output / "index.html").read_text()


def test_an_array_under_disturbances_ends_as_an_undisturbed_one(
    test_cluster: Cluster, users: Path, shared: Path, tmp_path: Path, undisturbed: Batch
) -> None:
    cluster, batch = test_cluster, Batch(tmp_path)
    # So many cores that each task has a node of its own.
    options = ("--array=0-3", "--cpus-per-task=8", "--time=60", batch.log_option)
    job = cluster.sbatch("array.sbatch", *batch.arguments(users, shared), options=options)
    nodes: dict[int, str] = {}

    def struck(task: int) -> None:
        """Strike one task in the middle of its users, in its own way."""
        name = f"{job}_{task}"
        nodes[task] = cluster.node_of(name)
        if task == 0:
            cluster.call("scontrol", "requeue", name)
        elif task == 1:
            cluster.call(str(cluster.script), "kill-node", nodes[1])
            cluster.call("scontrol", "update", f"nodename={nodes[1]}", "state=down", "reason=test")
        elif task == 2:
            urgent = ("--partition=urgent", "--exclusive", f"--nodelist={nodes[2]}")
            cluster.call("sbatch", *urgent, "--output=/dev/null", "--wrap=sleep 5")
        else:  # as --signal does it
            cluster.call("scancel", "--signal=USR1", name)

    waiting = {0, 1, 2, 3}
    deadline = time.monotonic() + LIMIT_S
    while waiting:
        assert time.monotonic() < deadline, batch.logs()
        for task in sorted(waiting):
            assert f"{job}_{task}" in cluster.queue(job), f"too late for task {task}"
            if batch.num_done(job, task) >= 1:
                struck(task)
                waiting.discard(task)
        time.sleep(0.1)
    cluster.start_slurmd(nodes[1])
    cluster.wait(job, batch.logs)
    assert batch.logs().count("asking to be started again") == 1, "SLURM does it for the others"
    assert {task: batch.attempts(job, task) for task in range(4)} == dict.fromkeys(range(4), 2)
    assert set(weights(batch)) == SLUGS
    check_all_done(cluster, batch, undisturbed)


def test_the_time_limit_strikes_in_the_middle(
    test_cluster: Cluster, shared: Path, tmp_path: Path, undisturbed: Batch
) -> None:
    cluster, batch = test_cluster, Batch(tmp_path)
    few = tmp_path / "users.txt"
    few.write_text("\n".join(USERS[:6]))
    # Two ranks, each with users of its own.
    options = ("--array=0-0", "--gpus-per-node=2", "--time=60", batch.log_option)
    started = time.monotonic()
    job = cluster.sbatch("array.sbatch", *batch.arguments(few, shared), options=options)
    wait_for(lambda: batch.num_done(job, 0), batch.logs)
    ranks = [pid for pid in cluster.processes() if is_rank(pid)]
    assert len(ranks) == 2
    for pid in ranks:  # hold them until it comes, however fast this machine is
        os.kill(pid, signal.SIGSTOP)
    # Within three minutes of the end the signal is due, as the script has it.
    limit = f"timelimit={(time.monotonic() - started) // 60 + 2:.0f}"
    cluster.call("scontrol", "update", f"jobid={job}_0", limit)
    # It comes with a SIGCONT.
    wait_for(lambda: "asking to be started again" in batch.logs(), batch.logs)
    cluster.call("scontrol", "update", f"jobid={job}_0", "timelimit=60")
    cluster.wait(job, batch.logs)
    assert batch.attempts(job) == 2
    assert batch.logs().count("asking to be started again") == 1
    check_all_done(cluster, batch, undisturbed)


def is_rank(pid: int) -> bool:
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return arguments[1:3] == [b"-u", b"train.py"] or arguments[1:2] == [b"train.py"]


def test_no_user_is_begun_for_whom_time_does_not_suffice(
    cluster: Cluster, shared: Path, tmp_path: Path, undisturbed: Batch
) -> None:
    batch = Batch(tmp_path)
    few = tmp_path / "users.txt"
    few.write_text("\n".join(USERS[12:14]))
    options = ("--array=0-0", "--time=30", batch.log_option)
    job = cluster.sbatch(
        "array.sbatch",
        *batch.arguments(few, shared),
        "engine.slots=1",
        options=options,
        HUGGINGTWEETS_LEAD_S="1800",
    )
    cluster.wait(job, batch.logs)
    assert batch.attempts(job) == 2, "the first user of each attempt is begun in any case"
    assert batch.logs().count("would not be finished before the end of this allocation") == 1
    check_all_done(cluster, batch, undisturbed)


def times(batch: Batch) -> dict[Path, int]:
    """When each file was last written."""
    files = [path for path in batch.output.rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_process_that_outlives_its_node_touches_nothing_any_more(
    test_cluster: Cluster, shared: Path, tmp_path: Path, undisturbed: Batch
) -> None:
    cluster, batch = test_cluster, Batch(tmp_path)
    few = tmp_path / "users.txt"
    few.write_text("\n".join(USERS[:6]))
    options = ("--array=0-0", batch.log_option)
    job = cluster.sbatch("array.sbatch", *batch.arguments(few, shared), options=options)
    wait_for(lambda: batch.num_done(job, 0), batch.logs)
    orphans = cluster.processes()
    node = cluster.node_of(f"{job}_0")
    for pid in orphans:
        os.kill(pid, signal.SIGSTOP)
    cluster.kill_slurmd(node)
    wait_for(lambda: batch.attempts(job) == 2, batch.logs)
    cluster.wait(job, batch.logs)
    before = times(batch)
    for pid in orphans:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not set(orphans) & set(cluster.processes()), batch.logs)
    after = times(batch)
    assert after == before
    assert not cluster.queue(job), "nor did its script start it again"
    cluster.start_slurmd(node)
    check_all_done(cluster, batch, undisturbed)


def test_a_cancelled_job_ends_and_can_be_submitted_again(
    cluster: Cluster, shared: Path, tmp_path: Path, undisturbed: Batch
) -> None:
    batch = Batch(tmp_path)
    few = tmp_path / "users.txt"
    few.write_text("\n".join(USERS[6:12]))
    options = ("--array=0-0", batch.log_option)
    job = cluster.sbatch("array.sbatch", *batch.arguments(few, shared), options=options)
    wait_for(lambda: batch.num_done(job, 0), batch.logs)
    cluster.call("scancel", job)
    cluster.wait(job, batch.logs)
    assert "asking to be started again" not in batch.logs()
    assert batch.attempts(job) == 1
    if cluster.script:
        assert not cluster.processes(), "orphans"
    shown = status(cluster, batch)
    assert shown["running"] == 0
    assert 0 < shown["done"] < 6
    again = cluster.sbatch("array.sbatch", *batch.arguments(few, shared), options=options)
    cluster.wait(again, batch.logs)
    for mark in cluster.marks.iterdir():  # a cancelled job has no attempt after it that clears up
        mark.unlink()
    check_all_done(cluster, batch, undisturbed)
