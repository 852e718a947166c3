"""`huggingtweets optout`: the list of people without a model."""

import argparse

from huggingtweets.cli.base import Commands
from huggingtweets.logs import say


def add(commands: Commands) -> None:
    """Describe the command line of `optout`."""
    parser = commands.add_parser("optout", help="put people on the list of those without a model")
    parser.add_argument("handles", nargs="+", metavar="HANDLE", help="people")
    parser.add_argument("--file", metavar="PATH", help="the list; as optout_file= of train.py")
    parser.set_defaults(run=_run_optout)


def _run_optout(args: argparse.Namespace) -> int:
    from huggingtweets.handles import parse_handle
    from huggingtweets.posts.optout import add_optout

    for handle in map(parse_handle, args.handles):
        say(f"@{handle} is on the list: {add_optout(handle, args.file)}")
    return 0
