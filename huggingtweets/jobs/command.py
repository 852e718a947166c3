"""The command that a batch was started with, kept so that `status` can name the next one."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from huggingtweets.files import remove_drafts, write_text
from huggingtweets.jobs.ledger import LEDGER_DIR

DRAFT_IDLE_S = 60.0
"""A small file is written within a fraction of a second."""
_NOT_KEPT = ("shard=", "job_index=", "only_curable=", "retry_failed=")


def keep_command(output_dir: Path, arguments: Sequence[str]) -> None:
    """Keep a command in the ledger's folder; what differs from task to task is left out.

    What killed writers left half-written of a batch's own files goes.
    """
    words = [word for word in arguments if not word.startswith(_NOT_KEPT)]
    with suppress(OSError):  # no job depends on it
        path = output_dir / LEDGER_DIR / "command.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (output_dir, path.parent):  # other shards write there too
            remove_drafts(folder, idle_s=DRAFT_IDLE_S)
        write_text(path, shlex.join(["huggingtweets", "train", *words]) + "\n")


def read_command(output_dir: Path) -> str:
    """Return the command, or nothing."""
    try:
        return (output_dir / LEDGER_DIR / "command.txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
