"""Signals, kills, failing disks and damage at random: all users end as undisturbed, bit for bit."""

import errno
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from job_processes import Running, Start, history, run, small_batch, weights_digest
from test_damage import DAMAGES, FILES

from huggingtweets.jobs.status import read_states

HANDLES = ("ann", "bob", "carl", "dora", "emil")
SIGNALS = (
    signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1,
)  # fmt: skip
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE, errno.ENOMEM, errno.ESTALE)
BATCH_FILES = ("ledger/main.jsonl", "index.html", "results.parquet")
FROM_A_CLOCK = (
    "started_at", "finished_at", "seconds", "tokens_per_s", "peak_memory_gib", "startup_frac",
    "data_wait_s", "first_step_s", "mfu", "mtime_ns",
)  # fmt: skip
LONGEST_S = 1.2
"""Until a disturbance; a start of the whole batch takes a little more on a quiet machine."""


def command(folder: Path, engine: str, output: str) -> list[str]:
    words = ("recipe.max_steps=8", "recipe.dropout=0.1", "engine.wait_for_room_s=0.5")
    return [*small_batch(folder, engine, output, HANDLES), *words]


def failing(seed: int, output: str) -> None:
    """Have a few of the calls that reach the disk fail; for `Start.prepare`."""
    rng = random.Random(seed)
    number = rng.choice(ERRORS)

    def shaky(call: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(subject: Any, *args: Any, **options: Any) -> Any:
            path = f"/proc/self/fd/{subject}" if isinstance(subject, int) else subject
            is_ours = output in os.path.realpath(path)
            if is_ours and rng.random() < 0.03:
                raise OSError(number, os.strerror(number), str(path))
            return call(subject, *args, **options)

        return replaced

    for name in ("fsync", "replace", "rename", "mkdir", "listdir", "scandir", "unlink"):
        setattr(os, name, shaky(getattr(os, name)))


def damage(output: Path, rng: random.Random) -> str:
    """Damage one file of one user, or of the batch; return what was done."""
    name, kind = rng.choice(FILES), rng.choice(sorted(DAMAGES))
    path = output / rng.choice(HANDLES) / name
    if rng.random() < 0.2:
        path = output / rng.choice(BATCH_FILES)
    if not path.exists() or path.is_symlink():
        return ""
    DAMAGES[kind](path)
    return f"{path.relative_to(output)} {kind}"


def facts(job: Path) -> tuple[Any, ...]:
    """All that training decides."""
    return (
        weights_digest(job),
        (job / "predictions.jsonl").read_text(),
        (job / "dataset.jsonl.gz").read_bytes(),
        history(job),
        without_times(json.loads((job / "result.json").read_text())),
    )


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in FROM_A_CLOCK}
    return value


def disturb(arguments: list[str], output: Path, log: Path, rng: random.Random) -> list[str]:
    """Damage files, start a batch on a failing disk, strike it; return what was done."""
    done = [word for _ in range(rng.randrange(3)) if (word := damage(output, rng))]
    prepare = None
    if rng.random() < 0.4:
        prepare = partial(failing, rng.randrange(1 << 30), str(output))
        done.append("faults")
    log.unlink(missing_ok=True)
    running = Running(Start(arguments, prepare=prepare, log=log))
    until = time.monotonic() + rng.uniform(0.05, LONGEST_S)
    while running.is_running() and time.monotonic() < until:
        time.sleep(0.01)
    if rng.random() < 0.2:
        running.kill(running.launcher, signal.SIGSTOP)
        time.sleep(0.2)
        running.kill(running.launcher, signal.SIGCONT)
        done.append("frozen")
    number = rng.choice(SIGNALS)
    running.kill(running.launcher, number)
    code = running.wait(90)
    words = running.words()
    assert "Traceback" not in words, (done, words)
    assert "bug of ours" not in words, (done, words)
    return [*done, f"{number.name}: {code}"]


@pytest.mark.parametrize(
    ("engine", "num"),
    [
        ("fused", 60),
        pytest.param("fused", 500, marks=pytest.mark.slow),
        pytest.param("single", 500, marks=pytest.mark.slow),
    ],
)
def test_disturbed_batches_end_as_undisturbed_ones(tmp_path: Path, engine: str, num: int) -> None:
    rng = random.Random(num)
    run(command(tmp_path, engine, "calm"), log=tmp_path / "calm.log")
    calm = {handle: facts(tmp_path / "calm" / handle) for handle in HANDLES}
    arguments, output = command(tmp_path, engine, "out"), tmp_path / "out"
    log, told, since = tmp_path / "log", [], 0
    while len(told) < num:
        until = len(told) + rng.randint(15, 45)
        while len(told) < min(num, until):
            told += disturb(arguments, output, log, rng)
        states = read_states(output).values() if output.is_dir() else ()
        final = [state for state in states if state.status == "failed" and not state.retryable]
        # A user that four processes in a row have died of is set aside: the kills are to blame.
        assert all("died" in (state.reason or "") for state in final), (final, told)
        log.unlink(missing_ok=True)
        for draft in (*output.glob(".*.tmp"), *output.glob("ledger/.*.tmp")):
            os.utime(draft, (0, 0))  # some time later, as the writer may be another machine's
        last = Running(Start([*arguments, *(["retry_failed=true"] if final else [])], log=log))
        assert last.wait() == 0, (told, last.words())
        for handle in HANDLES:
            # Beside the model, nothing of a finished job is looked at again.
            is_whole = not any(one.startswith(f"{handle}/") for one in told[since:])
            found = facts(output / handle) if is_whole else (weights_digest(output / handle),)
            assert found == calm[handle][: len(found)], (handle, told)
        assert not list(output.rglob("*.tmp")), told
        if rng.random() < 0.7:
            shutil.rmtree(output)
            since = len(told)
