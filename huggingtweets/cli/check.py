"""`huggingtweets check`: what a training would be like, before it starts."""

import argparse

from huggingtweets.cli.base import Commands, composed
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.logs import exit_code_of


def add(commands: Commands) -> None:
    """Describe the command line of `check`."""
    parser = commands.add_parser("check", help="what a training would be like, before it starts")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as given to train.py")
    parser.set_defaults(run=_run_check)


def _run_check(args: argparse.Namespace) -> int:
    from huggingtweets.config.plan import make_plan
    from huggingtweets.jobs.check import check_job, describe
    from huggingtweets.jobs.selection import select_jobs
    from huggingtweets.tweets.sources.load import check_source

    config = composed(args.overrides)
    check_source(config.source)
    codes = [0]
    for job in select_jobs(config.user, config.shard, config.job_index, config.source):
        try:
            make_plan(config, job)
            check = check_job(config, job)
        except HuggingtweetsError as err:
            codes.append(exit_code_of(err))
            continue
        print("\n".join(describe(check)), flush=True)
        codes.append(1 if check.problem else 0)
    return max(codes)
