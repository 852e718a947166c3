"""`huggingtweets import`: keep people's posts in a folder."""

import argparse
from pathlib import Path

from huggingtweets.cli.base import Commands, composed
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.logs import exit_code_of, say


def add(commands: Commands) -> None:
    """Describe the command line of `import`."""
    parser = commands.add_parser("import", help="keep people's posts in a folder, newer ones added")
    parser.add_argument("source", help="as in source=: bluesky, mastodon, x_api, x_archive, ...")
    parser.add_argument(
        "handles", nargs="+", metavar="HANDLE", help="people; also overrides, as source.path=FILE"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="one file per person")
    # argparse takes no further words after an option; people write overrides last.
    parser.set_defaults(run=_run_import, takes_more=True)


def _run_import(args: argparse.Namespace) -> int:
    from huggingtweets.handles import parse_handle
    from huggingtweets.jobs.import_posts import import_posts
    from huggingtweets.posts.sources.load import check_source

    words = [*args.handles, *args.more]
    overrides = [word for word in words if "=" in word]
    handles = [parse_handle(word) for word in words if "=" not in word]
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
