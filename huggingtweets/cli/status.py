"""`huggingtweets status`: how the jobs of an output folder stand."""

import argparse
import json
import time
from pathlib import Path

from huggingtweets.cli.base import Commands, show
from huggingtweets.errors import ConfigError


def add(commands: Commands) -> None:
    """Describe the command line of `status`."""
    parser = commands.add_parser("status", help="how the jobs of an output folder stand")
    parser.add_argument("output_dir", type=Path, help="the output_dir of the jobs")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.add_argument("--watch", action="store_true", help="show it again until all is done")
    parser.add_argument(
        "--index",
        action="store_true",
        help="also write index.html and results.* anew",
    )
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="how often --watch looks (5)"
    )
    parser.set_defaults(run=_run_status)


def _run_status(args: argparse.Namespace) -> int:
    from huggingtweets.jobs.ledger import JobStatus
    from huggingtweets.jobs.status import as_json, not_done, read_states, summarise
    from huggingtweets.jobs.status_table import build_status

    folder: Path = args.output_dir
    if not folder.is_dir():
        raise ConfigError(
            f"status: got {folder}, which is no folder; expected the output_dir of a run; "
            "check the path"
        )
    if args.index:
        from huggingtweets.publishing.index import write_index

        write_index(folder, not_done(read_states(folder).values()))
    while True:
        states = read_states(folder)
        if args.json:
            print(json.dumps(as_json(states)), flush=True)
        else:
            show(build_status(folder, states), clear=args.watch)
        counts = summarise(states.values()).counts
        if not args.watch or not (counts[JobStatus.queued] or counts[JobStatus.running]):
            return 0
        time.sleep(max(0.1, args.every))
