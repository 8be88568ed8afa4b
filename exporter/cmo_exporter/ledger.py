"""The books on queries and sessions, kept so that a scrape always sees them balanced.

Checkers trust that ``in progress is 0`` means that everything has been counted, and that started equals
finished plus in progress. That holds only when a scrape, which runs in its own thread, cannot look between
two of the steps with which a query begins or finishes. So both are done under one lock, and so is the
reading of their values.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cmo_exporter.catalogue import LIVE
from cmo_exporter.memory import MemoryPeaks, resident_bytes
from cmo_exporter.users import Sessions

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Exposed

    from cmo_exporter.instruments import Instruments
    from cmo_exporter.settings import ExporterSettings
    from cmo_exporter.users import SessionKey

_DURATION_OUTCOMES = {"success": "success", "cancelled": "cancelled"}


def duration_outcome(outcome: str) -> str:
    """The coarser outcome that histograms carry: whatever is neither success nor cancelled is a failure."""
    return _DURATION_OUTCOMES.get(outcome, "failure")


class Snapshot:
    """What the books hold at one instant."""

    def __init__(
        self,
        *,
        families: list[Exposed],
        clock_seconds: float,
        users: dict[str, tuple[int, float]],
        oldest_ages: dict[str, float],
        peaks: dict[str, float],
        resident: float | None,
    ) -> None:
        self.families = families
        self.clock_seconds = clock_seconds
        self.users = users
        self.oldest_ages = oldest_ages
        self.peaks = peaks
        self.resident = resident


class Ledger:
    """Queries in progress, finished queries, open sessions and memory peaks, under one lock."""

    def __init__(self, settings: ExporterSettings, instruments: Instruments) -> None:
        self._lock = threading.Lock()
        self._instruments = instruments
        self._started_at = time.monotonic()
        self._sessions = Sessions(
            settings.all_scenarios,
            idle_timeout_seconds=settings.session_idle_timeout_seconds,
            maximum=settings.maximum_sessions,
            now=self._started_at,
        )
        self._peaks = MemoryPeaks(settings.scenarios, LIVE)
        # Beginnings of the queries in progress by scenario, in order: the first is the oldest.
        self._in_progress: dict[str, dict[int, float]] = {name: {} for name in settings.all_scenarios}

    def begin(self, query: int, scenario: str, session: SessionKey | None, began: float) -> bool:
        """A query begins.

        Args:
            query: what tells it from every other query in progress.
            scenario: from the closed list, or ``_other``.
            session: its session, if it has one.
            began: monotonic seconds at which it arrived.

        Returns:
            Whether it goes on under a session: false without one, and when there are too many.
        """
        with self._lock:
            self._instruments.started.child(scenario).inc()
            self._instruments.in_progress.child(scenario).inc()
            self._in_progress.setdefault(scenario, {})[query] = began
            return session is not None and self._enter(session)

    def finish(
        self,
        query: int,
        scenario: str,
        session: SessionKey | None,
        *,
        ends_session: bool,
        outcome: str,
        source: str | None,
        cache_result: str,
        seconds: float,
    ) -> None:
        """A query has finished: count it in every metric, and only then take it off those in progress."""
        instruments = self._instruments
        with self._lock:
            if self._in_progress.get(scenario, {}).pop(query, None) is None:
                return
            try:
                instruments.queries.child(scenario, outcome).inc()
                instruments.duration.child(scenario, duration_outcome(outcome)).observe(seconds)
                instruments.cache_results.child(scenario, cache_result).inc()
                if source is not None:
                    instruments.answers.child(scenario, source).inc()
                if session is not None:
                    if ends_session:
                        self._note_memory()
                    self._sessions.leave(session, time.monotonic(), end=ends_session)
            finally:
                instruments.in_progress.child(scenario).dec()

    def end_session(self, session: SessionKey) -> None:
        """A user has left."""
        with self._lock:
            self._note_memory()
            self._sessions.end(session, time.monotonic())

    def sample_memory(self) -> None:
        """Hold the resident memory of this moment against the peaks of the scenarios in use."""
        with self._lock:
            self._sessions.expire(time.monotonic())
            self._note_memory()

    def snapshot(self) -> Snapshot:
        """Everything at one instant: whatever belongs together is read together."""
        instruments = self._instruments
        with self._lock:
            now = time.monotonic()
            users = self._sessions.read(now)
            resident = self._note_memory()
            families = [
                family.collect()
                for family in (
                    instruments.started,
                    instruments.queries,
                    instruments.duration,
                    instruments.first_token,
                    instruments.answers,
                    instruments.in_progress,
                    instruments.cache_results,
                )
            ]
            return Snapshot(
                families=families,
                clock_seconds=now - self._started_at,
                users=users,
                oldest_ages={
                    scenario: max(0.0, now - next(iter(began.values()), now))
                    for scenario, began in self._in_progress.items()
                },
                peaks=self._peaks.read(),
                resident=resident,
            )

    def _enter(self, session: SessionKey) -> bool:
        scenario = session[0]
        now = time.monotonic()
        self._sessions.expire(now)
        was_active = self._sessions.active(scenario)
        if not self._sessions.enter(session, now):
            return False
        if not was_active:
            resident = resident_bytes()
            if resident is not None:
                self._peaks.reset(scenario, resident)
        return True

    def _note_memory(self) -> float | None:
        resident = resident_bytes()
        if resident is not None:
            self._peaks.raise_to(LIVE, resident)
            for scenario in self._peaks.read():
                if self._sessions.active(scenario):
                    self._peaks.raise_to(scenario, resident)
        return resident
