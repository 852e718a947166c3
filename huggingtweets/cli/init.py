"""`huggingtweets init`: write the shipped settings into a folder, to be changed there."""

import argparse
import shutil
from pathlib import Path

from huggingtweets.cli.base import Commands
from huggingtweets.errors import ConfigError
from huggingtweets.logs import say
from huggingtweets.paths import shipped

FOLDERS = ("conf", "launch", "slurm")
NOT_COPIED = ("optout.txt", "__pycache__")
"""The list of people who want no model is read where it lies; a copy would be out of date."""


def add(commands: Commands) -> None:
    """Describe the command line of `init`."""
    parser = commands.add_parser("init", help="write conf/, launch/ and slurm/ for editing")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where; files there are kept")
    parser.set_defaults(run=_run_init)


def _run_init(args: argparse.Namespace) -> int:
    folder: Path = args.folder
    try:
        written, kept = _copy(folder)
    except OSError as err:
        raise ConfigError(
            f"init: {folder} cannot be written ({err.strerror}); expected a folder; choose another"
        ) from err
    say(f"{folder}: {written} files written, {kept} kept as they were")
    say(f"cd {folder}: what is called there uses these files")
    return 0


def _copy(folder: Path) -> tuple[int, int]:
    """Copy what is not there yet; return how many files were written, and how many there were."""
    written = kept = 0
    for name in FOLDERS:
        source = shipped(name)
        for path in sorted(source.rglob("*")):
            target = folder / name / path.relative_to(source)
            if path.is_dir() or not {*path.parts}.isdisjoint(NOT_COPIED):
                continue
            if target.exists():
                kept += 1
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            written += 1
    return written, kept
