"""The books on queries, component calls and sessions, kept so that a scrape always sees them balanced.

Checkers trust that ``in progress is 0`` means that everything has been counted, and that started equals
finished plus in progress. That holds only when a scrape, which runs in its own thread or in another process,
cannot look between two of the steps with which a query begins or finishes. So each beginning is one line in
the `journal` and each end another, lines are posted as one change of the block of values, and no end is
posted before its beginning. Every query goes through here twice, which is why its scenario has the places at
hand.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.catalogue import LIVE, OTHER
from cmo_exporter.errors import HeldTableError
from cmo_exporter.instruments import closed
from cmo_exporter.memory import MemoryPeaks, ProportionalMemory, process_start_time, resident_bytes
from cmo_exporter.postponed_ends import postpone
from cmo_exporter.sessions import Sessions
from cmo_exporter.values import RESTARTS, SEQUENCE, FullError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from mmap import mmap

    from cmo_exporter.instruments import Buckets, Family, Instruments, Number
    from cmo_exporter.sessions import FileLock, SessionKey
    from cmo_exporter.settings import ExporterSettings
    from cmo_exporter.values import Numbers, Values

Result = TypeVar("Result")

_DURATION_OUTCOMES = {"success": "success", "cancelled": "cancelled"}


def duration_outcome(outcome: str) -> str:
    """The coarser outcome that histograms carry: whatever is neither success nor cancelled is a failure."""
    return _DURATION_OUTCOMES.get(outcome, "failure")


class _Slots(dict[str, int]):
    """Where a family counts, by the value of its last label; found out when it is first needed."""

    def __init__(self, family: Family[Number], *labels: str) -> None:
        super().__init__()
        self._family = family
        self._labels = labels

    def __missing__(self, value: str) -> int:
        slot = self[value] = self._family.child(*self._labels, value).slot
        return slot


class _Durations(dict[str, "Buckets"]):
    """The histogram of an outcome; found out when it is first needed."""

    def __init__(self, family: Family[Buckets], *labels: str) -> None:
        super().__init__()
        self._family = family
        self._labels = labels

    def __missing__(self, outcome: str) -> Buckets:
        found = self[outcome] = self._family.child(*self._labels, duration_outcome(outcome))
        return found


class Ending:
    """Where queries are counted that end in a certain way."""

    __slots__ = ("_buckets", "_counters", "_in_progress", "lines")

    metric: Final = catalogue.QUERIES

    def __init__(self, counters: tuple[int, ...], in_progress: int, buckets: Buckets | None) -> None:
        self._counters = counters
        self._in_progress = in_progress
        self._buckets = buckets
        # How long each took, in seconds.
        self.lines: list[float] = []

    def post(self, numbers: Numbers, lines: list[float]) -> None:
        """Queries have ended."""
        count = float(len(lines))
        for counter in self._counters:
            numbers[counter] += count
        numbers[self._in_progress] -= count
        if self._buckets is not None:
            self._buckets.add(numbers, lines)

    def remember(self, seconds: float, exemplar: Mapping[str, str]) -> None:
        """Keep ``trace_id`` and ``span_id`` of a trace that shows such a query."""
        if self._buckets is not None:
            self._buckets.remember(seconds, exemplar)


class _Endings(dict[tuple[str, str, "str | None"], Ending]):
    """By outcome, cache result and source; found out when it is first needed."""

    def __init__(self, book: ScenarioBook, instruments: Instruments) -> None:
        super().__init__()
        self._book = book
        self._instruments = instruments

    def __missing__(self, key: tuple[str, str, str | None]) -> Ending:
        try:
            return self._found(*key)
        except FullError as error:
            journal = self._instruments.values.journal
            if journal.errors is not None:
                journal.errors.report(catalogue.QUERIES, error)
            return self._book.unplaced

    def _found(self, outcome: str, cache_result: str, source: str | None) -> Ending:
        instruments, scenario = self._instruments, self._book.name
        counters = (
            instruments.queries.child(scenario, outcome).slot,
            instruments.cache_results.child(scenario, cache_result).slot,
            *([] if source is None else [instruments.answers.child(scenario, source).slot]),
        )
        buckets = instruments.duration.child(scenario, duration_outcome(outcome))
        found = self[outcome, cache_result, source] = Ending(counters, self._book.in_progress, buckets)
        instruments.values.journal.query_ends.append(found)
        return found


class ScenarioBook:
    """Where the queries of one scenario are counted."""

    __slots__ = ("_started", "endings", "in_progress", "lines", "name", "oldest", "under_way", "unplaced")

    metric: Final = catalogue.QUERIES_STARTED

    def __init__(self, scenario: str, instruments: Instruments) -> None:
        self.name = scenario
        self._started = instruments.started.child(scenario).slot
        self.in_progress = instruments.in_progress.child(scenario).slot
        self.oldest = instruments.oldest_query.child(scenario)
        # One for each query that has begun.
        self.lines: list[None] = []
        instruments.values.journal.beginnings.append(self)
        self.endings = _Endings(self, instruments)
        # For those whose ending finds no room in the block: they are not in progress any more, at least.
        self.unplaced = Ending((), self.in_progress, None)
        instruments.values.journal.query_ends.append(self.unplaced)
        # Beginnings of the queries in progress, in order: the first is the oldest.
        self.under_way: dict[object, float] = {}

    def post(self, numbers: Numbers, lines: list[None]) -> None:
        """Queries have begun."""
        numbers[self._started] += len(lines)
        numbers[self.in_progress] += len(lines)


class ComponentBook:
    """Where the calls of one component for one scenario are counted."""

    __slots__ = ("durations", "in_progress", "outcomes")

    def __init__(self, scenario: str, component: str, instruments: Instruments) -> None:
        self.in_progress = instruments.component_in_progress.child(component).slot
        self.outcomes = _Slots(instruments.component_calls, scenario, component)
        self.durations = _Durations(instruments.component_duration, scenario, component)


class Ledger:
    """Queries and calls in progress and finished, open sessions and memory peaks."""

    def __init__(self, settings: ExporterSettings, instruments: Instruments, values: Values) -> None:
        self._settings = settings
        self._instruments = instruments
        self._values = values
        self.journal = values.journal
        self.forks = 0
        """How many forks lie between this process and the one that made the ledger."""
        self._peaks = MemoryPeaks(settings.scenarios, LIVE)
        self.proportional = ProportionalMemory()
        self._start_time = process_start_time()
        self._openings: dict[str, int] = {}
        # Whether sessions are being changed: the lock does not keep the handler of a signal in the same
        # thread from changing them in the middle of that.
        self._following = False
        self.known_scenarios = {name: ScenarioBook(name, instruments) for name in settings.all_scenarios}
        self._scenarios = dict(self.known_scenarios)
        self.known_components: dict[tuple[str, object], ComponentBook] = {
            (scenario, component): ComponentBook(scenario, component, instruments)
            for scenario in settings.all_scenarios
            for component in settings.components
        }
        self._components = dict(self.known_components)
        self.sessions: Sessions
        self._sessions_lock: FileLock | None = None
        self.share_sessions(None, None)

    def share_sessions(self, memory: mmap | None, lock: FileLock | None) -> None:
        """Follow sessions in this memory, from now on; in memory of our own if there is none."""
        with self._values.lock:
            if self._sessions_lock is not None:
                # A forked child has it too, and would go on holding it for a parent that is killed.
                self._sessions_lock.close()
            self._sessions_lock = lock
            self.sessions = Sessions(
                (*self._settings.all_scenarios, OTHER),
                idle_timeout_seconds=self._settings.session_idle_timeout_seconds,
                maximum=self._settings.maximum_sessions,
                now=time.monotonic(),
                memory=memory,
                lock=lock,
            )

    def after_fork(self) -> None:
        """In a forked child: what is under way is under way in the parent."""
        self.forks += 1
        for book in self._scenarios.values():
            book.under_way.clear()
        self._following = False
        self.share_sessions(None, None)
        self._start_time = process_start_time()

    def scenario(self, name: str) -> ScenarioBook:
        """The book of a scenario of the closed list, or of ``_other``."""
        found = self._scenarios.get(name)
        if found is None:
            found = self._scenarios[name] = ScenarioBook(name, self._instruments)
        return found

    def component(self, scenario: str, component: object) -> ComponentBook:
        """The book of a component; of ``_other`` for whatever is not in the closed list."""
        try:
            return self.known_components[scenario, component]
        except Exception:  # noqa: BLE001 - it may be unhashable, or raise when it is compared
            return self._unusual_component(scenario, component)

    def _unusual_component(self, scenario: str, component: object) -> ComponentBook:
        known = closed(component, self._settings.components)
        if known is None:
            self._instruments.dropped(catalogue.COMPONENT_CALLS.name)
            known = OTHER
        key = (scenario, known)
        found = self._components.get(key)
        if found is None:
            found = self._components[key] = ComponentBook(scenario, known, self._instruments)
        return found

    def enter(self, book: ScenarioBook, session: SessionKey) -> bool:
        """A query begins under a session; false when there are too many to follow one more."""
        with self._values.lock:
            book.lines.append(None)
            return self._enter(book.name, session)

    def leave(self, ending: Ending, seconds: float, session: SessionKey, *, end: bool) -> None:
        """A query of a session has finished, and with it, perhaps, the session."""
        with self._values.lock:
            ending.lines.append(seconds)
            self._leave(session, end=end)

    def begin_call(self, book: ComponentBook) -> None:
        """A call of a component begins."""
        values = self._values
        with values.lock:
            values.numbers[book.in_progress] += 1.0

    def finish_call(self, book: ComponentBook, outcome: str, seconds: float) -> None:
        """A call of a component has finished."""
        values = self._values
        with values.lock:
            try:
                counted, buckets = book.outcomes[outcome], book.durations[outcome]
            except FullError:
                values.numbers[book.in_progress] -= 1.0
                raise
            bucket = bisect_left(buckets.edges, seconds)
            numbers = values.numbers
            numbers[SEQUENCE] += 1.0
            numbers[counted] += 1.0
            numbers[buckets.slot + bucket] += 1.0
            numbers[buckets.slot + len(buckets.edges) + 1] += seconds
            numbers[book.in_progress] -= 1.0
            numbers[SEQUENCE] += 1.0

    def open_session(self, scenario: str, session: SessionKey) -> bool:
        """A user has come, without a query yet; false when there are too many to follow one more.

        Until `close_session` the session is held open: it cannot go idle.
        """
        with self._values.lock:
            return self._enter(scenario, session)

    def close_session(self, session: SessionKey) -> None:
        """A user for whom `open_session` was called has left."""
        self._leave(session, end=True)

    def end_session(self, scenario: str, session: str) -> None:
        """A user has left."""
        with self._values.lock:
            if self._following:
                postpone(lambda: self.end_session(scenario, session))
                return
            self._note_memory()
            self._change(self.sessions.end, self.sessions.key(scenario, session), time.monotonic())

    def users(self, now: float, overdue: Sequence[int]) -> dict[str, tuple[int, float]]:
        """Open sessions and user-seconds by scenario; nothing while another worker does not let go of them.

        Args:
            now: monotonic seconds.
            overdue: what `Sessions.overdue` has said of this instant.
        """
        with self._values.lock:
            # Not by the handler of a signal in the middle of a change.
            return {} if self._following else self._change(self.sessions.read, now, overdue) or {}

    def sample_memory(self) -> None:
        """Hold the resident memory of this moment against the peaks of the scenarios in use."""
        with self._values.lock:
            if not self._following:
                self._change(self.sessions.expire, time.monotonic())
            self._note_memory()

    def publish(self, worker: str) -> None:
        """Write down what only this process can know of itself: now and then, and before every scrape."""
        instruments = self._instruments
        proportional = self.proportional.read(time.monotonic())
        with self._values.change():
            resident = self._note_memory()
            for kind, value in (("rss", resident), ("pss", proportional)):
                if value is not None:
                    instruments.memory.child(worker, kind).set(value)
            if resident is not None:
                for scenario, peak in self._peaks.read().items():
                    instruments.memory_peak.child(worker, scenario).set(peak)
            for book in self._scenarios.values():
                # The time at which it began; the reader knows what time it is by then.
                # Copied in one step: queries begin and end meanwhile, without the lock.
                book.oldest.set(next(iter(list(book.under_way.values())), 0.0))
            instruments.worker_start_time.child(worker).set(self._start_time)
            instruments.worker_restarts.child(worker).set(self._values.numbers[RESTARTS])
            instruments.build_info.child(self._settings.version, self._settings.revision).set(1.0)

    def _change(self, change: Callable[..., Result], *arguments: object, **named: object) -> Result | None:
        """Change sessions; meanwhile nobody else does, not even the handler of a signal in this thread.

        Returns:
            What the change does, or None if another worker does not let go of them.
        """
        self._following = True
        try:
            return change(*arguments, **named)
        except HeldTableError as error:
            if self.journal.errors is not None:
                self.journal.errors.report(catalogue.ACTIVE_USERS, error)
            return None
        finally:
            self._following = False

    def _leave(self, session: SessionKey, *, end: bool) -> None:
        with self._values.lock:
            if self._following:
                postpone(lambda: self._leave(session, end=end))
                return
            if end:
                self._note_memory()
            self._change(self.sessions.leave, session, time.monotonic(), end=end)

    def _enter(self, scenario: str, session: SessionKey) -> bool:
        if self._following or not self._change(self.sessions.enter, session, time.monotonic()):
            return False
        if self.sessions.openings(scenario) != self._openings.get(scenario, 0):
            self._note_memory()
        return True

    def _note_memory(self) -> float | None:
        resident = resident_bytes()
        if resident is None:
            return None
        self._peaks.raise_to(LIVE, resident)
        for scenario in self._settings.all_scenarios:
            openings = self.sessions.openings(scenario)
            if openings != self._openings.get(scenario, 0):
                # The first session has opened, here or in another worker.
                self._openings[scenario] = openings
                self._peaks.reset(scenario, resident)
            elif self.sessions.active(scenario):
                self._peaks.raise_to(scenario, resident)
        return resident
