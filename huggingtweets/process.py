"""Which process a number means: distinguishes it from a later one with the same number."""

import json
import os
import socket
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Process:
    """One process of this machine."""

    pid: int
    started: str
    """Its start in clock ticks since the machine's; empty where the system does not tell."""
    parent: int


# The modules' places come as an argument, in quotes of JSON: a path may hold anything.
_CALL = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from {} import {} as main; main(*sys.argv[2:])"
)


def command_of(module: str, function: str, *arguments: str) -> list[str]:
    """Return the command of another Python that calls a function of ours.

    It looks for modules where this one does, installed or not, and whatever its folder is.
    """
    return [sys.executable, "-c", _CALL.format(module, function), json.dumps(sys.path), *arguments]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_process(pid: int) -> Process | None:
    """Return a living process by its number; None: there is none, or it is a zombie."""
    try:
        found = psutil.Process(pid)
        with found.oneshot():  # one look at /proc for all of them: else they may not fit together
            if found.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return None
            # Since boot, so that no change of the clock makes another process of it.
            since_boot = found.create_time() - psutil.boot_time()
            return Process(pid, str(round(since_boot * _ticks())), found.ppid())
    except psutil.AccessDenied:  # another user's: it lives, and there is no more to know
        return Process(pid, "", 0)
    except (psutil.NoSuchProcess, ValueError, OverflowError, TypeError):
        return Process(pid, "", 0) if _answers(pid) else None


def own_process() -> Process:
    """Describe this process."""
    return find_process(os.getpid()) or Process(os.getpid(), "", os.getppid())


def lives(pid: int, started: str) -> bool:
    """Whether the process that had this number and start still runs."""
    found = find_process(pid)
    return found is not None and (found.started == started or "" in (found.started, started))


@cache
def machine() -> str:
    """Name this machine, the same after a restart of it."""
    for name in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            return f"{socket.gethostname()} {Path(name).read_text(encoding='ascii').strip()}"
        except (OSError, ValueError):
            continue
    return socket.gethostname()


@cache
def boot() -> str:
    """Name this run of the machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def place() -> str:
    """Name the boot and the namespace of process numbers: within one a number says who it is."""
    try:
        if boot():
            return f"{boot()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        pass
    return socket.gethostname()


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _answers(pid: int) -> bool:
    """Whether a number is in use where /proc hides the processes of others."""
    try:
        return psutil.pid_exists(pid)
    except (ValueError, OverflowError, TypeError):
        return False
