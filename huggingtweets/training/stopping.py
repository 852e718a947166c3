"""Stop on request: signals only set a flag, which the training loop reads between steps.

Standard library only, so that `install` stands before torch, which takes seconds, is imported.
"""

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from types import FrameType

from huggingtweets.errors import StoppedError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

_ECHO_S = 1.0
"""A signal this soon after the first is its echo: Ctrl-C and `scancel` reach a worker directly and
again through its launcher."""

_ORPHAN_GRACE_S = 25.0
"""A worker whose launcher died has this long to save; then the kernel ends it, hung or not."""

_PR_SET_PDEATHSIG = 1

PARENT = "HUGGINGTWEETS_PARENT"
"""Environment variable: the process id of a parent to be followed like a launcher."""


@dataclass
class _State:
    signal_name: str | None = None
    first_at: float = 0.0
    launcher_pid: int | None = None
    is_orphan: bool = False


_state = _State()


def install() -> None:
    """Take over the stop signals; call first thing in the main thread.

    The first signal asks for a stop, a second one more than a second later leaves at once. A
    worker is asked to stop as well when its launcher dies in whatever way. SIGHUP stays ignored
    under nohup. A forked child does not inherit any of this: SIGTERM ends it, so that process
    pools can, and it ignores the other signals, which a terminal or SLURM sends to everybody.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    os.register_at_fork(after_in_child=_leave_to_parent)
    if _has_launcher():
        _follow_launcher()


def stop_requested() -> bool:
    """Whether this process has been asked to stop; ranks have to agree on it among themselves."""
    return _state.signal_name is not None


def request_stop(reason: str) -> None:
    """Ask for a stop as a signal would; `reason` stands in the log and in the error."""
    _state.signal_name = _state.signal_name or reason
    _state.first_at = time.monotonic()


def clear_stop() -> None:
    """Forget a request; for a process that outlives what it stopped."""
    _state.signal_name = None


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


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _lost_launcher():
        _state.is_orphan = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _ORPHAN_GRACE_S)
        request_stop("the death of the launcher")
    elif not stop_requested():
        request_stop(signal.Signals(number).name)
    elif time.monotonic() - _state.first_at > _ECHO_S:
        os._exit(128 + number)


def _lost_launcher() -> bool:
    """Whether the launcher is gone since the last look."""
    known = _state.launcher_pid
    return known is not None and not _state.is_orphan and os.getppid() != known


def _has_launcher() -> bool:
    """Whether torchrun, `accelerate launch` or a sweep started this process, and not a shell."""
    if os.environ.get(PARENT) == str(os.getppid()):
        return True
    return "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def _follow_launcher() -> None:
    """Have the kernel send SIGTERM when the launcher ends.

    SIGTERM and not SIGKILL: `accelerate launch` of one process forwards no signal and dies of
    SIGTERM and of Ctrl-C itself, and so does torchrun of SIGUSR1; the worker must still save.
    """
    if sys.platform != "linux":
        return
    _state.launcher_pid = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != _state.launcher_pid:
        _on_signal(signal.SIGTERM, None)


def _leave_to_parent() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    _state.launcher_pid = None
