"""What helper processes are asked for in test_helper.py: a module that they can import."""

import os
import signal
from pathlib import Path


def warm_up() -> None:
    if path := os.environ.get("HELPER_WORK_WARMED"):
        Path(path).write_text(str(os.getpid()))


def pid() -> int:
    return os.getpid()


def die_elsewhere(home: int) -> int:
    """Be killed amid the work, unless it is done in the process `home`."""
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def fail(reason: str) -> None:
    raise ValueError(reason)
