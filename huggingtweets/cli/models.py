"""`huggingtweets generate`, `evaluate` and `attribute`: use and measure trained models."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from huggingtweets.cli.base import Commands, show
from huggingtweets.errors import ConfigError
from huggingtweets.logs import say
from huggingtweets.storage.places import find_model_dir

if TYPE_CHECKING:
    from huggingtweets.config.results_schema import SamplingConfig


def add_generate(commands: Commands) -> None:
    """Describe the command line of `generate`."""
    parser = commands.add_parser("generate", help="write posts with a trained model")
    parser.add_argument("model_dir", type=Path, help="a model folder, or its job's folder")
    parser.add_argument("prompts", nargs="*", help="how posts begin (those of sampling=default)")
    _add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per post")
    parser.set_defaults(run=_run_generate, takes_more="prompts")


def _run_generate(args: argparse.Namespace) -> int:
    config = _sampling_of(args, args.prompts)
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


def add_evaluate(commands: Commands) -> None:
    """Describe the command line of `evaluate`."""
    parser = commands.add_parser("evaluate", help="measure a trained model on posts it never saw")
    parser.add_argument("model_dir", type=Path, help="a model folder, or its job's folder")
    parser.add_argument("--posts", type=Path, required=True, help="a file of posts")
    parser.add_argument("--user", help="whose posts of the file (default: the file's name)")
    _add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> int:
    config = _sampling_of(args, ())
    find_model_dir(args.model_dir)
    from huggingtweets.model_folder import evaluate_folder

    user = args.user or args.posts.name.partition(".")[0]
    found = evaluate_folder(args.model_dir, args.posts, user=user, config=config, seed=args.seed)
    if args.json:
        say(json.dumps(asdict(found)))
        return 0
    from huggingtweets.publishing.pages import build_table
    from huggingtweets.publishing.quality import quality_tables

    interval = found.quality.model.bits_per_byte
    assert interval is not None
    say(
        f"{found.num_posts} posts, {found.num_trained} more were trained on; bits per byte "
        f"{found.bits_per_byte:.3f} ({interval.low:.3f} to {interval.high:.3f})"
    )
    for table in quality_tables(found.quality, {}):
        show(build_table(table.title, table.columns, table.rows))
    return 0


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
        say(f"{slug}: {_share(samples)} of its samples, {_share(heldout)} of the held-out posts")
    say(
        f"all: {_share(found.samples_frac)} of the samples, {_share(found.heldout_frac)} of the "
        f"held-out posts are attributed to their own voice; by chance {found.chance:.1%}"
    )
    return 0


def _share(value: float | None) -> str:
    return "? (there are none)" if value is None else f"{value:.1%}"


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add the options of sampling."""
    parser.add_argument("-n", "--num", type=int, default=10, help="posts per prompt (10)")
    parser.add_argument("--seed", type=int, default=42, help="the same seed, the same posts (42)")
    parser.add_argument("--temperature", type=float, default=1.0, help="above 1: wilder (1.0)")
    parser.add_argument("--top-p", type=float, default=0.95, help="share of likely words (0.95)")
    parser.add_argument("--max-chars", type=int, metavar="CHARS",
                        help="of a post; 0: any (as long as the person's own posts)")  # fmt: skip
    parser.add_argument("--block-copies", type=int, metavar="WORDS",
                        help="draw again what copies more training words in a row; 0: never "
                             "(generate: as the job, if its training posts are there)")  # fmt: skip
    parser.add_argument("--ban", action="append", default=[], metavar="WORD",
                        help="draw again what has this word; may be repeated")  # fmt: skip
    parser.add_argument("--best-of", type=int, default=1, help="keep the likeliest of N (1)")


def _sampling_of(args: argparse.Namespace, prompts: Sequence[str]) -> "SamplingConfig":
    """Return the settings that were given.

    Raises:
        ConfigError: one of them is out of its range.
    """
    from huggingtweets.config.results_schema import DEFAULT_PROMPTS, SamplingConfig

    try:
        return SamplingConfig(
            num=args.num,
            prompts=list(prompts or DEFAULT_PROMPTS),
            temperature=args.temperature,
            top_p=args.top_p,
            max_chars="auto" if args.max_chars is None else args.max_chars,
            block_copies=args.block_copies or 0,
            banned_words=args.ban,
            best_of=args.best_of,
        )
    except ValueError as err:
        raise ConfigError(str(err)) from err
