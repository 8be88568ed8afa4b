"""Watches event loops from outside: how late they run, whether they are blocked, how many tasks they hold.

A loop that is blocked can say nothing of itself, so a thread asks every watched loop, again and again, to run
a small callback. The callback notes when it ran and counts the loop's tasks. Until it has run, the time since
it was asked for is how long the loop has been blocked at least.

The tasks are counted in the loop's own thread. From another one, going through asyncio's set of tasks can
fail in the middle, and it holds for a moment the last reference to tasks that end meanwhile, so that their
coroutines would be closed in the wrong thread. A loop that is blocked makes no tasks, so nothing is missed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_exporter.stuck_stack import where_stuck

if TYPE_CHECKING:
    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.instruments import Instruments
    from cmo_exporter.settings import ExporterSettings

_log = logging.getLogger("cmo_exporter")

_MOST_LOOPS: Final = 32
_MOST_MISSED_PROBES: Final = 1000
_SECONDS_BETWEEN_REPORTS: Final = 60.0
# A count of n tasks goes through n tasks: it may take a thousandth of the loop's time.
_REST_AFTER_COUNTING: Final = 1000


class _Probe:
    """One callback that a loop was asked to run."""

    __slots__ = ("_watched", "asked", "ran_at")

    def __init__(self, watched: _WatchedLoop, asked: float) -> None:
        self._watched = watched
        self.asked = asked
        self.ran_at: float | None = None

    def __call__(self) -> None:
        """In the loop: note the time before anything else."""
        ran_at = time.monotonic()
        self._watched.thread = threading.get_ident()
        self._watched.count_tasks(ran_at)
        self.ran_at = ran_at


class _WatchedLoop:
    """A loop, the probe that is under way in it, and what it answered last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, label: str, thread: int) -> None:
        self.loop = loop
        self.label = label
        self.thread = thread
        self.tasks = 0
        self.probe: _Probe | None = None
        self.reported_block: float | None = None
        self._count_from = 0.0

    def count_tasks(self, now: float) -> None:
        """In the loop: count its tasks, unless the last count took so long that this one comes too soon."""
        if now < self._count_from:
            return
        began = time.thread_time()  # while other threads have the interpreter, nothing is counted
        try:
            self.tasks = len(asyncio.all_tasks(self.loop))
        except RuntimeError:  # other threads made tasks all the time; the last count stands
            return
        self._count_from = now + _REST_AFTER_COUNTING * (time.thread_time() - began)

    def blocked_seconds(self, now: float) -> float:
        """How long the loop has owed an answer; 0 when it owes none."""
        probe = self.probe
        if probe is None or probe.ran_at is not None:
            return 0.0
        return max(0.0, now - probe.asked)


class LoopWatch:
    """Watches every loop that it is told of, until the loop is closed.

    One probe is under way in a loop at a time. When it was late, the probes that were not made meanwhile are
    recorded as well, each with the lateness it would have met: otherwise a loop that is blocked for ten
    seconds would count as one late callback among many punctual ones.
    """

    def __init__(self, settings: ExporterSettings, instruments: Instruments, errors: ErrorCounter) -> None:
        self.newest: asyncio.AbstractEventLoop | None = None
        """The loop that was told of last; who would tell of it again need not."""
        self._worker = settings.worker
        self._interval = settings.loop_lag_interval_seconds
        self._blocked_after = settings.loop_blocked_after_seconds
        self._instruments = instruments
        self._errors = errors
        self._lock = threading.Lock()
        self._watched: list[_WatchedLoop] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._labels = list(catalogue.LOOPS)
        self._next_report = 0.0

    def start(self) -> None:
        """Start the thread; again, once started, it does nothing."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="cmo-loop-watch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join()

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch this loop, in which it is called; one beyond so many is only counted as dropped."""
        with self._lock:
            self.newest = loop
            if any(watched.loop is loop for watched in self._watched):
                return
            if len(self._watched) == _MOST_LOOPS:
                self._watched = [watched for watched in self._watched if not watched.loop.is_closed()]
            if len(self._watched) < _MOST_LOOPS:
                self._watched.append(_WatchedLoop(loop, self._free_label(), threading.get_ident()))
                return
        self._instruments.dropped(catalogue.ASYNCIO_TASKS.name)

    def after_fork(self) -> None:
        """In a forked child: its loops, thread and lock are its own."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watched = []
        self._thread = None
        self.newest = None

    def publish(self, worker: str) -> None:
        """Write how long the most blocked loop has been blocked, and the tasks of every loop."""
        self._worker = worker
        now = time.monotonic()
        with self._lock:
            blocked = max((watched.blocked_seconds(now) for watched in self._watched), default=0.0)
            tasks = dict.fromkeys(self._labels, 0)
            for watched in self._watched:
                tasks[watched.label] += watched.tasks
        shown = blocked if blocked >= self._blocked_after else 0.0
        self._instruments.event_loop_blocked.child(worker).set(shown)
        for label, count in tasks.items():
            self._instruments.asyncio_tasks.child(worker, label).set(count)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                self._errors.report(catalogue.EVENT_LOOP_LAG, error)

    def _look(self) -> None:
        with self._lock:
            every = list(self._watched)
        for watched in every:
            probe = watched.probe
            if probe is not None and probe.ran_at is not None:
                self._record(watched, probe.ran_at - probe.asked)
            elif probe is not None and watched.loop.is_running():
                self._report_when_blocked(watched, probe)
                continue
            elif probe is not None:  # it was stopped, and whoever did that did not block it
                self._over(watched, time.monotonic() - probe.asked, "was stopped")
            watched.probe = None
            if watched.loop.is_closed():
                self._forget(watched)
            elif watched.loop.is_running():
                self._ask(watched)

    def _ask(self, watched: _WatchedLoop) -> None:
        probe = _Probe(watched, time.monotonic())
        watched.probe = probe
        try:
            watched.loop.call_soon_threadsafe(probe)
        except RuntimeError:  # it has been closed this moment
            watched.probe = None

    def _record(self, watched: _WatchedLoop, lag: float) -> None:
        histogram = self._instruments.event_loop_lag.child()
        histogram.observe(lag)
        missed = min(int(lag / self._interval), _MOST_MISSED_PROBES)
        for number in range(1, missed + 1):
            histogram.observe(lag - number * self._interval)
        self._over(watched, lag, "answers again")

    def _over(self, watched: _WatchedLoop, seconds: float, how: str) -> None:
        if watched.reported_block is not None:
            watched.reported_block = None
            _log.warning("The event loop of worker %s %s, after %.1f s.", self._worker, how, seconds)

    def _report_when_blocked(self, watched: _WatchedLoop, probe: _Probe) -> None:
        """Say once where the loop is stuck; not in every block, when there are many."""
        now = time.monotonic()
        if now - probe.asked < self._blocked_after or watched.reported_block == probe.asked:
            return
        if now < self._next_report:
            return
        self._next_report = now + _SECONDS_BETWEEN_REPORTS
        watched.reported_block = probe.asked
        _log.warning(
            "The event loop of worker %s has been blocked for %.1f s, and every request waits. Its thread is "
            "in: %s. Await there, or move the call to a thread (asyncio.to_thread). Further blocks are not "
            "reported for %.0f s.",
            self._worker,
            now - probe.asked,
            where_stuck(watched.thread),
            _SECONDS_BETWEEN_REPORTS,
        )

    def _forget(self, closed: _WatchedLoop) -> None:
        with self._lock:
            self._watched = [watched for watched in self._watched if watched is not closed]
            if self.newest is closed.loop:
                self.newest = None

    def _free_label(self) -> str:
        taken = {watched.label for watched in self._watched}
        free = next((label for label in catalogue.LOOPS if label not in taken), catalogue.OTHER)
        if free not in self._labels:
            self._labels.append(free)  # from now on it is published, also when it is back at 0
        return free
