"""`huggingtweets sweep`: search hyperparameters, and look on."""

import argparse
import json
from pathlib import Path

from huggingtweets import attempt
from huggingtweets.causes import exit_code_for
from huggingtweets.cli.base import Commands, show
from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.logs import say, setup_logging
from huggingtweets.storage.paths import template
from huggingtweets.storage.places import check_package


def add(commands: Commands) -> None:
    """Describe the command line of `sweep`."""
    parser = commands.add_parser(
        "sweep", help="search hyperparameters; `sweep status DIR` looks on"
    )
    parser.add_argument("file", metavar="FILE", help="a sweep file, or `status`")
    parser.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE",
        help="as given to train; sweep.KEY=VALUE changes the file's own settings; or DIR",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="of `status`: one JSON object")
    parser.set_defaults(run=_run_sweep, takes_more="arguments")


def _run_sweep(args: argparse.Namespace) -> int:
    if args.file == "status":
        return _run_sweep_status(args)
    try:
        code = _search(args)
    except (HuggingtweetsError, OSError) as err:
        code = exit_code_for("sweep", err)
    return attempt.tell_exit(code)


def _search(args: argparse.Namespace) -> int:
    from huggingtweets.training import stopping

    stopping.install()
    attempt.watch(stopping.request_stop)
    from huggingtweets.sweep.plan import check_alone, plan_sweep
    from huggingtweets.sweep.spec import read_spec

    check_package("sweep", "optuna", "sweep")
    setup_logging()
    path = template(args.file)
    check_alone(args.file, args.arguments)
    sweep = plan_sweep(read_spec(path, args.arguments), path)
    from huggingtweets.sweep.run import run_sweep  # heavy: only for a sweep that is accepted

    code = run_sweep(sweep)
    _print_sweep(sweep.root)
    _compare_with_default(sweep.root)
    return code


def _compare_with_default(root: Path) -> None:
    """Show what the search won over the settings as they stand, person by person."""
    from huggingtweets.compare.comparison import compare
    from huggingtweets.compare.settings import read_settings
    from huggingtweets.compare.table import build_comparison, write_page

    try:
        settings = read_settings([root])
        found = compare(settings, None)
    except ConfigError:  # nothing ran whole, or the default is the best: said above
        return
    write_page(root / "compare.html", found, settings, root.resolve().name)
    show(build_comparison(found))


def _run_sweep_status(args: argparse.Namespace) -> int:
    check_package("sweep", "optuna", "sweep")
    if len(args.arguments) != 1:
        raise ConfigError(
            f"sweep status: got {len(args.arguments)} folders; expected one; write "
            "`huggingtweets sweep status DIR`"
        )
    _print_sweep(Path(args.arguments[0]), as_json=args.json)
    return 0


def _print_sweep(folder: Path, *, as_json: bool = False) -> None:
    from huggingtweets.sweep.status import build_sweep_status, read_sweep, sweep_as_json

    description, summary = read_sweep(folder)
    if as_json:
        say(json.dumps(sweep_as_json(folder, description, summary)))
    else:
        show(build_sweep_status(folder, description, summary))
