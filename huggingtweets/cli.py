"""The `huggingtweets` command. A subcommand is one `_add_...` function, which names what runs."""

import argparse
import difflib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.logs import exit_code_of

if TYPE_CHECKING:
    from rich.console import RenderableType

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What argparse returns for subcommands; it has no public name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _parse(argv)
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except HuggingtweetsError as err:
        return exit_code_of(err)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "huggingtweets", description="Look after models trained with train.py."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    if argv and not argv[0].startswith("-") and argv[0] not in commands.choices:
        near = difflib.get_close_matches(argv[0], commands.choices, n=1)
        raise ConfigError(
            f"command: got {argv[0]!r}; expected one of {', '.join(commands.choices)}"
            + (f"; did you mean {near[0]}?" if near else "; see huggingtweets --help")
        )
    return parser.parse_args(argv)


def _add_status(commands: Commands) -> None:
    parser = commands.add_parser("status", help="how the jobs of an output folder stand")
    parser.add_argument("output_dir", type=Path, help="what train.py was given as output_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.add_argument("--watch", action="store_true", help="show it again until all is done")
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="how often --watch looks (5)"
    )
    parser.set_defaults(run=_run_status)


def _run_status(args: argparse.Namespace) -> int:
    from huggingtweets.jobs.ledger import JobStatus
    from huggingtweets.jobs.status import as_json, read_states, summarise
    from huggingtweets.jobs.status_table import build_status

    folder: Path = args.output_dir
    if not folder.is_dir():
        raise ConfigError(
            f"status: got {folder}, which is no folder; expected the output_dir of a run; "
            "check the path"
        )
    while True:
        states = read_states(folder)
        if args.json:
            print(json.dumps(as_json(states)), flush=True)
        else:
            _show(build_status(folder, states), clear=args.watch)
        counts = summarise(states.values()).counts
        if not args.watch or not (counts[JobStatus.queued] or counts[JobStatus.running]):
            return 0
        time.sleep(max(0.1, args.every))


def _show(view: "RenderableType", *, clear: bool = False) -> None:
    """Print for people: coloured on a terminal, plain and wide elsewhere."""
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if clear and console.is_terminal:
        console.clear()
    console.print(view)


def _add_doctor(commands: Commands) -> None:
    parser = commands.add_parser("doctor", help="what this machine has, and what it lacks")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(args: argparse.Namespace) -> int:
    from huggingtweets.doctor import build_findings, examine

    findings = examine()
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        _show(build_findings(findings))
    return 1 if any(finding.is_fatal for finding in findings) else 0


_COMMANDS: tuple[Callable[[Commands], None], ...] = (_add_status, _add_doctor)


if __name__ == "__main__":
    sys.exit(main())
