"""The threads that watch what the event loop cannot watch itself: its own lateness, and peaks of memory."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_exporter.late import catch_up

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmo_exporter.recorder import Recorder

_MOST_MISSED_PROBES: Final = 1000
_STOP_CHECK_SECONDS: Final = 0.2


class MemorySampler:
    """Reads resident memory again and again, because a peak between two scrapes would be lost.

    Args:
        recorder: where it is read into.
        interval_seconds: how often.
        heartbeat: called as often, for what other workers have to know of this one.
    """

    def __init__(self, recorder: Recorder, interval_seconds: float, heartbeat: Callable[[], None]) -> None:
        self._recorder = recorder
        self._heartbeat = heartbeat
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cmo-memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                catch_up()
                self._recorder.ledger.sample_memory()
                self._heartbeat()
            except Exception as error:  # noqa: BLE001 - the next sample may succeed
                self._recorder.errors.report(catalogue.MEMORY_PEAK, error)


class LoopLagWatcher:
    """Asks the event loop to run a callback, and measures how long it takes.

    One request is under way at a time. When it was late, the requests that were not made meanwhile are
    recorded as well, each with the lateness it would have met: otherwise a loop that is blocked for ten
    seconds would count as one late callback among many punctual ones.
    """

    def __init__(self, recorder: Recorder, interval_seconds: float) -> None:
        self._recorder = recorder
        self._interval = interval_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cmo-loop-lag", daemon=True)
        self._thread.start()

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch this loop from now on."""
        self._loop = loop

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            loop = self._loop
            if loop is None:
                continue
            try:
                self._probe(loop)
            except RuntimeError:  # the loop is closed
                if self._loop is loop:
                    self._loop = None
            except Exception as error:  # noqa: BLE001 - the next probe may succeed
                self._recorder.errors.report(catalogue.EVENT_LOOP_LAG, error)

    def _probe(self, loop: asyncio.AbstractEventLoop) -> None:
        ran = threading.Event()
        asked = time.monotonic()
        ran_at = asked

        def run() -> None:
            nonlocal ran_at
            ran_at = time.monotonic()
            ran.set()

        loop.call_soon_threadsafe(run)
        while not ran.wait(_STOP_CHECK_SECONDS):
            if self._stop.is_set() or loop.is_closed():
                return
        self._record(ran_at - asked)

    def _record(self, lag: float) -> None:
        histogram = self._recorder.instruments.event_loop_lag.child()
        histogram.observe(lag)
        missed = min(int(lag / self._interval), _MOST_MISSED_PROBES)
        for number in range(1, missed + 1):
            histogram.observe(lag - number * self._interval)
