"""`huggingtweets generate`: write posts with a trained model."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from huggingtweets.cli.base import Commands
from huggingtweets.cli.sampling import add_sampling, sampling_of
from huggingtweets.logs import say
from huggingtweets.places import find_model_dir


def add(commands: Commands) -> None:
    """Describe the command line of `generate`."""
    parser = commands.add_parser("generate", help="write posts with a trained model")
    parser.add_argument("model_dir", type=Path, help="a model folder, or its job's folder")
    parser.add_argument("prompts", nargs="*", help="how posts begin (those of sampling=default)")
    add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per post")
    parser.set_defaults(run=_run_generate)


def _run_generate(args: argparse.Namespace) -> int:
    config = sampling_of(args, args.prompts)
    find_model_dir(args.model_dir)
    from huggingtweets.model_folder import generate_posts  # heavy: only for arguments that hold
    from huggingtweets.publishing.mark import marked

    samples = generate_posts(
        args.model_dir, config, seed=args.seed, is_guarded=args.block_copies is None
    )
    for one in samples.predictions:
        say(json.dumps(marked(asdict(one))) if args.json else one.prediction)
    asked = len(config.prompts) * config.num
    if len(samples.predictions) < asked:
        sys.stderr.write(
            f"{len(samples.predictions)} of {asked} posts: all that was drawn for the others was "
            f"refused ({samples.refusals}); --block-copies 0 lets copies of training posts pass\n"
        )
    elif samples.refused:
        sys.stderr.write(f"drawn again: {samples.refusals}\n")
    return 0
