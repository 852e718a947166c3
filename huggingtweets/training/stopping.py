"""Stop on request: signals only set a flag, which the training loop reads between steps.

Standard library only, so that `install` stands before torch, which takes seconds, is imported.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from huggingtweets.errors import StoppedError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

_ECHO_S = 1.0
"""A signal this soon after the first is its echo: Ctrl-C and `scancel` reach a worker directly and
again through its launcher."""
_LAUNCHER_ECHO_S = 10.0
"""The same with a launcher, which hands signals on in its own time: busy, some seconds later."""

_ORPHAN_GRACE_S = 25.0
"""A worker whose launcher died has this long to save, and what its slowest step and save took
beside; then the kernel ends it, hung or not."""

_PR_SET_PDEATHSIG = 1
_ORPHAN_SIGNAL = getattr(signal, "SIGRTMIN", 0) + 3
"""Sent by the kernel alone: the death of the launcher is never taken for a second Ctrl-C."""

PARENT = "HUGGINGTWEETS_PARENT"
"""Environment variable: the process id of a parent to be followed like a launcher."""


@dataclass
class _State:
    signal_name: str | None = None
    first_at: dict[int, float] = field(default_factory=dict)
    """When each signal came for the first time."""
    launcher_pid: int | None = None
    is_orphan: bool = False
    asked_at: float | None = None
    slowest_s: float = 0.0
    """The longest time between two looks at the flag: a step, an evaluation."""
    save_s: float = 0.0


_state = _State()


def install() -> None:
    """Take over the stop signals; call first thing in the main thread.

    The first signal asks for a stop; the same one again, and not as its echo, leaves at once. Any
    other that follows changes nothing: SLURM sends SIGTERM after SIGUSR1, and a terminal SIGHUP
    when it is closed after a Ctrl-C. A worker is asked to stop as well when its launcher dies in
    whatever way. SIGHUP stays ignored under nohup. A forked child does not inherit any of this:
    SIGTERM ends it, so that process pools can, and it ignores the other signals, which a terminal
    or SLURM sends to everybody.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    os.register_at_fork(after_in_child=_leave_to_parent)
    if _has_launcher():
        _follow_launcher()


def stop_requested() -> bool:
    """Whether this process has been asked to stop; ranks have to agree on it among themselves."""
    if _lost_launcher():
        _be_orphan()
    if threading.current_thread() is threading.main_thread():
        now = time.monotonic()
        if _state.asked_at is not None:
            _state.slowest_s = max(_state.slowest_s, now - _state.asked_at)
        _state.asked_at = now
    return _state.signal_name is not None


def tell_save(seconds: float) -> None:
    """Take note of how long a save took: an orphan is given that time."""
    _state.save_s = max(_state.save_s, seconds)


def request_stop(reason: str) -> None:
    """Ask for a stop as a signal would; `reason` stands in the log and in the error."""
    _state.signal_name = _state.signal_name or reason


def raise_if_stopped(where: str) -> None:
    """Leave between two stages.

    Raises:
        StoppedError: a stop was asked for.
    """
    if stop_requested():
        raise StoppedError(
            f"{where}: got {_state.signal_name}; everything so far is saved; "
            "run the same command again to go on"
        )


def say_after_launcher(words: str) -> None:
    """Say something to the person at the terminal once an interrupted launcher is gone.

    Both kinds end with a traceback, which would be the last that stands there: torchrun waits for
    its workers first, and the launcher of one process prints slowly where the machine is busy.
    """
    launcher = _state.launcher_pid
    is_typed = signal.SIGINT in _state.first_at and os.isatty(2)
    if launcher is None or not is_typed or _lost_launcher() or _state.is_orphan:
        return
    if os.environ.get("RANK", "0") != "0" or os.fork():
        return
    until = time.monotonic() + _LAUNCHER_ECHO_S
    while time.monotonic() < until:
        with suppress(OSError):
            os.kill(launcher, 0)
            time.sleep(0.05)
            continue
        break
    _say(words)
    os._exit(0)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _lost_launcher():
        _be_orphan()
    now = time.monotonic()
    first_at = _state.first_at.setdefault(number, now)
    if _state.signal_name is None:
        request_stop(signal.Signals(number).name)
        _say(f"got {_state.signal_name}; finishing the step and saving")
    echo_s = _ECHO_S if _state.launcher_pid is None else _LAUNCHER_ECHO_S
    if now - first_at > echo_s and number != signal.SIGHUP:
        os._exit(128 + number)


def _on_death_of_parent(number: int, frame: FrameType | None) -> None:
    """The thread that started us is gone; asked again, the system says whether its process is.

    If not, another thread of it takes its place, and the kernel sends the signal again for that.
    """
    if _lost_launcher():
        _be_orphan()


def _lost_launcher() -> bool:
    """Whether the launcher is gone since the last look."""
    known = _state.launcher_pid
    return known is not None and not _state.is_orphan and os.getppid() != known


def _be_orphan() -> None:
    _state.is_orphan = True
    grace_s = _ORPHAN_GRACE_S + 3 * _state.slowest_s + 2 * _state.save_s
    signal.setitimer(signal.ITIMER_REAL, grace_s)
    if _state.signal_name is None:
        request_stop("the death of the launcher")


def _say(words: str) -> None:
    """Tell the person at once; straight to the file, as the log may be within a line."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            os.write(2, f"huggingtweets: {words}\n".encode())


def _has_launcher() -> bool:
    """Whether torchrun, `accelerate launch` or a sweep started this process, and not a shell."""
    if os.environ.get(PARENT) == str(os.getppid()):
        return True
    return "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def _follow_launcher() -> None:
    """Have the kernel tell when the launcher ends; elsewhere than on Linux it is asked each step.

    Not by SIGKILL: `accelerate launch` of one process forwards no signal and dies of SIGTERM and of
    Ctrl-C itself, and so does torchrun of SIGUSR1; the worker must still save.
    """
    _state.launcher_pid = os.getppid()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if sys.platform == "linux":
        signal.signal(_ORPHAN_SIGNAL, _on_death_of_parent)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _ORPHAN_SIGNAL)
        _on_death_of_parent(_ORPHAN_SIGNAL, None)


def _leave_to_parent() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    _state.launcher_pid = None
