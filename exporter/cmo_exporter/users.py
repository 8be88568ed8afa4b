"""Who is using the service: open sessions, and the integral of their number over time.

Plain bookkeeping on a clock that the caller reads, so that it can be checked against an oracle without
waiting. A session that went idle is closed at the instant its time-out ran out, even when nobody looks
before much later: the integral must not depend on when it is read.

Session ids are personal. They are hashed with a key that is drawn anew in each process and never stored, and
only the hashes are kept, for as long as the session is open.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

_HASH_BYTES: Final = 16

SessionKey = tuple[str, bytes]


class SessionHasher:
    """Turns session ids into values that mean nothing outside of this process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_HASH_BYTES)

    def hash(self, session: str) -> bytes:
        """The hash of a session id."""
        data = session.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=_HASH_BYTES, key=self._key).digest()


@dataclass
class _Level:
    """How many are there, and the area under that number up to ``last``."""

    last: float
    active: int = 0
    seconds: float = 0.0

    def step(self, now: float, change: int) -> None:
        self.seconds += self.active * (now - self.last)
        self.last = now
        self.active += change


@dataclass
class _Session:
    in_flight: int = 0
    ending: bool = False


class Sessions:
    """Open sessions by scenario. Not thread-safe: the caller holds one lock around every call.

    Every ``now`` is a reading of the same monotonic clock, in seconds, never before the one of the last call.

    Args:
        scenarios: those that exist from the start; another appears with its first session.
        idle_timeout_seconds: how long a session stays open without a query.
        maximum: sessions beyond so many are refused.
        now: when the integrals begin.
    """

    def __init__(
        self, scenarios: tuple[str, ...], *, idle_timeout_seconds: float, maximum: int, now: float
    ) -> None:
        self._idle_timeout = idle_timeout_seconds
        self._maximum = maximum
        self._start = now
        self._levels = {scenario: _Level(now) for scenario in scenarios}
        self._sessions: dict[SessionKey, _Session] = {}
        # Sessions without a query in flight, longest idle first; the value is when they became so.
        self._idle: OrderedDict[SessionKey, float] = OrderedDict()

    def enter(self, key: SessionKey, now: float) -> bool:
        """A query of this session begins; opens it if need be.

        Returns:
            False when there are too many sessions to follow one more.
        """
        self.expire(now)
        session = self._sessions.get(key)
        if session is None:
            if len(self._sessions) >= self._maximum:
                return False
            session = self._sessions[key] = _Session()
            self._level(key[0]).step(now, +1)
        self._idle.pop(key, None)
        session.in_flight += 1
        session.ending = False
        return True

    def leave(self, key: SessionKey, now: float, *, end: bool) -> None:
        """A query of this session has finished; with ``end`` the session closes with its last query."""
        self.expire(now)
        session = self._sessions.get(key)
        if session is None:
            return
        session.in_flight = max(0, session.in_flight - 1)
        session.ending = session.ending or end
        if session.in_flight == 0:
            if session.ending:
                self._close(key, now)
            else:
                self._idle[key] = now

    def end(self, key: SessionKey, now: float) -> None:
        """The user leaves: close the session, or have it closed with the query that is in flight."""
        self.expire(now)
        session = self._sessions.get(key)
        if session is None:
            return
        session.ending = True
        if session.in_flight == 0:
            self._close(key, now)

    def expire(self, now: float) -> None:
        """Close the sessions whose time-out has run out, each at the instant it did."""
        while self._idle:
            key, since = next(iter(self._idle.items()))
            deadline = since + self._idle_timeout
            if deadline > now:
                return
            self._close(key, deadline)

    def active(self, scenario: str) -> int:
        """Open sessions of a scenario, as of the last call."""
        level = self._levels.get(scenario)
        return level.active if level else 0

    def read(self, now: float) -> dict[str, tuple[int, float]]:
        """Open sessions and user-seconds by scenario, at one instant."""
        self.expire(now)
        for level in self._levels.values():
            level.step(now, 0)
        return {scenario: (level.active, level.seconds) for scenario, level in self._levels.items()}

    def _close(self, key: SessionKey, at: float) -> None:
        del self._sessions[key]
        self._idle.pop(key, None)
        self._level(key[0]).step(at, -1)

    def _level(self, scenario: str) -> _Level:
        # A scenario that is not in the list (`_other`) has been without users until now.
        return self._levels.setdefault(scenario, _Level(self._start))
