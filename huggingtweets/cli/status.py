"""`huggingtweets status`: how the jobs of an output folder stand."""

import argparse
import json
import time
from pathlib import Path

from huggingtweets.cli.base import Commands, show
from huggingtweets.logs import say
from huggingtweets.storage.places import check_output_dir


def add(commands: Commands) -> None:
    """Describe the command line of `status`."""
    parser = commands.add_parser("status", help="how the jobs of an output folder stand")
    parser.add_argument("output_dir", type=Path, help="the output_dir of the jobs")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.add_argument("--watch", action="store_true", help="show it again until all is done")
    parser.add_argument(
        "--index",
        action="store_true",
        help="also write index.html and results.* again",
    )
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="how often --watch looks (5)"
    )
    parser.set_defaults(run=_run_status)


def _run_status(args: argparse.Namespace) -> int:
    folder: Path = args.output_dir
    check_output_dir("status", folder)
    if args.index:
        from huggingtweets.jobs.status import not_done, read_states
        from huggingtweets.publishing.index import write_index

        write_index(folder, not_done(read_states(folder).values()))
    return follow(folder, watch=args.watch, as_object=args.json, every_s=args.every)


def follow(
    folder: Path, *, watch: bool = False, as_object: bool = False, every_s: float = 5.0
) -> int:
    """Show how a batch stands, and what SLURM says of it.

    Args:
        folder: `output_dir` of the batch.
        watch: show it again and again until all is done.
        as_object: one JSON object, for scripts.
        every_s: seconds between two looks.
    """
    from huggingtweets.jobs.ledger import JobStatus
    from huggingtweets.jobs.slurm_word import ask_slurm
    from huggingtweets.jobs.status import as_json, build_status, read_states, summarise

    while True:
        states = read_states(folder)
        counts = summarise(states.values()).counts
        num_left = counts[JobStatus.queued] + counts[JobStatus.running]
        word = ask_slurm(folder, num_left)
        if as_object:
            said = {"slurm": word.as_json()} if word else {}
            say(json.dumps(as_json(states) | said))
        else:
            show(build_status(folder, states), clear=watch)
            if word and (lines := word.lines()):
                say(*lines)
        if not watch or not (num_left or (word and word.tasks)):
            return 0
        time.sleep(max(0.1, every_s))
