import os
import signal
import subprocess
import sys
import time

import pytest

from huggingtweets.training.watchdog import Watchdog

SCRIPT = """
import ctypes, os, signal, sys, time
from huggingtweets.training import watchdog
watchdog._BACKSTOP_S = float(sys.argv[3]) if len(sys.argv) > 3 else 30.0
peers = [int(pid) for pid in sys.argv[2].split(",") if pid]
with watchdog.Watchdog(1.0, peers=[os.getpid(), *peers]) as dog:
    def a_step_that_never_ends():
        time.sleep(60)
    {body}
print("left by itself")
"""


def run(body: str, peers: str = "", *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body), "x", peers, *more],
        capture_output=True,
        text=True,
        timeout=40,
    )


def test_a_hang_is_ended_with_its_stack() -> None:
    started = time.monotonic()
    result = run("a_step_that_never_ends()")
    assert result.returncode == 1
    assert "a_step_that_never_ends" in result.stderr
    assert "got no finished step for 1 seconds" in result.stderr
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
def test_endless_patience_is_no_fault(seconds: float) -> None:
    with Watchdog(seconds) as dog:
        time.sleep(0.2)
        assert dog._thread.is_alive()


def test_steps_keep_it_quiet() -> None:
    result = run("for _ in range(20): dog.beat(); time.sleep(0.1)")
    assert (result.returncode, result.stdout, result.stderr) == (0, "left by itself\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="loads the C library by name")
def test_a_hang_that_holds_the_interpreter_is_ended_too() -> None:
    result = run("ctypes.PyDLL(None).sleep(60)", "", "1.0")
    assert result.returncode == 1
    assert "Timeout" in result.stderr
    assert "File" in result.stderr


def test_peers_are_killed_even_when_they_are_stopped() -> None:
    peer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        os.kill(peer.pid, signal.SIGSTOP)
        result = run("a_step_that_never_ends()", str(peer.pid))
        assert result.returncode == 1
        assert peer.wait(10) == -signal.SIGKILL
    finally:
        peer.kill()
        peer.wait()


def test_time_spent_stopped_does_not_count() -> None:
    body = "print('ready', flush=True); [(time.sleep(0.1), dog.beat()) for _ in range(20)]"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body), "x", ""],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    process.send_signal(signal.SIGCONT)
    assert process.wait(20) == 0
