"""Why something failed, told by its cause and not by who raised it: may it be tried again?

The one place that decides. Libraries raise their own kinds for the same fault: safetensors and
tokenizers (Rust) write `(os error 28)`, pyarrow `[errno 28]`, PyTorch only words. An error that
went through another process or through `raise ... from` keeps its cause.
"""

import errno
import os
import re
from collections.abc import Iterator
from enum import StrEnum

from huggingtweets.errors import (
    ConfigError,
    HuggingtweetsError,
    OutOfMemoryError,
    StorageError,
    TrainingError,
)
from huggingtweets.logs import exit_code_of


class Cause(StrEnum):
    """What another try may find otherwise, the job and its settings being the same."""

    room = "room"
    """A full disk, or a quota."""
    disk = "disk"
    """Input and output, and what may not be opened just now."""
    memory = "memory"
    network = "network"
    time = "time"


_BY_ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), Cause.room),
    **dict.fromkeys((errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN), Cause.memory),
    **dict.fromkeys((errno.ETIMEDOUT, errno.ETIME), Cause.time),
    **dict.fromkeys(
        (errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENETDOWN,
         errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENOTCONN),
        Cause.network,
    ),
}  # fmt: skip
_KNOWN: dict[Cause, tuple[type[HuggingtweetsError], str]] = {
    Cause.room: (StorageError, "a disk with room; make room, then"),
    Cause.disk: (StorageError, "a disk that can be read and written; look after it, then"),
    Cause.memory: (
        OutOfMemoryError,
        "memory and open files to spare; end what else runs here, or take a smaller engine.slots, "
        "then",
    ),
    Cause.network: (TrainingError, "an answer in time;"),
    Cause.time: (TrainingError, "an answer in time;"),
}
"""What an error becomes, and what was expected of the machine."""
_ERRNO = re.compile(r"(?:os error|errno|Errno|error code:?) (\d{1,3})\b")
_WORDS = (
    (Cause.room, re.compile(r"No space left on device|[Dd]isk quota|disk is full", re.ASCII)),
    (Cause.memory, re.compile(r"[Cc]annot allocate memory|can't allocate memory|out of memory")),
    # PyTorch's writer of archives says no more than this, whatever the reason.
    (Cause.disk, re.compile(r"Input/output error|disk I/O error|file write failed")),
    (Cause.disk, re.compile(r"inline_container\.cc:\d+\] \. unexpected pos|iostream error")),
    (Cause.disk, re.compile(r"Stale file handle|Read-only file system|Transport endpoint")),
)
# By name: PyTorch, pyarrow and NumPy need not be imported to tell their errors.
_MEMORY_CLASSES = frozenset({"OutOfMemoryError", "ArrowMemoryError", "_ArrayMemoryError"})
_NETWORK_PACKAGES = frozenset({"httpx", "httpcore", "requests", "urllib3", "aiohttp", "h11"})
_FINAL = {
    **dict.fromkeys(
        (errno.ENAMETOOLONG, errno.EILSEQ), "a path that this system takes; choose another"
    ),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR), "a folder there; move the file away, or choose another path"
    ),
}
"""Of paths that are asked for, and will be again; and what was expected."""


def cause_of(err: BaseException) -> Cause | None:
    """Return the cause of an error that another try may cure; None: it will come again."""
    for one in _chain(err):
        if isinstance(one, HuggingtweetsError) and one.cause is not None:
            return Cause(one.cause)
        if found := _cause(one):
            return found
    return None


def is_curable(err: BaseException) -> bool:
    """Whether the same job, unchanged, may succeed when it is tried again."""
    if isinstance(err, HuggingtweetsError) and err.retryable:
        return True
    return cause_of(err) is not None


def as_known(where: object, err: BaseException) -> HuggingtweetsError | None:
    """Return an error as one of ours that carries its cause; None: nobody has foreseen it.

    Args:
        where: a path or the name of a job, for the sentence.
        err: of whatever kind.
    """
    cause = cause_of(err)
    if isinstance(err, HuggingtweetsError):
        err.cause = cause
        err.retryable = err.retryable or cause is not None
        return err
    place = (isinstance(err, OSError) and err.filename) or where
    if isinstance(err, OSError) and err.errno in _FINAL:
        return ConfigError(f"{place}: got {err.strerror}; expected {_FINAL[err.errno]}")
    if cause is None:
        return None
    said = " ".join(str(getattr(err, "strerror", None) or err or type(err).__name__).split())[:200]
    kind, expected = _KNOWN[cause]
    known = kind(f"{place}: got {said}; expected {expected} run the same command again")
    known.cause, known.retryable = cause, True
    return known


def exit_code_for(where: object, err: HuggingtweetsError | OSError) -> int:
    """Say what ended a command and return its exit code; raise again what nobody has foreseen."""
    known = as_known(where, err)
    if known is None:
        raise err
    return exit_code_of(known)


def _chain(err: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, the error first."""
    seen: set[int] = set()
    one: BaseException | None = err
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _cause(err: BaseException) -> Cause | None:
    if isinstance(err, HuggingtweetsError):
        return None  # its words quote others, and may quote a person
    if isinstance(err, OSError) and err.errno is not None:
        number = err.errno
        return None if number in _FINAL else _BY_ERRNO.get(number, Cause.disk)
    kind = type(err)
    if isinstance(err, MemoryError) or kind.__name__ in _MEMORY_CLASSES:
        return Cause.memory
    if isinstance(err, TimeoutError):
        return Cause.time
    if kind.__module__.partition(".")[0] in _NETWORK_PACKAGES or isinstance(err, ConnectionError):
        return Cause.network
    if isinstance(err, (ValueError, LookupError, TypeError, AttributeError)):
        return None  # of data and of programs, whatever words are in them
    text = str(err)[:2000]
    if (match := _ERRNO.search(text)) and int(match[1]) in errno.errorcode:
        return _cause(OSError(int(match[1]), os.strerror(int(match[1]))))
    return next((cause for cause, words in _WORDS if words.search(text)), None)
