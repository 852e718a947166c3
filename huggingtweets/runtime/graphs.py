"""Functions of tensors that stay in place, run as CUDA graphs."""

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch

from huggingtweets.errors import first_line
from huggingtweets.runtime.device import lacks_memory
from huggingtweets.upstream import forget_capture

logger = logging.getLogger(__name__)


class Replay:
    """Runs functions of tensors that stay in place; on CUDA, from the third time on, as graphs.

    A graph that cannot be captured is said once, and everything goes on without graphs. Lack of
    memory is no such reason: it is raised, as it would be without graphs.
    """

    def __init__(self, *, enabled: bool) -> None:
        """Start with no graph."""
        self._enabled = enabled
        self._runs: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Run a function; equal keys promise equal kernels on equal tensors.

        Raises:
            torch.OutOfMemoryError: memory does not suffice, by a graph or without.
        """
        if not self._enabled:
            function()
            return
        if key not in self._graphs:
            self._runs[key] = self._runs.get(key, 0) + 1
            # Not at first: libraries make their workspaces and Triton compiles when they are called
            # for the first time, and neither may happen within a capture.
            if self._runs[key] <= 2 or not self._capture(key, function):
                function()
                return
        self._graphs[key].replay()

    def forget(self, is_gone: Callable[[Hashable], bool]) -> None:
        """Give up the graphs whose keys will not come again, and the memory they hold."""
        for key in filter(is_gone, list(self._runs)):
            del self._runs[key]
            graph = self._graphs.pop(key, None)
            if graph is not None:
                graph.reset()

    def _capture(self, key: Hashable, function: Callable[[], None]) -> bool:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, capture_error_mode="thread_local"
            ):  # other threads prepare and finish jobs meanwhile
                function()
        except RuntimeError as err:
            _abandon(stream, self._pool)
            if lacks_memory(err):
                raise torch.OutOfMemoryError(str(err)) from err
            logger.warning("no CUDA graph: %s", first_line(err))
            self.forget(lambda key: True)
            self._enabled = False
            return False
        self._graphs[key] = graph
        return True


def _abandon(stream: torch.cuda.Stream, pool: Any) -> None:
    """Undo what a capture that failed leaves behind.

    In torch 2.13 `torch.cuda.graph.__exit__` does not go back to the stream of before where
    `capture_end` raises, and the allocator is told nothing (see `forget_capture`). The generator
    goes on believing in the capture and refuses the next seed; a copy of its state
    does not. Can go when `capture_end` cleans up before it raises.
    """
    torch.cuda.set_stream(stream)
    index = torch.cuda.current_device()
    forget_capture(pool)
    for generator in torch.cuda.default_generators[index : index + 1]:
        generator.graphsafe_set_state(generator.clone_state())
