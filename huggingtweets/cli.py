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

    from huggingtweets.config.schema import SamplingConfig
    from huggingtweets.evaluation.quality import Quality

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


def _add_generate(commands: Commands) -> None:
    parser = commands.add_parser("generate", help="write posts with a trained model")
    parser.add_argument("model_dir", type=Path, help="a model folder, or its job's folder")
    parser.add_argument("prompts", nargs="*", help="how posts begin (those of sampling=default)")
    _add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a post")
    parser.set_defaults(run=_run_generate)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--num", type=int, default=10, help="posts a prompt (10)")
    parser.add_argument("--seed", type=int, default=42, help="the same seed, the same posts (42)")
    parser.add_argument("--temperature", type=float, default=1.0, help="above 1: wilder (1.0)")
    parser.add_argument("--top-p", type=float, default=0.95, help="share of likely words (0.95)")
    parser.add_argument("--max-chars", type=int, default=280, help="of a post; 0: any (280)")
    parser.add_argument("--block-copies", type=int, default=0, metavar="WORDS",
                        help="draw again what copies more training words in a row")  # fmt: skip
    parser.add_argument("--ban", action="append", default=[], metavar="WORD",
                        help="draw again what has this word; may be repeated")  # fmt: skip
    parser.add_argument("--best-of", type=int, default=1, help="keep the likeliest of so many (1)")


def _sampling_of(args: argparse.Namespace, prompts: Sequence[str]) -> "SamplingConfig":
    from huggingtweets.config.schema import DEFAULT_PROMPTS, SamplingConfig

    try:
        return SamplingConfig(
            num=args.num,
            prompts=list(prompts or DEFAULT_PROMPTS),
            temperature=args.temperature,
            top_p=args.top_p,
            max_chars=args.max_chars,
            block_copies=args.block_copies,
            banned_words=args.ban,
            best_of=args.best_of,
        )
    except ValueError as err:
        raise ConfigError(str(err)) from err


def _run_generate(args: argparse.Namespace) -> int:
    config = _sampling_of(args, args.prompts)
    from huggingtweets.model_folder import generate_posts  # heavy: only for arguments that hold

    samples = generate_posts(args.model_dir, config, seed=args.seed)
    for one in samples.predictions:
        print(json.dumps(asdict(one)) if args.json else one.prediction)
    if samples.refused:
        counts = ", ".join(f"{count} {reason}" for reason, count in samples.refused.items())
        print(f"drawn again: {counts}", file=sys.stderr)
    return 0


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", help="measure a trained model on posts it never saw")
    parser.add_argument("model_dir", type=Path, help="a model folder, or its job's folder")
    parser.add_argument("--posts", type=Path, required=True, help="a file of posts")
    parser.add_argument("--user", help="whose posts of the file (default: the file's name)")
    _add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> int:
    config = _sampling_of(args, ())
    from huggingtweets.model_folder import evaluate_folder

    user = args.user or args.posts.name.partition(".")[0]
    found = evaluate_folder(args.model_dir, args.posts, user=user, config=config, seed=args.seed)
    if args.json:
        print(json.dumps(asdict(found)))
        return 0
    interval = found.quality.model.bits_per_byte
    assert interval is not None
    print(
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
        _show(shown)


def _add_attribute(commands: Commands) -> None:
    parser = commands.add_parser("attribute", help="whether the models of a batch keep their voice")
    parser.add_argument("output_dir", type=Path, help="what train.py was given as output_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_attribute)


def _run_attribute(args: argparse.Namespace) -> int:
    from huggingtweets.evaluation.attribution import measure_attribution, read_voices

    found = measure_attribution(read_voices(args.output_dir), seed=0)
    if args.json:
        print(json.dumps(asdict(found)))
        return 0
    for slug, (samples, heldout) in found.per_voice.items():
        print(f"{slug}: {samples:.1%} of its samples, {heldout:.1%} of the held-out posts")
    print(
        f"all: {found.samples_frac:.1%} of the samples, {found.heldout_frac:.1%} of the held-out "
        f"posts are attributed to their own voice; by chance {found.chance:.1%}"
    )
    return 0


_COMMANDS: tuple[Callable[[Commands], None], ...] = (
    _add_status,
    _add_doctor,
    _add_generate,
    _add_evaluate,
    _add_attribute,
)


if __name__ == "__main__":
    sys.exit(main())
