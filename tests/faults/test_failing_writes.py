"""Writes that fail inside of libraries: the same command, once they succeed, ends with all done.

A library is loaded before the C library into a process that has imported what train.py needs, and
forks for every start.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_processes import SMALL, weights_digest, write_posts

from huggingtweets.jobs.status import read_states

HANDLES = ("ann", "bob", "carl")
SOURCE = Path(__file__).with_name("shim.cpp")
SERVER = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # imports may print
import warm_imports
from job_processes import Start, _be_rank
for line in sys.stdin:
    start = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.environ.update(start["environment"])
        log = os.open(start["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _be_rank(Start(start["arguments"]))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)
"""
ROOM, DISK, QUOTA = "28", "5", "122"
MODEL, TABLE, LEDGER = "/bob/.model.", "/.results.", "/ledger/"
CASES = (
    (MODEL, "write", ROOM), (MODEL, "write", DISK), (MODEL, "open", QUOTA),
    ("/bob/model", "rename", DISK),
    (MODEL, "fsync", DISK), ("tokenizer.json", "write", ROOM), ("tokenizer.json", "open", DISK),
    (TABLE, "write", ROOM), (TABLE, "open", DISK), (TABLE, "fsync", ROOM), (LEDGER, "write", DISK),
    (LEDGER, "open", ROOM), ("/bob/.lock", "open", ROOM), ("/bob/.tweets", "write", DISK),
    ("/bob/checkpoints", "write", ROOM), ("/bob/", "fsync", DISK), ("/bob/metrics", "write", ROOM),
)  # fmt: skip


class Starts:
    """Starts of train.py whose writes may fail."""

    def __init__(self, library: Path) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, folder: Path, arguments: list[str], **environment: str) -> tuple[int, str]:
        log = folder / "log"
        request = {"arguments": arguments, "log": str(log), "environment": environment}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline()), log.read_text(errors="replace")

    def close(self) -> None:
        self._server.kill()
        self._server.wait()


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starts]:
    compiler = shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs g++ and Linux")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    options = ("-std=c++17", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl")
    subprocess.run([compiler, *options], check=True)
    starts = Starts(library)
    yield starts
    starts.close()


def command(folder: Path, engine: str) -> list[str]:
    (folder / "users.txt").write_text("\n".join(HANDLES) + "\n")
    small = [word for word in SMALL if not word.startswith(("engine=", "publish="))]
    return [
        *small,
        f"user=file:{folder / 'users.txt'}",
        f"source.path={write_posts(folder / 'posts', *HANDLES)}",
        f"output_dir={folder / 'out'}",
        f"engine={engine}",
        "source=jsonl",
        "publish=none",
        "recipe.max_steps=6",
        "consent=permission",
        "engine.wait_for_room_s=1",
        "engine.save_every_s=0.01",
    ]


@pytest.fixture(scope="module", params=["fused", pytest.param("single", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def calm(starts: Starts, engine: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed batch leaves."""
    folder = tmp_path_factory.mktemp("calm")
    code, words = starts.start(folder, command(folder, engine))
    assert code == 0, words
    return {handle: weights_digest(folder / "out" / handle) for handle in HANDLES}


def check(
    starts: Starts, folder: Path, calm: dict[str, str], engine: str, case: tuple[str, str, str]
) -> None:
    path, calls, number = case
    hits = folder / "hits"
    shim = {"SHIM_PATH": path, "SHIM_CALLS": f",{calls},pwrite,writev,", "SHIM_ERRNO": number}
    code, words = starts.start(folder, command(folder, engine), **shim, SHIM_LOG=str(hits))
    if engine == "fused":
        assert hits.is_file() or path == "/bob/checkpoints", "nothing was struck"
    assert code in (0, 1, 75), words
    assert "Traceback" not in words, words
    assert "bug of ours" not in words, words
    states = read_states(folder / "out").values()
    assert not [one for one in states if one.status == "failed" and not one.retryable], words
    left = [one for one in (folder / "out").rglob("*.tmp") if path not in str(one)]
    assert not left, "nothing half-written stays"
    code, words = starts.start(folder, command(folder, engine))
    assert code == 0, words
    assert {one: weights_digest(folder / "out" / one) for one in HANDLES} == calm


@pytest.mark.parametrize("case", [CASES[0], CASES[7]], ids="-".join)
def test_a_write_that_failed_in_a_library_is_made_by_the_next_start(
    starts: Starts, calm: dict[str, str], engine: str, tmp_path: Path, case: tuple[str, str, str]
) -> None:
    check(starts, tmp_path, calm, engine, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_whatever_write_failed_is_made_by_the_next_start(
    starts: Starts, calm: dict[str, str], engine: str, tmp_path: Path, case: tuple[str, str, str]
) -> None:
    check(starts, tmp_path, calm, engine, case)
