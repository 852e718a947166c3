"""`ledger/metrics.prom`: how a batch stands, in the text format of Prometheus.

A textfile collector reads it (`node_exporter --collector.textfile.directory`); so does `cat`. Each
writer of the ledger has a file of its own and a label `writer`, so that files can be read together.
"""

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from huggingtweets.attempt import is_superseded
from huggingtweets.gauges import GAUGES
from huggingtweets.jobs.ledger import LEDGER_DIR
from huggingtweets.jobs.status import read_states, summarise
from huggingtweets.posts.spending import Spending
from huggingtweets.storage.files import write_text

logger = logging.getLogger(__name__)

EVERY_S = 15.0
MAX_SHARE = 0.02
"""Of the time that reading the states may take: of 10,000 jobs it takes a second."""
JOULES_PER_NVML = 1e-3
"""NVML counts millijoules."""


class MetricsFile:
    """A context manager that writes the file now and then, from a thread, and once at the end."""

    def __init__(self, output_dir: Path, writer: str, spending: Spending) -> None:
        """Name the file after the writer: `metrics.prom` of `main`, else `metrics-WRITER.prom`.

        Args:
            output_dir: of the batch.
            writer: the name of this process's ledger file, without its ending.
            spending: on posts.
        """
        name = "metrics.prom" if writer == "main" else f"metrics-{writer}.prom"
        self._path = output_dir / LEDGER_DIR / name
        self._output_dir = output_dir
        self._label = f'writer="{writer}"'
        self._spending = spending
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._energy = _Energy()

    def __enter__(self) -> "MetricsFile":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write the last state."""
        self._has_ended.set()
        self._thread.join()
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all. That it cannot be written fails no job."""
        if is_superseded():  # a process that outlived its node: the file is its successor's
            return
        with suppress(OSError):
            write_text(self._path, "".join(self._lines()))

    def _run(self) -> None:
        pause = EVERY_S
        while not self._has_ended.wait(pause):
            start = time.perf_counter()
            self.write()
            pause = max(EVERY_S, (time.perf_counter() - start) / MAX_SHARE)

    def _lines(self) -> Iterator[str]:
        summary = summarise(read_states(self._output_dir).values())
        now = GAUGES.read()
        yield "# HELP huggingtweets_jobs Jobs of the batch by state.\n"
        yield "# TYPE huggingtweets_jobs gauge\n"
        for status, count in summary.counts.items():
            yield f'huggingtweets_jobs{{{self._label},state="{status.value}"}} {count}\n'
        spent = None
        with suppress(Exception):  # a file that cannot be read; nothing hangs on it here
            spent = self._spending.usd
        gauges: tuple[tuple[str, str, str, float | None], ...] = (
            ("jobs_per_hour", "gauge", "Jobs that ended per hour, of late.", summary.jobs_per_hour),
            ("slots_in_use", "gauge", "Jobs in training.", now.num_training),
            ("tokens_per_second", "gauge", "Of all in training.", now.tokens_per_s),
            ("seconds_since_last_step", "gauge", "Since a step was last logged.", now.since_step_s),
            ("spent_usd", "gauge", "Money spent on posts.", spent),
            ("gpu_hours_total", "counter", "Hours of GPUs held.", self._energy.gpu_hours),
            ("gpu_joules_total", "counter", "Energy of these GPUs.", self._energy.joules),
        )
        for name, kind, meaning, value in gauges:
            if value is not None:
                name = f"huggingtweets_{name}"
                yield f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"
                # A counter of joules grows to ten digits: of six of them no rate could be told.
                yield f"{name}{{{self._label}}} {value:.12g}\n"


class _Energy:
    """GPU-hours and joules since the start, by NVML; nothing where there is no NVML."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._nvml = None
        self._handles: list[object] = []
        if importlib.util.find_spec("pynvml") is not None:
            import pynvml

            with suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                self._nvml = pynvml
                self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in _devices()]
        self._before = self._count()

    @property
    def gpu_hours(self) -> float | None:
        """Hours since the start, times the GPUs of this process."""
        num = len(self._handles)
        return num * (time.monotonic() - self._start) / 3600 if num else None

    @property
    def joules(self) -> float | None:
        """Of these GPUs since the start, whatever ran on them."""
        now = self._count()
        return None if now is None or self._before is None else now - self._before

    def _count(self) -> float | None:
        if self._nvml is None or not self._handles:
            return None
        try:
            read = self._nvml.nvmlDeviceGetTotalEnergyConsumption
            return JOULES_PER_NVML * sum(float(read(handle)) for handle in self._handles)
        except self._nvml.NVMLError:  # before Volta
            return None


def _devices() -> list[int]:
    """Return NVML's index of the GPU that this process trains on, as far as it is told."""
    # NVML knows nothing of CUDA_VISIBLE_DEVICES; of MIG and UUIDs in it nothing is told here.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = [int(word) for word in visible.split(",") if word.strip().isdecimal()]
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return [named[local % len(named)] if named else local]
