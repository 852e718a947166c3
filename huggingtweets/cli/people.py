"""`huggingtweets import`, `optout` and `purge`: people's posts kept, refused, forgotten."""

import argparse
from pathlib import Path

from huggingtweets.cli.base import Commands, composed
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.logs import exit_code_of, say


def add_import(commands: Commands) -> None:
    """Describe the command line of `import`."""
    parser = commands.add_parser("import", help="keep people's posts in a folder, newer ones added")
    parser.add_argument("source", help="as in source=: bluesky, mastodon, x_api, x_archive, ...")
    parser.add_argument(
        "handles", nargs="+", metavar="HANDLE", help="people; also overrides, as source.path=FILE"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="one file per person")
    parser.set_defaults(run=_run_import, takes_more="handles")


def _run_import(args: argparse.Namespace) -> int:
    from huggingtweets.handles import parse_handle
    from huggingtweets.people.import_posts import import_posts
    from huggingtweets.posts.sources.load import check_source

    overrides = [word for word in args.handles if "=" in word]
    handles = [parse_handle(word) for word in args.handles if "=" not in word]
    config = composed([f"source={args.source}", *overrides])
    check_source(config.source)
    codes = [0]
    for handle in dict.fromkeys(handles):
        try:
            done = import_posts(config.source, handle, args.to, optout_file=config.optout_file)
        except HuggingtweetsError as err:
            codes.append(exit_code_of(err))
            continue
        for note in done.notes:
            say(f"  {note}")
        say(f"@{handle}: {done.num_new} new posts, {done.num_before} before: {done.path}")
    return max(codes)


def add_optout(commands: Commands) -> None:
    """Describe the command line of `optout`."""
    parser = commands.add_parser("optout", help="put people on the list of those without a model")
    parser.add_argument("handles", nargs="+", metavar="HANDLE", help="people")
    parser.add_argument("--file", metavar="PATH", help="the list; as optout_file= of train")
    parser.set_defaults(run=_run_optout, takes_more="handles")


def _run_optout(args: argparse.Namespace) -> int:
    from huggingtweets.handles import parse_handle
    from huggingtweets.posts import optout

    for handle in map(parse_handle, args.handles):
        say(f"@{handle} is on the list: {optout.add_optout(handle, args.file)}")
    return 0


def add_purge(commands: Commands) -> None:
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
    from huggingtweets.people.purge import plan_purge, purge
    from huggingtweets.people.traces import traces_lines
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
