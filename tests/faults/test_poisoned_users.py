"""A user whose job kills its process, run for run: found out, marked, and all others done."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from job_processes import SMALL, Running, Start, write_posts

from huggingtweets.jobs.ledger import JobStatus
from huggingtweets.jobs.status import read_states
from huggingtweets.jobs.tally import MAX_CRASHES

HANDLES = ("ann", "bob", "poison", "dora", "eve")


def die_of_one_user() -> None:
    """As a segmentation fault or the kernel's killer of memory hogs would have it."""
    from huggingtweets.jobs import fused
    from huggingtweets.pipeline import stages as pipeline

    prepare = pipeline.prepare_job

    def lethal(plan, base, cleaned):
        if plan.job.slug == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        return prepare(plan, base, cleaned)

    pipeline.prepare_job = fused.prepare_job = lethal


def done_lines(output: Path) -> Counter[str]:
    rows = map(json.loads, (output / "ledger/main.jsonl").read_text().splitlines())
    return Counter(row["slug"] for row in rows if row["status"] == "done")


@pytest.mark.parametrize("engine", ["fused", pytest.param("single", marks=pytest.mark.slow)])
def test_a_user_that_kills_its_process_is_marked_and_the_others_are_done(
    tmp_path: Path, engine: str
) -> None:
    write_posts(tmp_path / "posts", *HANDLES)
    (tmp_path / "users.txt").write_text("\n".join(HANDLES) + "\n")
    output = tmp_path / "out"
    arguments = [
        *SMALL,
        f"user=file:{tmp_path / 'users.txt'}",
        "source=jsonl",
        f"source.path={tmp_path / 'posts'}",
        f"output_dir={output}",
        f"engine={engine}",
        "engine.slots=2",
    ]
    num_deaths = 0
    while True:
        running = Running(Start(arguments, prepare=die_of_one_user, log=tmp_path / "log"))
        code = running.wait()
        if code == 1 and "done=" in running.words():
            break
        num_deaths += 1
        assert num_deaths <= MAX_CRASHES, running.words()
    states = read_states(output)
    assert states["poison"].status is JobStatus.failed
    assert not states["poison"].retryable
    assert f"{MAX_CRASHES} runs in a row that died" in states["poison"].reason
    others = set(HANDLES) - {"poison"}
    assert {slug for slug, state in states.items() if state.status is JobStatus.done} == others
    assert done_lines(output) == Counter(others), "each once"
    again = Running(Start([*arguments, "retry_failed=true"], prepare=die_of_one_user))
    assert again.wait() != 0
    assert read_states(output)["poison"].status is JobStatus.queued, "it was tried again"
