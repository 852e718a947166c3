"""Hydra's parser of the command line, made to work with Python 3.14."""

import argparse
from collections.abc import Callable
from typing import Any

import hydra.main
from hydra._internal import utils

_build = utils.get_args_parser


def get_args_parser() -> argparse.ArgumentParser:
    """Build Hydra's own parser.

    Hydra 1.3 (seen: 1.3.8) gives `--shell-completion` a help that is no text. argparse of Python
    3.14 looks for "%" in it as soon as the argument is added, and raises. This can go once Hydra
    gives a text there.
    """
    parser_class: Any = argparse.ArgumentParser
    check: Callable[..., None] | None = getattr(parser_class, "_check_help", None)
    if check is None:  # before Python 3.14
        return _build()

    def check_texts(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        if action.help is not None and not isinstance(action.help, str):
            action.help = "Install or uninstall shell completion"
        check(parser, action)

    parser_class._check_help = check_texts
    try:
        return _build()
    finally:
        parser_class._check_help = check


def mend_hydra() -> None:
    """Have `hydra.main` use this parser."""
    hydra.main.get_args_parser = get_args_parser  # type: ignore[attr-defined]
