"""The options that `generate` and `evaluate` share."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from huggingtweets.errors import ConfigError

if TYPE_CHECKING:
    from huggingtweets.config.schema import SamplingConfig


def add_sampling(parser: argparse.ArgumentParser) -> None:
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


def sampling_of(args: argparse.Namespace, prompts: Sequence[str]) -> "SamplingConfig":
    """Return the settings that were given.

    Raises:
        ConfigError: one of them is out of its range.
    """
    from huggingtweets.config.schema import DEFAULT_PROMPTS, SamplingConfig

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
