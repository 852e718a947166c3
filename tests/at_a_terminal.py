"""A training at a pseudo-terminal, with slow steps, at which somebody types one ^C."""

import os
import pty
import select
import sys
import time
from pathlib import Path

from job_processes import ROOT, SMALL, write_posts

SLOW = """
import ctypes, os, sys
from huggingtweets.training import stopping

stopping.install()
from huggingtweets.training.parallel import loop

take = loop.train_step

def slow_step(*args, **options):
    ctypes.CDLL(None).sleep(int(os.environ["STEP_S"]))  # as in C++: no handler of Python runs
    return take(*args, **options)

loop.train_step = slow_step
from huggingtweets.train import main

sys.exit(main())
"""
LAUNCHERS = {
    "python": [sys.executable],
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=1",
                   "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--cpu"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone",
                 "--nproc_per_node=1"],
    # The shell keeps the terminal, which nohup takes its hands off.
    "nohup": ["/bin/sh", "-c", 'nohup "$@"; true', "sh", sys.executable],
}  # fmt: skip


def read_until(terminal: int, is_so: object, limit_s: float) -> str:
    """Read what the terminal shows until something is so, or until nobody writes to it any more."""
    assert callable(is_so)
    said = b""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and not is_so(said.decode(errors="replace")):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                part = os.read(terminal, 1 << 16)
            except OSError:  # the last writer has closed it
                break
            if not part:
                break
            said += part
    return said.decode(errors="replace")


def check_ctrl_c(tmp_path: Path, command: list[str], *, step_s: int, wait_s: float) -> None:
    """Start a training at a terminal, type one ^C in the middle of a step, and read to the end."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    posts = write_posts(tmp_path / "posts", "ann")
    words = [*SMALL, "user=ann", "source=jsonl", f"source.path={posts}", "engine.log_every=1"]
    words += [f"output_dir={tmp_path / 'out'}", "consent=permission"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ |= {"STEP_S": str(step_s), "PYTHONPATH": str(ROOT)}
        os.execv(command[0], [*command, str(script), *words])
    metrics = tmp_path / "out" / "ann" / "metrics.jsonl"
    try:
        before = read_until(
            terminal, lambda _: metrics.is_file() and '"loss"' in metrics.read_text(), 200
        )
        assert metrics.is_file(), before
        time.sleep(wait_s)
        os.write(terminal, b"\x03")
        after = read_until(terminal, lambda _: False, 120)
    finally:
        os.close(terminal)
    os.waitpid(pid, 0)
    if (tmp_path / "nohup.out").exists():  # where nohup has what would go to a terminal
        after = (tmp_path / "nohup.out").read_text()
    assert list((tmp_path / "out" / "ann" / "checkpoints").glob("step-*")), after
    assert "finishing the step and saving" in after
    # srun adds a line of its own, with the exit code.
    lines = [line for line in after.splitlines() if line.strip() and not line.startswith("srun:")]
    last = lines[-1]
    assert "run the same command again to go on" in last, after
