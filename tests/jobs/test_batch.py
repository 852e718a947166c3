"""A batch through the real train.py: good users are trained, bad ones fail alone."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from job_processes import run, small_batch, train
from small import SMALL_MODEL

from huggingtweets.config.plan import make_plan
from huggingtweets.config.schema import TrainConfig
from huggingtweets.errors import ConfigError
from huggingtweets.handles import Job
from huggingtweets.jobs.ledger import JobStatus
from huggingtweets.jobs.status import read_states
from huggingtweets.jobs.tally import Tally
from huggingtweets.posts.optout import add_optout
from huggingtweets.standing import is_foreign, sealed_config
from huggingtweets.storage.files import write_text
from huggingtweets.storage.paths import JobPaths

QUICK = (
    *SMALL_MODEL,
    "engine.precision=fp32",
    "recipe.block_size=64",
    "recipe.max_steps=2",
    "sampling.num=0",
    "publish=none",
)


def run_batch(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return train("user=file:users.txt", *QUICK, *arguments, cwd=cwd)


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    """Three users: one good, one with too few posts, one whose file is not JSON; shy wants none."""
    folder = tmp_path / "posts"
    folder.mkdir()
    rows = [
        {"id": str(i), "text": f"post number {i} is about word{i * 7} again"} for i in range(300)
    ]
    (folder / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    (folder / "bad.jsonl").write_bytes(b"\x00\xff not json\n")
    (tmp_path / "users.txt").write_text("bad\nfew\ngood\nshy\n")
    return folder


@pytest.mark.parametrize("engine", ["single", "fused"])
def test_what_others_have_put_in_a_jobs_place_stays(
    engine: str, posts: Path, tmp_path: Path
) -> None:
    (tmp_path / "users.txt").write_text("good\nalice\nbob\n")
    for handle in ("alice", "bob"):
        (posts / f"{handle}.jsonl").write_bytes((posts / "good.jsonl").read_bytes())
    (tmp_path / "out" / "alice" / "model").mkdir(parents=True)
    for name in ("alice/model/notes.txt", "alice/config.yaml", "bob"):
        (tmp_path / "out" / name).write_text("mine")
    before = sorted((tmp_path / "out").rglob("*"))
    words = ("source=jsonl", f"source.path={posts}", "output_dir=out", f"engine={engine}")
    done = run_batch(tmp_path, *words)
    assert done.returncode == 1
    states = read_states(tmp_path / "out")
    assert [states[slug].status for slug in ("good", "alice", "bob")] == ["done", *["failed"] * 2]
    assert "got files that no job has written" in states["alice"].reason
    assert "out/bob: got Not a directory; expected a folder" in states["bob"].reason
    assert all(states[slug].retryable for slug in ("alice", "bob"))
    assert [path.read_text() for path in before if path.is_file()] == ["mine"] * 3
    assert [path for path in sorted((tmp_path / "out").rglob("*")) if path in before] == before
    assert len(list((tmp_path / "out" / "alice").iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("model/notes.txt", "mine", True),
        ("config.yaml", "seed: 1\n", True),
        ("result.json", "{}", True),
        ("config.yaml", sealed_config("seed: 1\n", "0" * 64), False),
        ("result.json", json.dumps({"digest": "0" * 64}), False),
        (".DS_Store", "", False),
    ],
)
def test_a_job_copied_in_part_is_known(
    name: str, text: str, expected: bool, tmp_path: Path
) -> None:
    write_text(tmp_path / "ann" / name, text)
    assert is_foreign(JobPaths(tmp_path / "ann")) is expected


def test_bad_users_fail_alone_and_a_rerun_touches_only_them(posts: Path, tmp_path: Path) -> None:
    optout = tmp_path / "optout.txt"
    add_optout("shy", str(optout))
    source = ("source=jsonl", f"source.path={posts}", "output_dir=out", f"optout_file={optout}")
    first = run_batch(tmp_path, *source)
    assert first.returncode == 1, first.stderr
    states = read_states(tmp_path / "out")
    assert {slug: state.status for slug, state in states.items()} == {
        "bad": JobStatus.failed,
        "few": JobStatus.failed,
        "good": JobStatus.done,
        "shy": JobStatus.skipped,
    }
    assert "people who want no model" in states["shy"].reason
    assert "done=1 failed=2 skipped=1" in first.stderr
    assert not (tmp_path / "out" / "shy" / "tweets.jsonl.gz").exists()
    assert "characters" in states["few"].reason
    assert "Traceback" not in first.stderr
    stamp = (tmp_path / "out" / "good" / "result.json").stat().st_mtime_ns

    again = run_batch(tmp_path, *source)
    assert again.returncode == 1
    assert "retry_failed=true" in again.stderr
    assert (tmp_path / "out" / "good" / "result.json").stat().st_mtime_ns == stamp

    (posts / "few.jsonl").write_bytes((posts / "good.jsonl").read_bytes())
    (posts / "bad.jsonl").write_bytes((posts / "good.jsonl").read_bytes())
    cured = run_batch(tmp_path, *source, "retry_failed=true")
    assert cured.returncode == 0, cured.stderr
    assert (tmp_path / "out" / "good" / "result.json").stat().st_mtime_ns == stamp
    states = read_states(tmp_path / "out")
    assert states.pop("shy").status is JobStatus.skipped
    assert {state.status for state in states.values()} == {JobStatus.done}


def look_elsewhere() -> None:
    """Let each process find another list and other posts under one name."""
    os.chdir(os.environ["RANK"])


@pytest.mark.distributed
@pytest.mark.parametrize("engine", ["fused", "single"])
def test_processes_that_found_other_lists_and_sizes_train_as_the_main_one_says(
    tmp_path: Path, engine: str
) -> None:
    names = ("ann", "bob", "carl", "dora")
    for rank, handles in (("0", names), ("1", (*names[::-1], "eve"))):
        (tmp_path / rank).mkdir()
        arguments = small_batch(tmp_path / rank, engine, "out", handles)
    for grown in ("0/posts/ann.jsonl", "1/posts/bob.jsonl"):
        path = tmp_path / grown
        path.write_text(path.read_text() * 20)
    places = ("user=file:users.txt", "source.path=posts", f"output_dir={tmp_path / 'out'}")
    log = tmp_path / "log"
    options = ("publish=none", "sampling.num=0", "recipe.max_steps=2")
    run([*arguments, *places, *options], 2, prepare=look_elsewhere, log=log, cwd=tmp_path)
    states = read_states(tmp_path / "out")
    assert {slug: state.status for slug, state in states.items()} == dict.fromkeys(
        names, JobStatus.done
    ), log.read_text()
    ledgers = (tmp_path / "out" / "ledger").glob("*.jsonl")
    lines = "".join(path.read_text() for path in ledgers)
    assert lines.count('"running"') == len(names), "each begins once"
    assert "done=4 failed=0 skipped=0" in log.read_text(), "of all processes together"


@pytest.mark.distributed
def test_processes_share_what_is_left_and_not_what_is_done(tmp_path: Path) -> None:
    names = ("ann", "bob", "carl", "dora")
    options = ("publish=none", "sampling.num=0", "recipe.max_steps=2")
    arguments = [*small_batch(tmp_path, "fused", "out", names), *options]
    users = tmp_path / "users.txt"
    users.write_text("bob\ndora\n")  # the second process's share of all four
    run(arguments)
    users.write_text("\n".join(names))
    run(arguments, 2)
    begun = {
        path.stem: path.read_text().count('"running"')
        for path in (tmp_path / "out" / "ledger").glob("*.jsonl")
    }
    assert begun == {"main": 2 + 1, "main-rank1": 1}


def test_whatever_fails_in_a_batch_the_code_is_the_same(tmp_path: Path) -> None:
    """Also on the processes that keep no ledger: the code of all is the worst of any."""
    plan = make_plan(TrainConfig(output_dir=str(tmp_path)), Job.of(["ann"]))
    tally = Tally(None, {})
    tally.failed(plan, ConfigError("source: got nothing; expected posts; give some"))
    assert tally.exit_code == 1
