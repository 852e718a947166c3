"""Recipes on a real base: one command that goes on where it ended.

    make real-base && python benchmarks/quality.py real
    python benchmarks/quality.py real --small --steps rates all
    python benchmarks/quality.py real --report --plots docs

Every finished run is a line of `build/quality-real/rows.jsonl`; its recipe is kept with it, and a
row of a recipe that has changed since is trained again. Needs the extras `gguf` and `lora`.
"""

import argparse
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from huggingtweets.config.compose import register
from quality_real import plan
from quality_real.plots import write_plots
from quality_real.rows import Rows
from quality_real.tables import report
from quality_real.work import Workshop, recipe_of

ROOT = Path(__file__).parents[2]
logger = logging.getLogger("quality_real")


def work_off(
    rows: Rows, workshop: Workshop, design: plan.Design, steps: Sequence[str], until: float
) -> bool:
    """Do what is missing, step by step; False: the time was up before all was done.

    Args:
        rows: take what is found.
        workshop: trains.
        design: on whom, and how much.
        steps: names, in their order.
        until: no group is begun after this, by `time.time`.
    """
    for group in plan.groups(rows, design, steps):
        missing = rows.missing(group)
        if missing and time.time() > until:
            return False
        if missing:
            logger.info("%s: %s", missing[0].step, missing[0].setting)
            start = time.monotonic()
            for run, found in workshop.do(missing):
                rows.add(run, found)
            bits = plan.mean_bits(rows.of(group))
            logger.info("%s: %.4f, %.0f s", group[0].setting, bits, time.monotonic() - start)
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
    parser.add_argument("--minutes", type=float, default=1e6, help="begin nothing after these")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--plots", type=Path, help="write the pictures into this folder")
    options = parser.parse_args(words)
    register()
    design = plan.SMALL if options.small else plan.Design()
    folder = options.folder / "small" if options.small else options.folder
    rows = Rows(folder / "rows.jsonl", recipe_of)
    workshop = Workshop(design, options.shared, folder)
    if not options.report:
        until = time.time() + 60 * options.minutes
        if not work_off(rows, workshop, design, options.steps, until):
            print("The time is up: the same command goes on.\n")
    print(report(rows, workshop, len(design.choice)))
    if options.plots:
        chosen = min(rows.settings("rates").items(), key=lambda one: plan.mean_bits(one[1]))[0]
        for path in write_plots(rows, options.plots, chosen):
            print(os.path.relpath(path))
