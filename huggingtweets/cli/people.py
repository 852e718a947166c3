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
    from huggingtweets.people.found_jobs import FoundJob, pages_of, repositories_of
    from huggingtweets.people.purge import plan_purge, purge
    from huggingtweets.people.traces import traces_lines
    from huggingtweets.posts.asking import ask_yes, is_somebody_there
    from huggingtweets.tracking.wandb_purge import delete_online

    handle = parse_handle(args.handle)
    traces = plan_purge(handle, args.outputs, args.posts)
    slug = Job.of([handle]).slug
    jobs = traces.jobs or (FoundJob(args.outputs / slug, slug, frozenset(), None),)
    repositories = sorted({one for job in jobs for one in repositories_of(job)}, key=str)
    runs = sorted({(*job.tracking, job.slug, tuple(pages_of(job))) for job in jobs}, key=str)
    say(f"@{handle}: to be deleted", *traces_lines(traces))
    on_hub = [f"{org}/{name}" if org else name for org, name in repositories]
    at_wandb = [word for *_, name, pages in runs for word in pages or [name]]
    for option, is_wanted, found in (("wandb", args.wandb, at_wandb), ("hub", args.hub, on_hub)):
        for address in found:
            if is_wanted:
                say(f"  {option:7} {address}")
            elif "/" in address:
                say(f"  stays   {address}, whose record goes; --{option} deletes it too")
    if traces.is_empty and not (args.wandb or args.hub):
        is_all = not (traces.links or traces.unread)
        say("  nothing found" if is_all else "  nothing found in what could be looked into")
        return 0
    if not args.yes and not (is_somebody_there() and ask_yes("Delete all this for good?")):
        say("nothing was deleted; the same command with --yes does it")
        return 0

    def elsewhere() -> int:
        num = 0
        if args.hub:
            from huggingtweets.publishing.upload import delete_repositories  # heavy

            num = len(delete_repositories(repositories))
        return num + (delete_online(runs) if args.wandb else 0)

    say(f"deleted; recorded without names in {purge(traces, elsewhere=elsewhere)}")
    say(f"`huggingtweets optout {handle}` keeps it so")
    return 0
