"""Functions of tensors that stay in place, run as CUDA graphs."""

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch

logger = logging.getLogger(__name__)


class Replay:
    """Runs functions of tensors that stay in place; on CUDA, from the third time on, as graphs.

    A graph that cannot be captured is said once, and everything goes on without graphs.
    """

    def __init__(self, *, enabled: bool) -> None:
        """Start with no graph."""
        self._enabled = enabled
        self._runs: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Run a function; equal keys promise equal kernels on equal tensors."""
        if not self._enabled:
            function()
            return
        if key not in self._graphs:
            self._runs[key] = self._runs.get(key, 0) + 1
            if self._runs[key] <= 2 or not self._capture(key, function):
                function()
                return
        self._graphs[key].replay()

    def _capture(self, key: Hashable, function: Callable[[], None]) -> bool:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, capture_error_mode="thread_local"
            ):  # other threads prepare and finish jobs meanwhile
                function()
        except RuntimeError as err:
            logger.warning("no CUDA graph: %s", str(err).partition("\n")[0])
            self._enabled = False
            return False
        self._graphs[key] = graph
        return True
