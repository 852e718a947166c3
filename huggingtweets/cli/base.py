"""What the subcommands share: how overrides become a configuration, how tables are shown."""

import argparse
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from huggingtweets.logs import make_console, say, setup_logging

if TYPE_CHECKING:
    from rich.console import RenderableType

    from huggingtweets.config.schema import TrainConfig

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What argparse returns for subcommands; it has no public name."""
PIPE_WIDTH = 400
"""Columns where nothing says how many there are: a reason stays on one line."""


def composed(overrides: Sequence[str]) -> "TrainConfig":
    """Compose what `train.py` would run with these overrides; start the log.

    Raises:
        ConfigError: an override is unknown, misspelt or out of range.
    """
    from huggingtweets.config.compose import read_config
    from huggingtweets.jobs.selection import quote_user

    setup_logging()
    return read_config(quote_user(overrides))


def show(view: "RenderableType", *, clear: bool = False) -> None:
    """Print for people: coloured and as wide as the terminal; plain and unpadded elsewhere."""
    if sys.stdout.isatty():
        console = make_console(highlight=False)
        if clear:
            console.clear()
        console.print(view)
        return
    console = make_console(highlight=False, width=PIPE_WIDTH, file=io.StringIO())
    with console.capture() as captured:
        console.print(view)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))
