"""End a process that makes no progress: dump every stack, take the other ranks along."""

import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn, Self

logger = logging.getLogger(__name__)

_STDERR = 2
_BACKSTOP_S = 30.0
"""How much later the C-level timer fires, for a hang that holds the interpreter's lock."""


class Watchdog:
    """Ends the process with exit code 1 when `beat` was not called for `timeout_s` seconds.

    Time in which this process was stopped itself (SIGSTOP, a suspended SLURM job) does not count:
    of a group of ranks it is the waiting ones that notice a stopped one.
    """

    def __init__(self, timeout_s: float, *, peers: Sequence[int] = ()) -> None:
        """Watch nothing yet.

        Args:
            timeout_s: seconds without a beat; more than the longest step, evaluation or save.
            peers: process ids of the other ranks on this machine, killed along: a launcher would
                give a stopped one another half minute.
        """
        self._timeout_s = timeout_s
        self._peers = [pid for pid in peers if pid != os.getpid()]
        self._beats = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        """Start watching."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def beat(self) -> None:
        """Say that something was finished; costs nothing."""
        self._beats += 1

    def _watch(self) -> None:
        poll_s = min(1.0, self._timeout_s / 10)
        # Whoever wants no watching asks for centuries; no timer of the system counts that far.
        backstop_s = min(self._timeout_s + _BACKSTOP_S, threading.TIMEOUT_MAX)
        silent_s, beats, last = 0.0, self._beats, time.monotonic()
        while True:
            faulthandler.dump_traceback_later(backstop_s, exit=True, file=_STDERR)
            if self._ended.wait(poll_s):
                break
            now = time.monotonic()
            # A gap longer than two looks is time in which this very process was stopped.
            silent_s += min(now - last, 2 * poll_s)
            last = now
            if beats != self._beats:
                silent_s, beats = 0.0, self._beats
            if silent_s >= self._timeout_s:
                self._give_up()
        faulthandler.cancel_dump_traceback_later()

    def _give_up(self) -> None:
        logger.error(
            "watchdog: got no finished step for %.0f seconds; expected progress; ending all ranks, "
            "run the same command again to go on from the last checkpoint",
            self._timeout_s,
        )
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        self.end_group()

    def end_group(self) -> NoReturn:
        """End this process and the other ranks of the machine, which would wait for it for ever."""
        for pid in self._peers:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        os._exit(1)
