"""The files of a model folder that all users of a base share; a large one is written once."""

import copy
import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers

from huggingtweets.bases.architectures import class_name
from huggingtweets.bases.folder import for_other_readers
from huggingtweets.bases.model import Base, keep_dropout

LINKED_BYTES = 1 << 16
"""Smaller files are written again: a link saves nothing."""
FICLONE = 0x40049409
"""Of Linux, <linux/fs.h>: share the blocks of another file; XFS and Btrfs can, ext4 cannot."""


class SharedFiles:
    """Configuration and tokenizer; threads may use it side by side."""

    def __init__(self, config: transformers.PretrainedConfig) -> None:
        """Make nothing yet; `config` is that of the opened base, and stays as it is."""
        self._config = config
        self._files: dict[torch.dtype, dict[str, bytes]] = {}
        self._placed: dict[str, tuple[Path, int, int]] = {}
        """Where each large file lies already, its inode and when it was written."""
        self._lock = threading.Lock()

    def put(self, base: Base, dtype: torch.dtype, folder: Path, final: Path) -> None:
        """Write the files of a model folder that all users share.

        Of a large one, the tokenizer, further copies are links to the first: they cost no room.

        Args:
            base: of all users.
            dtype: of the weights.
            folder: to write into.
            final: where that folder is to lie.
        """
        for name, data in self._files_of(base, dtype).items():
            if len(data) < LINKED_BYTES:
                (folder / name).write_bytes(data)
                continue
            earlier = self._placed.get(name)
            if earlier is None or not _shared(*earlier, folder / name):
                (folder / name).write_bytes(data)
                found = (folder / name).stat()
                self._placed[name] = (final / name, found.st_ino, found.st_mtime_ns)

    def _files_of(self, base: Base, dtype: torch.dtype) -> Mapping[str, bytes]:
        """Return the files that all users share, by name; made once."""
        with self._lock:
            if dtype not in self._files:
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    config = copy.deepcopy(self._config)
                    keep_dropout(config, base.config)
                    config.dtype = dtype
                    config.architectures = [class_name(config)]
                    config.save_pretrained(folder)
                    base.tokenizer.save_pretrained(folder)
                    for_other_readers(folder)
                    self._files[dtype] = {p.name: p.read_bytes() for p in folder.iterdir()}
            return self._files[dtype]


def _shared(source: Path, inode: int, written_ns: int, target: Path) -> bool:
    """Make a file of the same content without a copy: a reflink, else a hard link.

    False where the file system has neither, or the source is no longer what was written.
    """
    try:
        found = source.stat()
        if (found.st_ino, found.st_mtime_ns) != (inode, written_ns):
            return False
        if not _cloned(source, target):
            os.link(source, target)
    except OSError:
        return False
    return True


def _cloned(source: Path, target: Path) -> bool:
    """Make a reflink: both files are their own, and share what neither has changed."""
    try:
        import fcntl  # not on Windows

        with source.open("rb") as old, target.open("xb") as new:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
    except (ImportError, OSError):
        target.unlink(missing_ok=True)
        return False
    return True
