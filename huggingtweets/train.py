"""Train one language model per person: `accelerate launch -m huggingtweets.train user=karpathy`.

Composes the configuration, selects the jobs and hands them to the runner. `train.py` of a clone and
`huggingtweets train` end here as well.
"""

from huggingtweets.training import stopping

stopping.install()  # before anything that takes seconds to import

import gc
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import hydra
from omegaconf import DictConfig

from huggingtweets import attempt
from huggingtweets.bases.prefetch import check_base_at_hand
from huggingtweets.causes import exit_code_for
from huggingtweets.config.compose import check_arguments, to_config
from huggingtweets.config.overrides import CONFIG_DIR
from huggingtweets.config.plan import is_batch
from huggingtweets.config.results_schema import PublishKind
from huggingtweets.config.schema import TrainConfig
from huggingtweets.config.usage import usage
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.jobs.consent import settle_consent
from huggingtweets.jobs.selection import quote_user, select_jobs
from huggingtweets.logs import STOPPED, rank, say, setup_logging
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.posts.sources.load import check_demo, check_source
from huggingtweets.process import usable_cores
from huggingtweets.runtime.helper import shared_helpers

TEXTS = "huggingtweets.pipeline.outcome"
"""What the helper process begins with."""
BUSY_LOAD = 0.6
"""Average load per core from which on the machine is taken to be shared."""


def run(composed: DictConfig, words: Sequence[str]) -> int:
    """Run the jobs of one composed configuration, asked for by `words`; return the exit code."""
    try:
        config = to_config(composed)
        check_source(config.source)
        jobs = select_jobs(config.user, config.shard, config.job_index, config.source)
        if not is_batch(config.user):  # of a batch, such people are passed over one by one
            handles = [name for job in jobs for name in job.handles]
            check_opted_out(handles, config.optout_file)
            check_demo(config.source, handles)
        check_base_at_hand(config)
        config = settle_consent(config, jobs)
        from huggingtweets.tracking.console import waiting  # Rich: a tenth of a second

        start_helper(config)
        with waiting("starting PyTorch (some seconds)"):
            # heavy: only for a configuration that is accepted
            from huggingtweets.jobs.runner import run_jobs
        keep_imports()
        return run_jobs(config, jobs, command=words)
    except (HuggingtweetsError, OSError) as err:  # an OSError of no job: theirs are counted there
        return exit_code_for(composed.get("output_dir", "output_dir"), err)


def start_helper(config: TrainConfig) -> None:
    """Start the process that makes texts and picture, while a core is idle: beside our imports.

    It takes more than a second to import what it needs, which training would wait for.
    """
    if rank() == 0 and usable_cores() > 1 and config.publish.kind is not PublishKind.none:
        shared_helpers(TEXTS).warm_up()


@cache
def keep_imports() -> None:
    """Tell the garbage collector that what was imported stays: it looks through it no more.

    Once: before the second point of a grid the models of the first could be among it.
    """
    gc.freeze()


def main() -> int:
    """Train what `sys.argv` asks for; return the exit code (0, 1, 2 or 75: docs/reference.md)."""
    wait_asleep_if_busy()  # first: OpenMP reads it when torch is imported
    setup_logging()
    attempt.watch(stopping.request_stop)
    words = quote_user(sys.argv[1:])
    try:
        if {"--help", "-h"} & {*words}:
            code = _help(words)
        else:
            composed, sys.argv[1:] = check_arguments(words)
            code = run_by_hydra(words) if composed is None else run(composed, words)
    except (HuggingtweetsError, OSError) as err:
        code = exit_code_for("train", err)
    attempt.tell_exit(code)
    if code == STOPPED:
        stopping.say_after_launcher(
            "stopped; everything so far is saved; run the same command again to go on"
        )
    return code


def _help(words: Sequence[str]) -> int:
    try:
        say(usage([word for word in words if not word.startswith("-")]).rstrip("\n"))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
    return 0


def run_by_hydra(words: Sequence[str]) -> int:
    """Run what Hydra itself makes of `sys.argv`, a grid (`-m`) above all.

    Args:
        words: the command line as it was typed, for who wants to run it again.
    """
    codes, folders = [], []

    @hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
    def hydra_main(composed: DictConfig) -> None:
        codes.append(run(composed, words))
        folders.append(str(composed.output_dir))

    # `run` hands its code over in `codes`: `hydra.main` returns nothing.
    with TemporaryDirectory() as scratch:
        sys.argv.insert(1, f"hydra.sweep.dir={scratch}")  # else a grid leaves a multirun.yaml here
        hydra_main()
    if len(set(folders)) > 1 and 0 in codes:
        from huggingtweets.compare.grid import end_grid

        end_grid(list(map(Path, dict.fromkeys(folders))))
    return max(codes, default=0)


def wait_asleep_if_busy() -> None:
    """Have threads that wait sleep, where others want the cores; before torch reads the setting.

    By default OpenMP's threads wait awake, and take from each other what they wait for: two
    trainings on two cores then need several times as long. Alone, waiting asleep costs up to half.
    """
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


if __name__ == "__main__":
    sys.exit(main())
