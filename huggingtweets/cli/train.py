"""`huggingtweets train`: train.py, from any folder."""

import argparse
import sys

from huggingtweets.cli.base import Commands


def add(commands: Commands) -> None:
    """Describe the command line of `train`. Its arguments are Hydra's: see `main.parse`."""
    parser = commands.add_parser("train", help="train a model per person; `train --help` explains")
    parser.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> int:
    """Train in this process, as `python train.py` does."""
    from huggingtweets import train  # takes over the signals

    sys.argv = ["huggingtweets train", *args.words]
    return train.main()
