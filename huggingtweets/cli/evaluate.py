"""`huggingtweets evaluate` and `attribute`: measure trained models."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from huggingtweets.cli.base import Commands, show
from huggingtweets.cli.sampling import add_sampling, sampling_of
from huggingtweets.logs import say
from huggingtweets.places import find_model_dir

if TYPE_CHECKING:
    from huggingtweets.evaluation.figures import Quality


def add_evaluate(commands: Commands) -> None:
    """Describe the command line of `evaluate`."""
    parser = commands.add_parser("evaluate", help="measure a trained model on posts it never saw")
    parser.add_argument("model_dir", type=Path, help="a model folder, or its job's folder")
    parser.add_argument("--posts", type=Path, required=True, help="a file of posts")
    parser.add_argument("--user", help="whose posts of the file (default: the file's name)")
    add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> int:
    config = sampling_of(args, ())
    find_model_dir(args.model_dir)
    from huggingtweets.model_folder import evaluate_folder

    user = args.user or args.posts.name.partition(".")[0]
    found = evaluate_folder(args.model_dir, args.posts, user=user, config=config, seed=args.seed)
    if args.json:
        say(json.dumps(asdict(found)))
        return 0
    interval = found.quality.model.bits_per_byte
    assert interval is not None
    say(
        f"{found.num_posts} posts, {found.num_trained} more were trained on; bits per byte "
        f"{found.bits_per_byte:.3f} ({interval.low:.3f} to {interval.high:.3f})"
    )
    _show_tables(found.quality)
    return 0


def _show_tables(quality: "Quality") -> None:
    from rich.table import Table

    from huggingtweets.publishing.quality import quality_tables

    for table in quality_tables(quality, {}):
        shown = Table(*table.columns, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        show(shown)


def add_attribute(commands: Commands) -> None:
    """Describe the command line of `attribute`."""
    parser = commands.add_parser("attribute", help="whether the models of a batch keep their voice")
    parser.add_argument("output_dir", type=Path, help="the output_dir of the jobs")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_attribute)


def _run_attribute(args: argparse.Namespace) -> int:
    from huggingtweets.evaluation.attribution import measure_attribution, read_voices

    found = measure_attribution(read_voices(args.output_dir), seed=0)
    if args.json:
        say(json.dumps(asdict(found)))
        return 0
    for slug, (samples, heldout) in found.per_voice.items():
        say(f"{slug}: {samples:.1%} of its samples, {heldout:.1%} of the held-out posts")
    say(
        f"all: {found.samples_frac:.1%} of the samples, {found.heldout_frac:.1%} of the held-out "
        f"posts are attributed to their own voice; by chance {found.chance:.1%}"
    )
    return 0
