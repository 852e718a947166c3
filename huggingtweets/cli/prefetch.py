"""`huggingtweets prefetch`: fetch the base model."""

import argparse

from huggingtweets.cli.base import Commands, composed


def add(commands: Commands) -> None:
    """Describe the command line of `prefetch`."""
    parser = commands.add_parser("prefetch", help="fetch the base model, for nodes without network")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="model=... or model.path="
    )
    parser.set_defaults(run=_run_prefetch)


def _run_prefetch(args: argparse.Namespace) -> int:
    from huggingtweets.jobs.prefetch import prefetch

    config = composed(args.overrides)
    print(f"{config.model.path or 'tiny'}: {prefetch(config.model)}")
    print("with HF_HUB_OFFLINE=1 it is trained without a network; `huggingtweets submit` sets it")
    return 0
