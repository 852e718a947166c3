"""`huggingtweets check`: what a training would be like, before it starts."""

import argparse

from huggingtweets.cli.base import Commands, composed
from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.logs import exit_code_of, redact, say


def add(commands: Commands) -> None:
    """Describe the command line of `check`."""
    parser = commands.add_parser("check", help="what a training would be like, before it starts")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as given to train")
    parser.add_argument(
        "--show", action="store_true", help="all there is to say of each person, not a line each"
    )
    parser.set_defaults(run=_run_check, takes_more="overrides")


def _run_check(args: argparse.Namespace) -> int:
    from huggingtweets.config.plan import make_plan
    from huggingtweets.jobs.selection import select_jobs
    from huggingtweets.people.check import check_job, describe, table_lines
    from huggingtweets.posts.sources.load import check_source

    config = composed(args.overrides)
    check_source(config.source)
    jobs = select_jobs(config.user, config.shard, config.job_index, config.source)
    is_table = len(jobs) > 1 and not args.show
    codes, checks, refused = [0], [], {}
    for job in jobs:
        try:
            make_plan(config, job)
            check = check_job(config, job)
        except HuggingtweetsError as err:
            if is_table:
                refused[job.slug] = redact(str(err))
            is_usage = isinstance(err, ConfigError)
            codes.append((2 if is_usage else 1) if is_table else exit_code_of(err))
            continue
        checks.append(check)
        codes.append(1 if check.problem else 0)
        if not is_table:
            say(*describe(check))
    if is_table:
        say(*table_lines(checks, refused))
    return max(codes)
