"""Recipes on a real base: one command that goes on where it ended.

    make real-base && python benchmarks/quality.py real
    python benchmarks/quality.py real --small --steps rates all
    python benchmarks/quality.py real --report --plots docs

Every finished run is a line of `build/quality-real/rows.jsonl`; its recipe is kept with it, and a
row of a recipe that has changed since is trained again. Rows that lie beside this file are taken as
done; `--afresh` trains them too. Needs the extras `gguf` and `lora`.
"""

import argparse
import logging
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from quality_real import plan
from quality_real.plots import write_plots
from quality_real.rows import Rows
from quality_real.tables import report
from quality_real.work import Workshop, recipe_of

ROOT = Path(__file__).parents[2]
PUBLISHED = Path(__file__).parent / "rows.jsonl"
MAX_TOGETHER = 8
logger = logging.getLogger("quality_real")


def work_off(
    rows: Rows,
    workshop: Workshop,
    groups: Iterable[list[plan.Run]],
    *,
    until: float,
    together: int = MAX_TOGETHER,
) -> bool:
    """Do what is missing, group by group; False: the time was up before all was done.

    Args:
        rows: take what is found.
        workshop: trains.
        groups: of runs, see `plan.groups`.
        until: nothing is begun after this, by `time.time`.
        together: accounts that are trained side by side; what ends with them is kept.
    """
    for group in groups:
        while missing := rows.missing(group)[:together]:
            if time.time() > until:
                return False
            logger.info("%s: %s, %d accounts", missing[0].step, missing[0].setting, len(missing))
            for run, found in workshop.do(missing):
                rows.add(run, found)
            if again := rows.missing(missing):
                raise SystemExit(f"{again[0]}: could not be trained; the log says why")
    return True


def main(words: Sequence[str]) -> None:
    """Do what the command line asks for, and print all tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(
        "quality.py real", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "quality-real")
    parser.add_argument("--steps", nargs="*", default=[*plan.STEPS], choices=[*plan.STEPS])
    parser.add_argument("--small", action="store_true", help="fewer posts: prunes in minutes")
    parser.add_argument("--accounts", type=int, default=8, help="of each list, its first ones")
    parser.add_argument("--together", type=int, default=MAX_TOGETHER, help="accounts at once")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin nothing after these")
    parser.add_argument("--afresh", action="store_true", help="train what is published as well")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--plots", type=Path, help="write the pictures into this folder")
    options = parser.parse_args(words)
    design = plan.first_accounts(plan.SMALL if options.small else plan.Design(), options.accounts)
    folder = options.folder / "small" if options.small else options.folder
    published = None if options.afresh or options.small else PUBLISHED
    rows = Rows(folder / "rows.jsonl", recipe_of, published)
    workshop = Workshop(design, options.shared, folder)
    if not options.report:
        until = time.time() + 60 * options.minutes
        groups = plan.groups(rows, design, options.steps)
        if not work_off(rows, workshop, groups, until=until, together=options.together):
            print("The time is up: the same command goes on.\n")
    print(report(rows, workshop, design))
    if options.plots:
        for path in write_plots(rows, options.plots):
            print(os.path.relpath(path))
