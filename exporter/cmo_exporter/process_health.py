"""The health of this process: processor time, files, threads, memory's high-water marks, pauses, event loops.

All of it is known to the process itself only, while another worker's process may be the one that is scraped.
So nothing is computed in a scrape: `ProcessHealth.publish` writes every value where any worker's scrape finds
it, and is called before each scrape of this process, twice a second where there are other workers, and else
every few seconds. What the operating system does not say (without /proc, for example) stays absent, and is
never 0.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_exporter.guard import never_raises

if TYPE_CHECKING:
    from cmo_exporter.gc_pauses import GcPauses
    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.instruments import Instruments
    from cmo_exporter.loop_watch import LoopWatch
    from cmo_exporter.memory import ProportionalMemory

_STATUS: Final = "/proc/self/status"
_OPEN_FILES: Final = "/proc/self/fd"
_KIBIBYTE: Final = 1024
_LONGEST_STATUS: Final = 8192
_LONGEST_NUMBER: Final = 40


class ProcessHealth:
    """Writes what can be known of this process into its instruments."""

    def __init__(
        self,
        instruments: Instruments,
        errors: ErrorCounter,
        proportional: ProportionalMemory,
        pauses: GcPauses,
        loops: LoopWatch,
    ) -> None:
        self._instruments = instruments
        self.errors = errors
        self._proportional = proportional
        self._pauses = pauses
        self._loops = loops
        self._lock = threading.Lock()
        self._highest = {"rss": 0.0, "pss": 0.0}

    def start(self) -> None:
        """Begin to watch loops and pauses; again, once started, it does nothing."""
        self._pauses.start()
        self._loops.start()

    def close(self) -> None:
        """Watch no more."""
        self._loops.close()
        self._pauses.close()

    def after_fork(self) -> None:
        """In a forked child: another process, whose threads and locks are not its parent's."""
        self._lock = threading.Lock()
        self._highest = {"rss": 0.0, "pss": 0.0}
        self._loops.after_fork()
        self._pauses.after_fork()

    def publish(self, worker: str) -> None:
        """Write every value as it is now; costs some 50 µs, and never raises."""
        self._publish_loops(worker)
        self._publish_pauses()
        with self._lock:
            self._publish_cpu(worker)
            self._publish_files(worker)
            self._publish_memory_and_threads(worker)

    @never_raises(catalogue.EVENT_LOOP_BLOCKED)
    def _publish_loops(self, worker: str) -> None:
        self._loops.publish(worker)

    @never_raises(catalogue.GC_PAUSE)
    def _publish_pauses(self) -> None:
        for generation, seconds in self._pauses.drain():
            self._instruments.gc_pause.child(generation).observe(seconds)

    @never_raises(catalogue.CPU_SECONDS)
    def _publish_cpu(self, worker: str) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._instruments.cpu_seconds.child(worker, "user").set(usage.ru_utime)
        self._instruments.cpu_seconds.child(worker, "system").set(usage.ru_stime)

    @never_raises(catalogue.OPEN_FILES)
    def _publish_files(self, worker: str) -> None:
        open_files = count_open_files()
        if open_files is not None:
            self._instruments.open_files.child(worker).set(open_files)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = float("inf") if limit == resource.RLIM_INFINITY else float(limit)
        self._instruments.max_files.child(worker).set(most)

    @never_raises(catalogue.MEMORY_HIGH_WATER)
    def _publish_memory_and_threads(self, worker: str) -> None:
        status = read_status()
        threads = status_number(status, b"Threads")
        if threads is not None:
            self._instruments.threads.child(worker).set(threads)
        peak = status_number(status, b"VmHWM")
        self._raise_high_water(worker, "rss", None if peak is None else peak * _KIBIBYTE)
        self._raise_high_water(worker, "pss", self._proportional.read(time.monotonic()))

    def _raise_high_water(self, worker: str, kind: str, reading: float | None) -> None:
        if reading is None:
            return
        # The kernel's own mark can fall by some pages, because it counts them per processor.
        self._highest[kind] = max(self._highest[kind], reading)
        self._instruments.memory_high_water.child(worker, kind).set(self._highest[kind])


def count_open_files() -> int | None:
    """File descriptors that this process holds; None without /proc.

    Linux 6.2 and later tell their number as the folder's size, however many they are; before that they have
    to be listed, which takes a descriptor itself.
    """
    try:
        return os.stat(_OPEN_FILES).st_size or list_open_files()  # noqa: PTH116 - asked very often
    except OSError:
        return None


def list_open_files() -> int:
    """The same on any Linux, by listing them.

    Raises:
        OSError: there is no /proc, or no descriptor left for listing.
    """
    return len(os.listdir(_OPEN_FILES)) - 1  # noqa: PTH208 - a third of the time


def read_status() -> bytes:
    """`/proc/self/status`; empty without /proc."""
    try:
        with open(_STATUS, "rb", buffering=0) as status:  # noqa: PTH123 - read very often
            return status.read(_LONGEST_STATUS)
    except OSError:
        return b""


def status_number(status: bytes, name: bytes) -> int | None:
    """The number of one line of `/proc/self/status`, sizes in kibibytes; None where it is not told."""
    _, found, rest = status.partition(b"\n" + name + b":")
    value = rest[:_LONGEST_NUMBER].split(maxsplit=1)[:1] if found else []
    return int(value[0]) if value and value[0].isdigit() else None
