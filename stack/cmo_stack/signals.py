"""End in order when told to: Ctrl-C, SIGTERM and a closed terminal unwind the program like an exception.

The first such signal wins and later ones are ignored, so that an impatient second Ctrl-C cannot interrupt the
stopping of servers and leave some behind.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndedBySignal(SystemExit):
    """A signal asks us to end; the exit status is the shells' convention, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Within this block, the signals that end a program raise ``EndedBySignal`` in the main thread, once.

    A signal that is ignored from the start (``nohup``) stays ignored.
    """

    def end(number: int, _: FrameType | None) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise EndedBySignal(number)

    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
