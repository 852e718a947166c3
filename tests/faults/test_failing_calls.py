"""One call that reaches the disk fails: one sentence, and the next start ends with all done.

The storm strikes many at once; here each kind of call, file and error has a start of its own.
"""

import errno
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from job_processes import Running, Start, small_batch, weights_digest

from huggingtweets.jobs.status import read_states

HANDLES = ("ann", "bob")
CALLS = (
    "open", "fsync", "replace", "rename", "mkdir", "listdir", "scandir", "unlink", "stat", "utime",
    "link", "rmdir",
)  # fmt: skip

NUM_STRUCK = 80
"""Of some 600 calls of the fused engine and 900 of the single one; a start or two each."""


def command(folder: Path, engine: str, output: str) -> list[str]:
    words = ("recipe.max_steps=4", "engine.wait_for_room_s=0.3")
    return [*small_batch(folder, engine, output, HANDLES), *words]


def failing(output: str, ordinal: int, number: int, hits: Path) -> None:
    """Have one call on the output fail; for `Start.prepare`. Ordinal 0: only count them."""
    count = 0

    def shaky(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(subject: Any = ".", *args: Any, **options: Any) -> Any:
            nonlocal count
            path = f"/proc/self/fd/{subject}" if isinstance(subject, int) else os.fspath(subject)
            if output in (path if name == "stat" else os.path.realpath(path)):
                count += 1
                if count == ordinal or not ordinal:
                    with open(hits, "a") as file:  # noqa: PTH123 - Path.open is struck as well
                        file.write(f"{name} {path}\n")
                if count == ordinal:
                    raise OSError(number, os.strerror(number), str(path))
            return call(subject, *args, **options)

        return replaced

    for name in CALLS:
        setattr(os, name, shaky(name, getattr(os, name)))


def start(
    arguments: list[str], log: Path, prepare: Callable[[], None] | None = None
) -> tuple[int, str]:
    running = Running(Start(arguments, prepare=prepare, log=log))
    return running.wait(90), running.words()


@pytest.mark.parametrize("engine", ["fused", "single"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.slow
def test_a_failing_call_is_one_sentence(tmp_path: Path, engine: str, number: int) -> None:
    hits, log = tmp_path / "hits", tmp_path / "log"
    arguments, output = command(tmp_path, engine, "out"), tmp_path / "out"
    code, words = start(arguments, log, partial(failing, str(output), 0, number, hits))
    assert code == 0, words
    calm = {handle: weights_digest(output / handle) for handle in HANDLES}
    wrong = []
    num_calls = len(hits.read_text().splitlines())
    for ordinal in random.Random(number).sample(range(1, num_calls + 1), NUM_STRUCK):
        shutil.rmtree(output)
        hits.unlink()
        code, words = start(arguments, log, partial(failing, str(output), ordinal, number, hits))
        struck = hits.read_text().strip() if hits.exists() else ""
        told = (ordinal, struck, code, words)
        if "Traceback" in words or "bug of ours" in words or code not in (0, 1, 75):
            wrong.append(told)
            continue
        states = read_states(output).values() if output.is_dir() else ()
        final = [one for one in states if one.status == "failed" and not one.retryable]
        code, words = start(arguments, log)
        found = {handle: weights_digest(output / handle) for handle in HANDLES if not code}
        if final or code or found != calm:
            wrong.append((*told, code, words))
        hits.touch()
    assert not wrong, "\n\n".join(map(str, wrong))
