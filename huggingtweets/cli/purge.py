"""`huggingtweets purge`: forget a person."""

import argparse
from pathlib import Path

from huggingtweets.cli.base import Commands
from huggingtweets.logs import say


def add(commands: Commands) -> None:
    """Describe the command line of `purge`."""
    parser = commands.add_parser("purge", help="forget a person: posts, models, all traces")
    parser.add_argument("handle", metavar="HANDLE", help="the person")
    parser.add_argument(
        "--outputs", type=Path, required=True, metavar="DIR", help="output_dir of the jobs"
    )
    parser.add_argument("--posts", type=Path, metavar="DIR", help="also in this folder of posts")
    parser.add_argument("--wandb", action="store_true", help="also runs and artifacts at W&B")
    parser.add_argument("--hub", action="store_true", help="also the repositories on the Hub")
    parser.add_argument("--yes", action="store_true", help="delete; without it, only show what")
    parser.set_defaults(run=_run_purge)


def _run_purge(args: argparse.Namespace) -> int:
    from huggingtweets.handles import Job, parse_handle
    from huggingtweets.jobs.purge import plan_purge, purge
    from huggingtweets.jobs.traces import traces_lines
    from huggingtweets.posts.asking import ask_yes, is_somebody_there
    from huggingtweets.publishing.hub import delete_repositories
    from huggingtweets.tracking.wandb_purge import delete_online

    handle = parse_handle(args.handle)
    traces = plan_purge(handle, args.outputs, args.posts)
    online = {(*job.tracking, job.org, job.slug) for job in traces.jobs}
    online = online or {(None, "huggingtweets", None, Job.of([handle]).slug)}
    say(f"@{handle}: to be deleted", *traces_lines(traces))
    for is_wanted, place in ((args.wandb, "W&B"), (args.hub, "Hub")):
        if is_wanted:
            say(*(f"  {place:7} {slug}" for *_, slug in sorted(online, key=str)))
    if traces.is_empty and not (args.wandb or args.hub):
        say("  nothing found")
        return 0
    if not args.yes and not (is_somebody_there() and ask_yes("Delete all this for good?")):
        say("nothing was deleted; the same command with --yes does it")
        return 0
    num_online = 0
    if args.hub:
        num_online += len(delete_repositories([(org, slug) for *_, org, slug in online]))
    if args.wandb:
        num_online += delete_online(
            [(entity, project, slug) for entity, project, _, slug in online]
        )
    say(f"deleted; recorded without names in {purge(traces, num_online=num_online)}")
    say(f"`huggingtweets optout {handle}` keeps it so")
    return 0
