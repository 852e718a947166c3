"""`huggingtweets submit`: train many people as a SLURM array."""

import argparse
from pathlib import Path

from huggingtweets.cli.base import Commands
from huggingtweets.cli.status import follow
from huggingtweets.logs import say, setup_logging


def add(commands: Commands) -> None:
    """Describe the command line of `submit`."""
    parser = commands.add_parser("submit", help="train many people as a SLURM array")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as given to train")
    parser.add_argument(
        "--tasks", type=int, metavar="N", help="of the array (by the work: an hour)"
    )
    parser.add_argument("--at-once", type=int, metavar="N", help="most tasks at the same time")
    parser.add_argument("--gpus-per-node", type=int, metavar="N", help="of each task (1)")
    parser.add_argument("--nodes", type=int, metavar="N", help="no array: all nodes share each job")
    parser.add_argument("--launch", type=Path, metavar="FILE", help="of launch/, for --nodes")
    parser.add_argument("--time", help="limit of a task, as for sbatch")
    parser.add_argument("--partition", help="as for sbatch")
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION",
                        help="any other, as --sbatch=--account=lab; may be repeated")  # fmt: skip
    parser.add_argument("--no-retry", action="store_true",
                        help="no last job that tries again what a rerun may cure")  # fmt: skip
    parser.add_argument("--watch", action="store_true", help="then follow until all is done")
    parser.add_argument("--dry-run", action="store_true", help="only show the commands")
    parser.set_defaults(run=_run_submit, takes_more="overrides")


def _run_submit(args: argparse.Namespace) -> int:
    from huggingtweets.jobs.submit import Wishes, plan_submission, submit

    setup_logging()
    named = {"--time": args.time, "--partition": args.partition}
    options = [f"{name}={value}" for name, value in named.items() if value] + args.sbatch
    wishes = Wishes(
        tasks=args.tasks,
        at_once=args.at_once,
        gpus_per_node=args.gpus_per_node,
        nodes=args.nodes,
        launch=args.launch,
        options=options,
        retry=not args.no_retry,
    )
    submission = plan_submission(args.overrides, wishes)
    say(f"jobs    {submission.size}")
    if not submission.num_jobs:
        return 0
    for hint in submission.hints:
        say(f"note    {hint}")
    if args.dry_run:
        say(*submission.shown())
        return 0
    numbers = submit(submission)
    say(f"queued  {', then '.join(numbers)}")
    say(f"logs    {submission.logs}")
    say(f"follow  huggingtweets status {submission.output_dir} --watch; squeue -j {numbers[0]}")
    if args.watch:
        return follow(submission.output_dir, watch=True)
    return 0
