"""Memory of this process: read from /proc, and the peaks that fall between two scrapes.

Resident memory is one small read (some 10 µs) and is sampled often; PSS, which does not count shared pages
twice, walks every mapping (1 ms and more) and is read once in a few seconds at most, less often when that
takes long. Where there is no /proc the readings are None and the metrics are absent, not 0.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

_LONGEST_STATM: Final = 256
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PSS_INTERVAL_SECONDS: Final = 5.0
# Reading takes a two-hundredth of the time at most: 10 ms a gigabyte would otherwise be felt.
_REST_AFTER_PSS: Final = 200
# Fields of /proc/self/stat after the command, which is in parentheses and may hold spaces.
_START_TIME_FIELD: Final = 19


def resident_bytes() -> float | None:
    """Resident set size of this process (`/proc/self/statm`, second field), in bytes."""
    try:
        # Without a file object: half the time, and it is read very often.
        statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return float(int(os.read(statm, _LONGEST_STATM).split()[1]) * _PAGE_BYTES)
        finally:
            os.close(statm)
    except (OSError, ValueError, IndexError):
        return None


def proportional_bytes() -> float | None:
    """Proportional set size of this process (`/proc/self/smaps_rollup`), in bytes."""
    try:
        rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        return float(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def process_start_ticks(process: int) -> int | None:
    """When a process started, in clock ticks after boot; None when there is no such process.

    Process ids are used again; together with this an id is not. A zombie has ended.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else int(fields[_START_TIME_FIELD])
    except (OSError, ValueError, IndexError):
        return None


def process_start_time() -> float:
    """When this process started, in Unix seconds; when this was first asked, where /proc does not say."""
    try:
        boot = next(
            line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if "btime" in line
        )
        ticks = process_start_ticks(os.getpid())
        return int(boot.split()[1]) + ticks / _TICKS_PER_SECOND if ticks is not None else time.time()
    except (OSError, ValueError, IndexError, StopIteration):
        return time.time()


class ProportionalMemory:
    """PSS, read again only when the last reading is a few seconds old."""

    def __init__(self) -> None:
        self._value: float | None = None
        self._read_from = float("-inf")

    def read(self, now: float) -> float | None:
        """The last reading, or a new one when that is too old; ``now`` is monotonic seconds."""
        if now >= self._read_from:
            self._read_from = now + _PSS_INTERVAL_SECONDS
            began = time.monotonic()
            self._value = proportional_bytes()
            took = time.monotonic() - began
            self._read_from = now + max(_PSS_INTERVAL_SECONDS, _REST_AFTER_PSS * took)
        return self._value


class MemoryPeaks:
    """The highest resident memory by scenario: reset, raised, and otherwise left as it is.

    Not thread-safe: the caller holds one lock around every call.
    """

    def __init__(self, scenarios: tuple[str, ...], live: str) -> None:
        self._live = live
        self._peaks: dict[str, float] = dict.fromkeys((live, *scenarios), 0.0)

    def reset(self, scenario: str, resident: float) -> None:
        """The scenario's first session has opened: its peak begins anew; that of ``live`` never does."""
        if scenario != self._live:
            self._peaks[scenario] = resident

    def raise_to(self, scenario: str, resident: float) -> None:
        """Hold a reading against the peak of one scenario."""
        self._peaks[scenario] = max(resident, self._peaks.get(scenario, 0.0))

    def read(self) -> dict[str, float]:
        """The peaks by scenario, in bytes; 0 for a scenario that has never been used."""
        return dict(self._peaks)
