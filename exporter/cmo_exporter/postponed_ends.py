"""Ends that the garbage collector brings about, postponed until it is safe to count them.

The collector of cycles may run at any allocation, also of the thread that is just counting something and
holds the lock of the books. If what it collects is a generator in the middle of a query, that query ends then
and there; counting it would make the thread wait for itself for ever. So such an end is put aside, and
counted by the next sample of memory or the next scrape.
"""

from __future__ import annotations

import gc
import os
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A SimpleQueue is the one queue that may be put to while it is being put to.
_waiting: SimpleQueue[Callable[[], None]] = SimpleQueue()
_collecting: set[int] = set()


def put_aside(error: BaseException, end: Callable[[], None]) -> bool:
    """Put an end aside if it is the collector's doing; whether it was.

    Args:
        error: what ended it; generators are collected with `GeneratorExit`.
        end: counts it.
    """
    if not isinstance(error, GeneratorExit) or threading.get_ident() not in _collecting:
        return False
    _waiting.put(end)
    return True


def postpone(end: Callable[[], None]) -> None:
    """Have something counted as soon as it is safe, which it is not at this moment."""
    _waiting.put(end)


def catch_up() -> None:
    """Count what has been put aside. Never called with a lock held."""
    while True:
        try:
            end = _waiting.get_nowait()
        except Empty:
            return
        end()


def _follow_collector(phase: str, _info: dict[str, int]) -> None:
    if phase == "start":
        _collecting.add(threading.get_ident())
    else:
        _collecting.discard(threading.get_ident())


def _forget() -> None:
    """In a forked child: what waits is the parent's to count."""
    global _waiting  # noqa: PLW0603 - one for each process
    _waiting = SimpleQueue()
    _collecting.clear()


gc.callbacks.append(_follow_collector)
os.register_at_fork(after_in_child=_forget)
