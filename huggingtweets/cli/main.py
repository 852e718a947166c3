"""Find the subcommand and run it: the modules beside this one describe them and name what runs."""

import argparse
import difflib
import platform
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from huggingtweets.causes import exit_code_for
from huggingtweets.cli import (
    check,
    compare,
    export,
    models,
    people,
    serve,
    setup,
    status,
    submit,
    sweep,
)
from huggingtweets.cli.base import Commands
from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.logs import USAGE_ERROR, say, shown


def _add_train(commands: Commands) -> None:
    """Describe the command line of `train`. Its arguments are Hydra's: see `parse`."""
    parser = commands.add_parser("train", help="train a model per person; `train --help` explains")
    parser.set_defaults(run=_run_train)


def _run_train(args: argparse.Namespace) -> int:
    """Train in this process, as `python train.py` does."""
    from huggingtweets import train  # takes over the signals

    sys.argv = ["huggingtweets train", *args.words]
    return train.main()


COMMANDS: tuple[Callable[[Commands], None], ...] = (
    setup.add_init,
    people.add_import,
    check.add,
    _add_train,
    people.add_optout,
    people.add_purge,
    status.add,
    sweep.add,
    compare.add,
    serve.add,
    export.add,
    submit.add,
    setup.add_prefetch,
    setup.add_doctor,
    models.add_generate,
    models.add_evaluate,
    models.add_attribute,
)
"""In the order in which `--help` lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = parse(argv)
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 0
    # An OSError: a full or broken disk, an argument that nobody can open.
    except (HuggingtweetsError, OSError) as err:
        return exit_code_for(argv[0] if argv else "", err)
    except KeyboardInterrupt:
        return 130


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read a command line; `run` of what is returned does what it asks for."""
    parser: argparse.ArgumentParser = _Parser(
        "huggingtweets",
        description="One language model per person: train, look after, use.",
    )
    parser.add_argument("--version", action=_Version)
    parser.set_defaults(takes_more="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    if not argv:
        parser.print_help(sys.stderr)
        parser.exit(USAGE_ERROR)
    if argv[0] == "train":
        return argparse.Namespace(run=_run_train, words=argv[1:])
    if not argv[0].startswith("-") and argv[0] not in commands.choices:
        near = difflib.get_close_matches(argv[0], commands.choices, n=1)
        raise ConfigError(
            f"command: got {argv[0]!r}; expected one of {', '.join(commands.choices)}"
            + (f"; did you mean {near[0]}?" if near else "; see huggingtweets --help")
        )
    args, rest = parser.parse_known_args(argv)
    if rest and (not args.takes_more or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse takes no further words of a list behind an option
        getattr(args, args.takes_more).extend(rest)
    return args


class _Parser(argparse.ArgumentParser):
    """Refuses words that a shell found in a hostile folder without letting them act."""

    def error(self, message: str) -> NoReturn:
        super().error(shown(message))


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and leave")

    def __call__(self, *_: object) -> None:
        from importlib.metadata import version

        say(f"huggingtweets {version('huggingtweets')}, Python {platform.python_version()}")
        sys.exit(0)
