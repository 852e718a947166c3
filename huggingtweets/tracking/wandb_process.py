"""The process that talks to W&B: whatever hangs there, this process can kill it and go on.

It serves one job at a time, and the next one after that, as importing W&B takes a second. While it
works it says that it lives; it ends when its end of the line is closed, so when this process ends,
however that comes about. Signals for this process do not reach it, nor does what W&B prints reach
anybody.
"""

import logging
import os
import queue
import socket
import subprocess
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

from huggingtweets.process import command_of
from huggingtweets.tracking.wandb_session import Told, WandbSession

_Calls = queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None]

_DONE = ("done", None)
"""What is told last of a call."""
_LAST_CALL_S = 5.0
"""For the call under way when this process ends."""


class WandbProcess:
    """One process, started at once; for one caller at a time, but `kill` may come at any time."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Start it.

        Args:
            environment: added to ours.

        Raises:
            OSError: the system refuses.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                command_of(__name__, "serve", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | environment,
                start_new_session=True,
            )
        self._line = Connection(ours.detach())

    def call(self, name: str, arguments: tuple[Any, ...], told: Told) -> None:
        """Call a method of the session there; `begin` makes one.

        Raises:
            EOFError: the process is gone.
            OSError: likewise.
        """
        self._line.send((name, arguments))
        while (message := self._line.recv()) != _DONE:
            told(*message)

    def kill(self) -> None:
        """End it and what W&B has started there; a call under way ends with an error."""
        # Its children first, and before it is gone: W&B's own process would live on by itself.
        doomed = []
        with suppress(psutil.Error):
            doomed = psutil.Process(self._process.pid).children(recursive=True)
        for process in doomed:
            with suppress(psutil.Error):
                process.kill()
        self._process.kill()
        self._process.wait()


def serve(fd: str) -> None:
    """Make the calls that are asked for until the line is closed: the whole life of the process."""
    line, lock = Connection(int(fd)), threading.Lock()

    def tell(kind: str, value: Any) -> None:
        # Calls that are left to their threads, and W&B's log lines, tell at any time.
        with lock, suppress(OSError):
            line.send((kind, value))

    calls: _Calls = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(line, calls), daemon=True).start()
    package = logging.getLogger("huggingtweets")
    package.addHandler(_Forwarding(tell))
    package.setLevel(logging.INFO)
    session: Any = None
    while (call := calls.get()) is not None:
        name, arguments = call
        try:
            if name == "begin":
                session = WandbSession(tell, *arguments)
            else:
                getattr(session, name)(*arguments)
        except Exception as err:  # none may end the process, which has more to record
            package.warning("W&B: %s failed (%s: %s)", name, type(err).__name__, err)
        tell(*_DONE)
    os._exit(0)  # W&B's hooks at exit may wait for a server


def _listen(line: Connection, calls: _Calls) -> None:
    """Take calls from the line; leave when it is closed, whatever hangs."""
    with suppress(EOFError, OSError):
        while True:
            calls.put(line.recv())
    calls.put(None)
    time.sleep(_LAST_CALL_S)
    os._exit(0)


class _Forwarding(logging.Handler):
    """Hands log lines on to the process that has a log."""

    def __init__(self, tell: Told) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a line."""
        self._tell("log", (record.levelno, record.getMessage()))
