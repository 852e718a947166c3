"""Find what somebody means by a path, and say at once what is there instead, or what is missing."""

import difflib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from huggingtweets.errors import ConfigError
from huggingtweets.storage.paths import JobPaths

NUM_NAMED = 8
"""Most models of a batch that an error names."""
_MARKS = ("config.json", "adapter_config.json")
"""A folder with one of these is a model."""


def find_model_dir(path: Path) -> Path:
    """Return the model folder that a path means: itself, or that of the job's folder.

    Raises:
        ConfigError: it is neither; the sentence names the models that lie there or nearby.
    """
    for folder in (JobPaths(path).model, path):
        if _is_model(folder):
            return folder
    wanted = "expected a model folder, or the job's folder around it"
    if path.is_dir():
        found = sorted(_jobs_in(path))
        if not found:
            raise ConfigError(f"model: got {path}, which holds no model; {wanted}; check the path")
        named = ", ".join(str(path / name) for name in found[:NUM_NAMED])
        more = f" and {len(found) - NUM_NAMED} more" if len(found) > NUM_NAMED else ""
        raise ConfigError(
            f"model: got {path}, which holds {len(found)} "
            f"{'job' if len(found) == 1 else 'jobs'}; {wanted}; name one of {named}{more}"
        )
    siblings = sorted(_jobs_in(path.parent))
    near = difflib.get_close_matches(path.name, siblings, n=1)
    raise ConfigError(
        f"model: got {path}, which is not a folder; {wanted}; "
        + (f"did you mean {path.parent / near[0]}?" if near else "check the path")
    )


def check_output_dir(command: str, folder: Path) -> None:
    """Refuse what can hold no jobs.

    Raises:
        ConfigError: it is no folder.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{command}: got {folder}, which is not a folder; expected the output_dir of a run; "
            "check the path"
        )


def check_out_file(option: str, path: Path) -> Path:
    """Return where a file that a command was told to write goes: through a link, to its target.

    Raises:
        ConfigError: what lies there is no plain file, or what lies above it no folder.
    """
    if path.exists() and not path.is_file():  # else moved out of the way of a file of ours
        got = "a folder" if path.is_dir() else "a pipe or a device"
        raise ConfigError(f"{path}: got {got}; expected a file; name one with {option}")
    target = Path(os.path.realpath(path))
    above = next(folder for folder in target.parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"{above}: got a file; expected a folder; name another with {option}")
    return target


def check_package(where: str, package: str, extra: str) -> None:
    """Refuse what needs a package that is not there, without importing it.

    Raises:
        ConfigError: with the extra of ours that brings it.
    """
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{where}: the package {package} is not installed; run "
            f"pip install 'huggingtweets[{extra}]'"
        )


def _jobs_in(folder: Path) -> Iterator[str]:
    """Names of the job folders that hold a model."""
    with suppress(OSError):  # no folder, or not ours to list
        for entry in folder.iterdir():
            if _is_model(JobPaths(entry).model):
                yield entry.name


def _is_model(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in _MARKS)
