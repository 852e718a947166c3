"""The end of a grid (`train.py -m`): its settings compared, on the terminal and on one page."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from huggingtweets.compare.comparison import compare
from huggingtweets.compare.scores import score_person
from huggingtweets.compare.settings import read_settings
from huggingtweets.compare.table import build_comparison, write_page
from huggingtweets.errors import ConfigError
from huggingtweets.logs import make_console

logger = logging.getLogger(__name__)

PAGE = "grid.html"


def end_grid(folders: Sequence[Path]) -> None:
    """Print the comparison of a grid, and write it beside the settings' folders.

    Says in one line why there is none: nothing may be held out, or a setting may have failed.
    """
    try:
        settings = read_settings([folder for folder in folders if folder.is_dir()])
        found = compare(settings, score_person)
    except ConfigError as err:
        logger.info("the grid is not compared: %s", err)
        return
    root = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    try:
        write_page(root / PAGE, found, settings, root.name)
    except OSError as err:
        logger.warning("%s: no page of the grid (%s)", root / PAGE, err.strerror)
    make_console(highlight=False).print(build_comparison(found))
    logger.info("grid=%s", root / PAGE)
