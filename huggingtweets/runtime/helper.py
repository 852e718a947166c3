"""Processes beside this one that call functions: what needs no PyTorch runs truly beside training.

A thread would share the interpreter's lock with whoever trains. A helper imports what it is asked
for and nothing else. It ends when its end of the line is closed, so when this process ends, however
that comes about; signals for this process do not reach it.
"""

import atexit
import logging
import os
import socket
import subprocess
from collections.abc import Callable
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection
from queue import LifoQueue
from typing import Any, TypeVar

from huggingtweets.process import command_of, usable_cores

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Helper:
    """One process, started at once; for one caller at a time."""

    def __init__(self, module: str) -> None:
        """Start it; it imports a module, and calls its `warm_up`, while nobody waits for it yet."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                command_of(__name__, "serve", str(theirs.fileno()), module),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._line = Connection(ours.detach())

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of a module there.

        Raises:
            EOFError: the process is gone.
            Exception: whatever the function raised.
        """
        self._line.send((function, arguments))
        is_well, value = self._line.recv()
        if not is_well:
            raise value
        result: T = value
        return result

    def close(self) -> None:
        """End it at once; it is idle, or what it does is for nobody."""
        self._line.close()
        self._process.kill()
        self._process.wait()


class Helpers:
    """Some helpers, shared by threads. None is started before it is needed."""

    def __init__(self, num: int, module: str) -> None:
        """Have at most `num` of them, which import a module to begin with."""
        self._module = module
        # Last in, first out: one that is warm is taken before another is started.
        self._free: LifoQueue[Helper | None] = LifoQueue()
        for _ in range(num):
            self._free.put(None)
        self._num = num

    def close(self) -> None:
        """End them all, once they are idle; whoever calls again starts another."""
        for _ in range(self._num):
            if helper := self._free.get():
                helper.close()
        for _ in range(self._num):
            self._free.put(None)

    def warm_up(self) -> None:
        """Start one, so that its imports are made beside something else."""
        helper = self._free.get()
        try:
            helper = helper or self._started()
        finally:
            self._free.put(helper)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a free helper, or here where its process died of it.

        Waits while all are at work, so memory is bounded by their number.
        """
        helper = self._free.get()
        try:
            helper = helper or self._started()
            if helper is not None:
                return helper.call(function, *arguments)
        except (EOFError, ConnectionError) as err:
            logger.warning("a helper process is gone (%s): its work is done here", err or "killed")
            if helper is not None:
                helper.close()
            helper = None
        finally:
            self._free.put(helper)
        return function(*arguments)

    def _started(self) -> Helper | None:
        """Start a process; None where the system refuses."""
        try:
            return Helper(self._module)
        except OSError as err:
            logger.warning("no helper process (%s): its work is done here", err.strerror)
            return None


@cache
def shared_helpers(module: str) -> Helpers:
    """Return the helpers of this process that begin with a module, for as many jobs as it does.

    They are as many as half of its cores, and end with it.
    """
    helpers = Helpers(max(1, usable_cores() // 2), module)
    atexit.register(helpers.close)
    return helpers


def serve(fd: str, module: str) -> None:
    """Call what is asked for until the line is closed: the whole life of a helper."""
    warm_up = getattr(import_module(module), "warm_up", None)
    if warm_up is not None:
        warm_up()
    with Connection(int(fd)) as line:
        while True:
            try:
                function, arguments = line.recv()
            except (EOFError, ConnectionError):
                return
            try:
                answer = (True, function(*arguments))
            except Exception as err:  # told to the caller, who knows what to make of it
                answer = (False, err)
            try:
                line.send(answer)
            except (EOFError, ConnectionError):
                return
            except Exception as err:  # what cannot be sent is told in words
                line.send((False, RuntimeError(f"{type(err).__name__}: {err}; of {answer[1]!r}")))
