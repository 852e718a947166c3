"""One Ctrl-C at a terminal: everything is saved, and that is the last thing said."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from at_a_terminal import LAUNCHERS, check_ctrl_c


def test_one_ctrl_c_under_a_launcher_saves_and_says_so_last(tmp_path: Path) -> None:
    check_ctrl_c(tmp_path, LAUNCHERS["accelerate"], step_s=2, wait_s=1)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("number", range(8))
def test_one_ctrl_c_on_slow_steps(launcher: str, number: int, tmp_path: Path) -> None:
    check_ctrl_c(tmp_path, LAUNCHERS[launcher], step_s=10, wait_s=number)


def test_the_death_of_one_thread_of_the_launcher_is_not_its_death(tmp_path: Path) -> None:
    """The kernel sends its signal when the thread that started us ends, whatever else lives."""
    worker = """
import sys, time
from huggingtweets.training import stopping
stopping.install()
print("ready", flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and not stopping.stop_requested():
    time.sleep(0.02)
print(stopping._state.signal_name, flush=True)
"""
    launcher = """
import os, subprocess, sys, threading, time
os.environ["LOCAL_RANK"] = "0"
found = []
def start():
    found.append(subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]]))
    time.sleep(1.5)
thread = threading.Thread(target=start)
thread.start()
thread.join()
found[0].wait()
"""
    log = tmp_path / "log"
    with log.open("w") as out:
        command = [sys.executable, "-c", launcher, worker, "3"]
        assert subprocess.run(command, stdout=out, stderr=out, timeout=60).returncode == 0
    assert log.read_text().split() == ["ready", "None"]
    assert signal.SIGRTMIN + 3 <= signal.SIGRTMAX
