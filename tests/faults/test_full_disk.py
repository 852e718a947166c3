"""A small disk: after making room the same command ends with all users done, none final."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_processes import SMALL, Running, Start, weights_digest, write_posts

from huggingtweets.jobs.ledger import read_ledger
from huggingtweets.jobs.room import Room
from huggingtweets.storage.lock import acquire_lock

HANDLES = ("ann", "bob", "carl")
WAYS = (("fused", "none"), ("fused", "local"), ("single", "local"))
SAMPLE = (("fused", "none", 400), ("single", "local", 1050))
ALL = tuple(
    (engine, publish, size)
    for engine, publish in WAYS
    for size in (range(150, 1200, 50) if engine == "fused" else range(150, 1500, 90))
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or mount(folder, "size=1m").returncode:
        pytest.skip("this system lets nobody mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def mount(folder: Path, options: str) -> subprocess.CompletedProcess[bytes]:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True)


def resize(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def command(tmp_path: Path, output: Path, engine: str, publish: str) -> list[str]:
    users = tmp_path / "users.txt"
    users.write_text("\n".join(HANDLES) + "\n")
    posts = write_posts(tmp_path / "posts", *HANDLES)
    small = [word for word in SMALL if not word.startswith(("engine=", "publish=", "sampling."))]
    return [
        *small,
        f"engine={engine}",
        f"publish={publish}",
        "sampling.num=1",
        "sampling.max_new_tokens=20",
        "recipe.max_steps=6",
        "engine.save_every_s=0.01",
        "engine.wait_for_room_s=1",
        "consent=permission",
        f"user=file:{users}",
        "source=jsonl",
        f"source.path={posts}",
        f"output_dir={output}",
    ]


def check(tmp_path: Path, disk: Path, engine: str, publish: str, size: int) -> None:
    log = tmp_path / "log"
    arguments = command(tmp_path, disk / "out", engine, publish)
    resize(disk, f"{size}k")
    first = Running(Start(arguments, log=log))
    code = first.wait(120)
    words = first.words()
    assert code in (0, 75, 1), words
    assert "Traceback" not in words, words
    assert "bug of ours" not in words
    if code == 1:  # not even room for the ledger
        assert "make room" in words or "cannot be written" in words, words
    states = read_ledger(disk / "out") if (disk / "out" / "ledger").is_dir() else {}
    assert not [state for state in states.values() if state.status == "failed"], words
    assert not list(disk.rglob("*.tmp")), "nothing half-written stays"
    resize(disk, "100m")
    log.unlink()
    second = Running(Start(arguments, log=log))
    assert second.wait(120) == 0, second.words()
    said = second.words()
    assert "waits up to" not in said, said
    assert all(said.count(f"job={handle} done:") <= 1 for handle in HANDLES), "each once"
    for handle in HANDLES:
        assert (disk / "out" / handle / "result.json").is_file()
        assert weights_digest(disk / "out" / handle)


@pytest.mark.parametrize(("engine", "publish", "size"), SAMPLE)
def test_after_making_room_the_same_command_ends_with_all_done(
    tmp_path: Path, disk: Path, engine: str, publish: str, size: int
) -> None:
    check(tmp_path, disk, engine, publish, size)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "publish", "size"), ALL)
def test_on_a_disk_of_every_size(
    tmp_path: Path, disk: Path, engine: str, publish: str, size: int
) -> None:
    check(tmp_path, disk, engine, publish, size)


def test_a_batch_that_waits_goes_on_when_there_is_room(tmp_path: Path, disk: Path) -> None:
    log = tmp_path / "log"
    arguments = command(tmp_path, disk / "out", "fused", "none")
    arguments[arguments.index("engine.wait_for_room_s=1")] = "engine.wait_for_room_s=120"
    resize(disk, "400k")
    running = Running(Start(arguments, log=log))
    deadline = time.monotonic() + 100
    while "the batch waits up to" not in running.words():
        assert running.is_running(), running.words()
        assert time.monotonic() < deadline, running.words()
        time.sleep(0.1)
    resize(disk, "100m")
    assert running.wait(120) == 0, running.words()
    assert "failed=0" in running.words()


DIE = """
import os, sys
from pathlib import Path
from huggingtweets.storage.lock import acquire_lock
acquire_lock(Path(sys.argv[1]))
os._exit(0)
"""


def test_a_full_disk_costs_the_drafts_of_the_dead_and_no_others(tmp_path: Path) -> None:
    """Other shards write metrics in the ledger's folder, which has no holder."""
    names = ("ledger", "living", "dead")
    drafts = {name: tmp_path / name / f".one-{name}.0badcafe.tmp" for name in names}
    for draft in drafts.values():
        draft.parent.mkdir()
        draft.touch()
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path / "dead")], check=True)
    with acquire_lock(tmp_path / "living"):
        assert not Room(tmp_path, 1 << 62, wait_s=60).is_open()
    assert [name for name, draft in drafts.items() if draft.exists()] == ["ledger", "living"]
