"""Who is using the service: open sessions, and the integral of their number over time.

One table for all workers of a service, so that a user whose questions reach several of them is one user.
It lies in memory that the workers share, under a lock of the file system, which lets go when its holder
dies; with one worker it lies in memory of our own and the lock is none.

Plain bookkeeping on a clock that the caller reads, so that it can be checked against an oracle without
waiting. A session that went idle is closed at the instant its time-out ran out, even when nobody looks
before much later: the integral must not depend on when it is read.

Session ids are personal. They are hashed with a key that is drawn when the service starts, and only the
hashes are kept, for as long as the session is open.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import secrets
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeGuard

from cmo_exporter.errors import HeldTableError, SharedDirectoryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from mmap import mmap
    from pathlib import Path

_KEY_BYTES: Final = 16
_HEADER_BYTES: Final = 64
_LEVEL_FLOATS: Final = 4
_EMPTY: Final = 0
# A worker that dies leaves its queries in flight. Workers that live touch the sessions of theirs well before
# the time-out; a session that nobody has touched for this many time-outs is closed.
_ORPHANED_TIMEOUTS: Final = 1.5
# How often the lock of other workers is asked for: 0.1 s in all, or 2 ms.
_LOOKS_AT_ONCE: Final = 20
_LOOKS: Final = _LOOKS_AT_ONCE + 100
_LOOKS_WITHOUT_PATIENCE: Final = _LOOKS_AT_ONCE + 2
_LOOK_AGAIN_SECONDS: Final = 0.001
_NO_PATIENCE_SECONDS: Final = 1.0

SessionKey = tuple[int, int]
"""Number of the scenario, and hash of the session with it."""


def is_session_id(session: object) -> TypeGuard[str]:
    """Whether it can be the id of a session; whatever it is, it is not asked itself."""
    return issubclass(type(session), str) and str.__len__(session) > 0  # type: ignore[arg-type]  # it is one by now


class FileLock:
    """Excludes other processes; threads of this one exclude each other by another lock.

    Everybody holds it for microseconds. Who does not let go has been stopped (``SIGSTOP``, a debugger), and
    the others' questions are not to wait for that: they go on without, and for a while hardly wait again.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")  # held as long as the service runs
        self._descriptor = self._file.fileno()
        self._no_patience_until = -math.inf

    def __enter__(self) -> None:
        is_patient = time.monotonic() >= self._no_patience_until
        # Counted and not timed: where the whole machine has stood still, nobody has been stopped.
        for look in range(_LOOKS if is_patient else _LOOKS_WITHOUT_PATIENCE):
            if self._is_taken():
                self._no_patience_until = -math.inf
                return
            # The others are nearly always done at once.
            time.sleep(0 if look < _LOOKS_AT_ONCE else _LOOK_AGAIN_SECONDS)
        if is_patient:
            self._no_patience_until = time.monotonic() + _NO_PATIENCE_SECONDS
        raise HeldTableError(
            "A worker does not let go of the table of users in shared_directory. It has been stopped "
            "(SIGSTOP, a debugger): let it go on, or end it. Until then users are not followed."
        )

    def _is_taken(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _Mending:
    """A lock whose holder mends the table if the one before was stopped while it changed it.

    A holder is killed, or an exception stops it, or a signal's handler changes the table in the midst of it.
    """

    def __init__(self, lock: AbstractContextManager[None], sessions: Sessions) -> None:
        self._lock = lock
        self._sessions = sessions
        self._depth = 0
        self._disturbed = False

    def __enter__(self) -> None:
        self._depth += 1
        try:
            self._lock.__enter__()
        except BaseException:
            self._depth -= 1
            raise
        if self._sessions.header[2] and self._depth == 1:
            self._sessions.mend(time.monotonic())
        self._sessions.header[2] = 1.0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._depth -= 1
        self._disturbed = self._depth > 0 or self._disturbed or kind is not None
        if self._depth:
            return
        self._sessions.header[2] = float(self._disturbed)
        self._disturbed = False
        self._lock.__exit__(None, None, None)


def table_bytes(scenarios: int, maximum: int) -> int:
    """Size of the memory that a table needs, in bytes."""
    return _HEADER_BYTES + scenarios * _LEVEL_FLOATS * 8 + _places(maximum) * (8 + 8 + 4 + 4)


class Sessions:
    """Open sessions by scenario. Not thread-safe: the caller holds one lock around every call.

    Every ``now`` is a reading of the same monotonic clock, in seconds, never before the one of the last call.

    Args:
        scenarios: all that a session can belong to.
        idle_timeout_seconds: how long a session stays open without a query.
        maximum: sessions beyond so many are refused.
        now: when the integrals begin, unless the memory says otherwise.
        memory: where the table lies; zeros when it is new.
        lock: excludes the other processes that have the same memory.
    """

    def __init__(
        self,
        scenarios: tuple[str, ...],
        *,
        idle_timeout_seconds: float,
        maximum: int,
        now: float,
        memory: mmap | bytearray | None = None,
        lock: AbstractContextManager[None] | None = None,
    ) -> None:
        self._scenarios = {scenario: number for number, scenario in enumerate(scenarios)}
        self._idle_timeout = idle_timeout_seconds
        self._maximum = maximum
        self._shared = lock is not None
        self._map(memory or bytearray(table_bytes(len(scenarios), maximum)))
        # With nobody to exclude, a lock that is taken in no time.
        self._lock = threading.RLock() if lock is None else _Mending(lock, self)
        # Sessions that this worker was the last to leave idle, longest idle first, and since when.
        self._idle: OrderedDict[int, float] = OrderedDict()
        self._next_deadline = now  # never later than the time-out of the first of them
        # Of this worker: the scenario of each session that has queries in flight, and how many.
        self._in_flight: dict[int, tuple[int, int]] = {}
        self._looked_for_orphans = now
        self.read_at = now
        """The instant of the last `read`: later than was asked for where another worker was later."""
        if not self.began:  # else the lock is not needed, and may be held by a worker that is stopped
            with self._lock:
                self._secret[:] = secrets.token_bytes(_KEY_BYTES)
                self.header[0] = now
        self._hasher = hashlib.blake2b(digest_size=8, key=bytes(self._secret))

    def _map(self, memory: mmap | bytearray) -> None:
        view = memoryview(memory)
        places = _places(self._maximum)
        self._mask = places - 1
        self._secret = view[:_KEY_BYTES]
        # When the integrals began; how many sessions are open; 1 while somebody changes the table; the latest
        # time at which somebody has changed or read it.
        self.header = view[_KEY_BYTES:_HEADER_BYTES].cast("d")
        start = _HEADER_BYTES

        def column(item_bytes: int, length: int) -> memoryview[int]:
            nonlocal start
            part = view[start : start + item_bytes * length]
            start += item_bytes * length
            return part

        # Of each scenario: sessions open, their seconds up to the time that comes next, how often a first
        # one has opened.
        self._levels = column(8, len(self._scenarios) * _LEVEL_FLOATS).cast("d")
        self._keys = column(8, places).cast("Q")
        self._touched = column(8, places).cast("d")
        self._flying = column(4, places).cast("i")
        self._facts = column(4, places).cast("I")  # twice the scenario's number, plus 1 when the user leaves

    @property
    def began(self) -> float:
        """When the integrals began."""
        return float(self.header[0])

    def key(self, scenario: str, session: str) -> SessionKey:
        """What a session is known by here.

        Raises:
            KeyError: there is no such scenario.
        """
        number = self._scenarios[scenario]
        data = b"%d:%b" % (number, session.encode("utf-8", "surrogatepass"))
        # A copy has the key in it already, which takes as long as the hash itself.
        hasher = self._hasher.copy()
        hasher.update(data)
        return number, int.from_bytes(hasher.digest(), "big") or 1

    def enter(self, key: SessionKey, now: float) -> bool:
        """A query of this session begins; opens it if need be.

        Returns:
            False when there are too many sessions to follow one more.
        """
        with self._lock:
            now = self._not_before_others(now)
            if now >= self._next_deadline:
                self._expire(now)
            scenario, session = key
            place = self._find_open(session, now)
            if self._keys[place] == _EMPTY:
                if self.header[1] >= self._maximum:
                    return False
                self._open(place, scenario, session, now)
            self._idle.pop(session, None)
            if self._shared:
                _, flights = self._in_flight.get(session, (scenario, 0))
                self._in_flight[session] = scenario, flights + 1
            self._flying[place] += 1
            self._touched[place] = now
            self._facts[place] = 2 * scenario
            return True

    def leave(self, key: SessionKey, now: float, *, end: bool) -> None:
        """A query of this session has finished; with ``end`` the session closes with its last query."""
        session = key[1]
        if self._shared:
            # Before the lock: where that cannot be had, the session is closed as those of a dead worker are.
            self._forget_flight(session)
        with self._lock:
            now = self._not_before_others(now)
            if now >= self._next_deadline:
                self._expire(now)
            place = self._find(session)
            if self._keys[place] == _EMPTY:
                return
            self._flying[place] = max(0, self._flying[place] - 1)
            self._touched[place] = now
            if end:
                self._facts[place] |= 1
            if self._flying[place] == 0:
                if self._facts[place] & 1:
                    self._close(place, now)
                else:
                    if not self._idle:
                        self._next_deadline = now + self._idle_timeout
                    self._idle[session] = now

    def end(self, key: SessionKey, now: float) -> None:
        """The user leaves: close the session, or have it closed with the query that is in flight."""
        with self._lock:
            now = self._not_before_others(now)
            if now >= self._next_deadline:
                self._expire(now)
            place = self._find_open(key[1], now)
            if self._keys[place] == _EMPTY:
                return
            self._facts[place] |= 1
            if self._flying[place] == 0:
                self._close(place, now)

    def expire(self, now: float) -> None:
        """Close the sessions whose time-out has run out, each at the instant it did."""
        with self._lock:
            now = self._not_before_others(now)
            if now >= self._next_deadline:
                self._expire(now)
        if self._shared and now - self._looked_for_orphans > self._idle_timeout / 2:
            looked_before, self._looked_for_orphans = self._looked_for_orphans, now
            self._close_orphans(now, looked_before)

    def active(self, scenario: str) -> int:
        """Open sessions of a scenario, as of the last call."""
        number = self._scenarios.get(scenario)
        return 0 if number is None else int(self._levels[number * _LEVEL_FLOATS])

    def openings(self, scenario: str) -> int:
        """How often the scenario's first session has opened."""
        return int(self._levels[self._scenarios[scenario] * _LEVEL_FLOATS + 3])

    def overdue(self, now: float) -> list[int]:
        """Sessions that seem to have had their time, for `read`; needs no lock, and may take a while."""
        if not self._shared or not self.header[1]:
            return []
        latest = now - self._idle_timeout
        late = [place for place, touched in enumerate(self._touched.tolist()) if 0 < touched <= latest]
        return [self._keys[place] for place in late]

    def read(self, now: float, overdue: Sequence[int] | None = None) -> dict[str, tuple[int, float]]:
        """Open sessions and user-seconds by scenario, at one instant.

        Args:
            now: the instant.
            overdue: what `overdue` has said of this instant; without it, it is asked.
        """
        self._expire_those_of_others(self.overdue(now) if overdue is None else overdue, now)
        with self._lock:
            now = self._not_before_others(now)
            if now >= self._next_deadline:
                self._expire(now)
            self.read_at = now
            found = {}
            for scenario, number in self._scenarios.items():
                active, seconds, last, _ = self._levels[number * _LEVEL_FLOATS : (number + 1) * _LEVEL_FLOATS]
                found[scenario] = int(active), seconds + active * (now - last)
            return found

    def mend(self, now: float) -> None:
        """Put every session of the table into its place, once, and count them; the caller holds the lock."""
        rows = {
            row[0]: row
            for row in zip(
                self._keys.tolist(),
                self._touched.tolist(),
                self._flying.tolist(),
                self._facts.tolist(),
                strict=True,
            )
            # Where the table is damaged, nearly no row makes sense.
            if row[0] != _EMPTY and row[1] > 0 and row[2] >= 0 and row[3] // 2 < len(self._scenarios)
        }
        for place in range(self._mask + 1):
            self._empty(place)
        for session, touched, flying, facts in rows.values():
            place = self._find(session)
            self._keys[place], self._touched[place] = session, touched
            self._flying[place], self._facts[place] = flying, facts
        self.header[1] = len(rows)
        for number in range(len(self._scenarios)):
            level = number * _LEVEL_FLOATS
            active = sum(row[3] // 2 == number for row in rows.values())
            self._step(level, now, active - int(self._levels[level]))

    def _not_before_others(self, now: float) -> float:
        """The time of a change or a reading: others may have read the integral after the caller's clock.

        What is closed earlier than that would let it fall.
        """
        self.header[3] = now = max(now, self.header[3])
        return now

    def _expire(self, now: float) -> None:
        while self._idle:
            session, since = next(iter(self._idle.items()))
            deadline = since + self._idle_timeout
            if deadline > now:
                self._next_deadline = deadline
                return
            del self._idle[session]
            place = self._find(session)
            # Another worker may have seen the user since; then it is for that one to look after them.
            if self._keys[place] and self._flying[place] == 0 and self._touched[place] == since:
                self._close(place, deadline)

    def _expire_those_of_others(self, overdue: Sequence[int], now: float) -> None:
        """Close what other workers are about to, lest the integral be read too high and fall."""
        latest = now - self._idle_timeout
        for session in overdue:
            with self._lock:
                place = self._find(session)
                touched = self._touched[place]
                if self._keys[place] and self._flying[place] == 0 and touched <= latest:
                    self._close(place, touched + self._idle_timeout)

    def _close_orphans(self, now: float, looked_before: float) -> None:
        with self._lock:
            now = self._not_before_others(now)
            for session, (scenario, flights) in self._in_flight.items():
                self._hold(session, scenario, flights, now)
        if now - looked_before > self._idle_timeout:
            # It is this worker that has been stopped, perhaps with all others, who are to hold theirs first.
            return
        latest = now - _ORPHANED_TIMEOUTS * self._idle_timeout
        late = [place for place, touched in enumerate(self._touched.tolist()) if 0 < touched <= latest]
        for session in [self._keys[place] for place in late]:
            with self._lock:
                place = self._find(session)
                if self._keys[place] and self._touched[place] <= latest:
                    # Now and not when its time was up: the integral has been read since, and never falls.
                    self._close(place, self._not_before_others(now))

    def _hold(self, session: int, scenario: int, flights: int, now: float) -> None:
        """Let the others see that a session has queries in flight; again, if they have given it up."""
        place = self._find(session)
        if self._keys[place] == _EMPTY:
            if self.header[1] >= self._maximum:
                return
            self._open(place, scenario, session, now)
            self._flying[place], self._facts[place] = flights, 2 * scenario
        self._touched[place] = now

    def _forget_flight(self, session: int) -> None:
        scenario, flights = self._in_flight.get(session, (0, 0))
        if flights > 1:
            self._in_flight[session] = scenario, flights - 1
        else:
            self._in_flight.pop(session, None)

    def _find(self, session: int) -> int:
        """The place of a session, or the empty one where it would be."""
        for step in range(self._mask + 1):
            place = (session + step) & self._mask
            if self._keys[place] in (_EMPTY, session):
                return place
        # A third of them is always free, unless something else has written here.
        raise SharedDirectoryError(
            "The table of users in shared_directory is damaged. "
            "Stop the service's workers, empty the directory and start them again."
        )

    def _find_open(self, session: int, now: float) -> int:
        """The same, once the session has been closed whose time was up before another worker noticed."""
        place = self._find(session)
        if self._keys[place] == _EMPTY or self._flying[place]:
            return place
        deadline = self._touched[place] + self._idle_timeout
        if deadline > now:
            return place
        self._close(place, deadline)
        return self._find(session)

    def _open(self, place: int, scenario: int, session: int, now: float) -> None:
        self._keys[place] = session
        self.header[1] += 1
        level = scenario * _LEVEL_FLOATS
        if not self._levels[level]:
            self._levels[level + 3] += 1
        self._step(level, now, +1)

    def _close(self, place: int, at: float) -> None:
        self._idle.pop(self._keys[place], None)
        self._step(self._facts[place] // 2 * _LEVEL_FLOATS, at, -1)
        self.header[1] -= 1
        self._remove(place)

    def _step(self, level: int, at: float, change: int) -> None:
        # `at` may lie before the last step: the rest of the sum is as if the change had come in order.
        levels = self._levels
        levels[level + 1] += levels[level] * (at - levels[level + 2])
        levels[level + 2] = at
        levels[level] += change

    def _remove(self, start: int) -> None:
        """Empty a place and move up those that were put further on because it was taken."""
        hole = start
        for step in range(1, self._mask + 1):
            place = (start + step) & self._mask
            if self._keys[place] == _EMPTY:
                break
            home = self._keys[place] & self._mask
            if (place - home) & self._mask >= (place - hole) & self._mask:
                self._keys[hole], self._touched[hole] = self._keys[place], self._touched[place]
                self._flying[hole], self._facts[hole] = self._flying[place], self._facts[place]
                hole = place
        self._empty(hole)

    def _empty(self, place: int) -> None:
        self._keys[place], self._touched[place], self._flying[place], self._facts[place] = _EMPTY, 0.0, 0, 0


def _places(maximum: int) -> int:
    """A power of two that leaves a third of the table free."""
    return 1 << (maximum + maximum // 2).bit_length()
