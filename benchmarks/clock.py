"""CPU seconds of threads by what they were spent on, for functions that are patched to tell."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any


class Clock:
    """What a timed function calls while it is timed counts as its own."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that also tells its CPU time, of its own thread."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._add(name, start)

        return timed

    def drawn(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        """Yield items, and tell the CPU time that making them took."""
        end = object()  # None is an item: at present there is nothing to do
        while True:
            start = time.thread_time()
            item = next(items, end)
            self._add(name, start)
            if item is end:
                return
            yield item

    def patch(self, name: str, owner: Any, *functions: str) -> None:
        """Have functions of a module, or methods of a class, tell their CPU time."""
        for function in functions:
            setattr(owner, function, self.around(name, getattr(owner, function)))

    def patch_iterator(self, name: str, owner: Any, function: str) -> None:
        """Have a function tell the CPU time that its iterator takes."""
        setattr(owner, function, self.through(name, getattr(owner, function)))

    def through(self, name: str, function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        """Return the same as a function that returns an iterator of something."""
        return lambda *args, **kwargs: self.drawn(name, function(*args, **kwargs))

    def _add(self, name: str, start: float) -> None:
        self.seconds[name] += time.thread_time() - start
