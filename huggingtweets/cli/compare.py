"""`huggingtweets compare`: two or more trainings of the same people."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from huggingtweets.cli.base import Commands, show
from huggingtweets.logs import say
from huggingtweets.storage.places import check_out_file


def add(commands: Commands) -> None:
    """Describe the command line of `compare`."""
    parser = commands.add_parser("compare", help="hold trainings of the same people side by side")
    parser.add_argument(
        "folders", nargs="+", metavar="DIR",
        help="output folders; that of a grid or of a sweep stands for its settings",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write an HTML page")
    parser.add_argument(
        "--quick", action="store_true", help="score no posts: no intervals person by person"
    )
    parser.set_defaults(run=_run, takes_more="folders")


def _run(args: argparse.Namespace) -> int:
    from huggingtweets.compare.comparison import compare
    from huggingtweets.compare.settings import read_settings
    from huggingtweets.compare.table import build_comparison, write_page

    page = args.page and check_out_file("--page", args.page)
    folders = [Path(folder) for folder in args.folders]
    settings = read_settings(folders)
    score = None
    if not args.quick:
        from huggingtweets.compare.scores import score_person  # heavy: loads models

        score = score_person
    found = compare(settings, score)
    if page:
        title = " and ".join(folder.resolve().name for folder in folders)
        write_page(page, found, settings, title)
    if args.json:
        say(json.dumps(asdict(found)))
    else:
        show(build_comparison(found))
    return 0
