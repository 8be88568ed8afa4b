"""How long the garbage collector stops the process, measured by the callbacks that Python offers.

A callback runs in whatever thread happens to allocate the object too many, at any point of its work: also in
the middle of a recording call or of a scrape, while that thread holds their locks. So nothing here takes a
lock, records into a metric, logs or raises: a pause is put on a bounded queue, whose operations are atomic,
and `drain` hands the pauses over later, from a thread that is free to wait.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The queue is emptied every few seconds; beyond so many pauses the oldest are lost, not memory.
_MOST_WAITING: Final = 10_000


class GcPauses:
    """Measures every collection between `start` and `close`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = 0.0
        self._pauses: deque[tuple[int, float]] = deque(maxlen=_MOST_WAITING)

    def start(self) -> None:
        """Listen to the collector; again, once started, it does nothing."""
        if self._heard not in gc.callbacks:
            gc.callbacks.append(self._heard)

    def close(self) -> None:
        """Listen no more; what has been measured can still be drained."""
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._heard)

    def after_fork(self) -> None:
        """In a forked child: the parent's pauses are not the child's, and it has not asked to listen."""
        self.close()
        self._pauses.clear()
        self._began = 0.0

    def drain(self) -> Iterator[tuple[str, float]]:
        """Generation and seconds of every pause since the last call; each is handed out once."""
        # Not of those that begin meanwhile: to record one may bring about the next.
        for _ in range(len(self._pauses)):
            try:
                generation, seconds = self._pauses.popleft()
            except IndexError:
                return
            yield str(generation), seconds

    def _heard(self, phase: str, info: dict[str, Any]) -> None:
        # One slot for the beginning is enough: Python runs one collection at a time, in all threads.
        if phase == "start":
            self._began = self._clock()
        elif self._began:
            self._pauses.append((info["generation"], self._clock() - self._began))
            self._began = 0.0
