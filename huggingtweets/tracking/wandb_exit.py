"""Ends W&B's helper process when it keeps this process from exiting, as it does in an outage."""

import atexit
import threading
import time
from functools import cache
from subprocess import Popen
from typing import Any

EXIT_TIMEOUT_S = 4.0


class ExitGuard:
    """A thread that sleeps until the interpreter exits, and then counts."""

    def __init__(self) -> None:
        """Start the thread now: none can be started at exit."""
        self._is_leaving = threading.Event()
        self._services: set[Popen[Any]] = set()
        threading.Thread(target=self._watch, name="wandb-exit", daemon=True).start()

    def cover_service(self) -> None:
        """Watch the helper process there is now; to be called after each start of a run."""
        service = _service()
        if service is not None:
            self._services.add(service)
        # Exit hooks run last in, first out: ours has to run before the one that waits.
        atexit.unregister(self._is_leaving.set)
        atexit.register(self._is_leaving.set)

    def _watch(self) -> None:
        self._is_leaving.wait()
        time.sleep(EXIT_TIMEOUT_S)
        for service in self._services:
            service.kill()


@cache
def exit_guard() -> ExitGuard:
    """Return the guard of this process."""
    return ExitGuard()


def _service() -> Popen[Any] | None:
    """The wandb-core process of this one; W&B has no public way to ask for it."""
    from wandb.sdk import wandb_setup

    service = wandb_setup.singleton()
    for name in ("_connection", "_proc", "_process"):
        service = getattr(service, name, None)  # type: ignore[assignment]
    return service if isinstance(service, Popen) else None
