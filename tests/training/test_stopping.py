import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

WAIT_S = 20.0

LOOP = """
import sys, time
from huggingtweets.training import stopping
assert "torch" not in sys.modules
stopping.install()
print("ready", flush=True)
while not stopping.stop_requested():
    time.sleep(0.01)
print(stopping._state.signal_name, flush=True)
{after}
sys.exit(75)
"""


@contextmanager
def running(code: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_a_signal_only_asks_for_a_stop(name: str) -> None:
    # These tests may themselves run under nohup.
    heeding = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)" + LOOP
    with running(heeding.format(after="time.sleep(0.2)")) as process:
        process.send_signal(getattr(signal, name))
        assert process.communicate(timeout=WAIT_S)[0] == f"{name}\n"
        assert process.returncode == 75


def test_the_echo_of_a_signal_changes_nothing() -> None:
    with running(LOOP.format(after="time.sleep(0.5)")) as process:
        process.send_signal(signal.SIGINT)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 75


def test_a_second_signal_leaves_at_once() -> None:
    with running(LOOP.format(after="time.sleep(60)")) as process:
        process.send_signal(signal.SIGTERM)
        process.stdout.readline()
        time.sleep(1.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 128 + signal.SIGTERM


def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + LOOP
    with running(ignoring.format(after="")) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=WAIT_S)[0] == "SIGTERM\n"


def test_a_forked_child_leaves_signals_to_its_parent() -> None:
    code = """
import os, signal, sys, time
from huggingtweets.training import stopping
stopping.install()
child = os.fork()
if child == 0:
    time.sleep(60)
time.sleep(0.2)
for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
    os.kill(child, number)
time.sleep(0.2)
assert os.waitpid(child, os.WNOHANG) == (0, 0), "it lives on"
os.kill(child, signal.SIGTERM)
assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM, "pools can end it"
print("ready", flush=True)
"""
    with running(code) as process:
        assert process.wait(WAIT_S) == 0


LAUNCHER = """
import os, subprocess, sys, time
os.environ["LOCAL_RANK"] = "0"
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
open(sys.argv[2], "w").write(str(worker.pid))
worker.wait()
"""


def orphan(tmp_path: Path, worker: str, number: int) -> tuple[int, Path]:
    """Start a launcher with one worker, end the launcher; returns the worker and its log."""
    pid_file, log = tmp_path / "pid", tmp_path / "log"
    with log.open("w") as out:
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, worker, str(pid_file)], stdout=out, stderr=out
        )
        wait_until(lambda: "ready" in log.read_text())
        launcher.send_signal(number)
        launcher.wait()
    return int(pid_file.read_text()), log


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1, signal.SIGTERM])
def test_a_worker_saves_and_leaves_when_its_launcher_dies(tmp_path: Path, number: int) -> None:
    pid, log = orphan(tmp_path, LOOP.format(after='print("saved", flush=True)'), number)
    wait_until(lambda: not is_alive(pid))
    assert log.read_text().splitlines() == ["ready", "the death of the launcher", "saved"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_worker_that_cannot_leave_is_ended_by_the_kernel(tmp_path: Path) -> None:
    hung = LOOP.replace("stopping.install()", "stopping._ORPHAN_GRACE_S = 0.5; stopping.install()")
    holds_the_interpreter = "import ctypes; ctypes.PyDLL(None).sleep(60)"
    pid, _ = orphan(tmp_path, hung.format(after=holds_the_interpreter), signal.SIGKILL)
    try:
        wait_until(lambda: not is_alive(pid))
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
