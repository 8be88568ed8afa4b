"""The exporter: what a service holds on to, and through which it records everything.

Construction and `start` may fail, with an error that says how to mend it; after that nothing here raises
into the service. Two exporters in one process do not know of each other.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from typing import TYPE_CHECKING, Final, Self, overload
from weakref import WeakSet

from prometheus_client import CollectorRegistry

from cmo_exporter import catalogue
from cmo_exporter.catalogue import BREAKER_STATES, LIVE, OTHER
from cmo_exporter.decorators import component_decorator, query_decorator
from cmo_exporter.exposition import Exposition
from cmo_exporter.gc_pauses import GcPauses
from cmo_exporter.guard import ErrorCounter, never_raises
from cmo_exporter.heartbeat import Heartbeat
from cmo_exporter.instruments import Instruments, closed
from cmo_exporter.journal import MOST_WAITING
from cmo_exporter.ledger import Ledger
from cmo_exporter.loop_watch import LoopWatch
from cmo_exporter.membership import Membership
from cmo_exporter.metrics_access import MetricsAccess
from cmo_exporter.metrics_server import MetricsServer
from cmo_exporter.process_health import ProcessHealth
from cmo_exporter.queries import CURRENT, NoQuery, Query
from cmo_exporter.query_log import QueryLog
from cmo_exporter.query_record import Watch, current_step
from cmo_exporter.recorder import Recorder
from cmo_exporter.sessions import is_session_id
from cmo_exporter.totals import Totals
from cmo_exporter.tracing import Tracing
from cmo_exporter.user_session import UserSession
from cmo_exporter.values import Values

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from cmo_exporter.decorators import Function
    from cmo_exporter.outcomes import Classifier
    from cmo_exporter.query_record import Model, QueryRecord
    from cmo_exporter.settings import ExporterSettings


# Thousands of these are counted exactly; a few near a float's own limit would make a counter infinite.
_LARGEST_AMOUNT: Final = 1e12

_exporters: WeakSet[Exporter] = WeakSet()


def _after_fork() -> None:
    for exporter in _exporters:
        exporter._after_fork()  # noqa: SLF001 - nobody else is to call it


def _at_exit() -> None:
    """Write what waits: a worker that ends without `close` is still counted by the others."""
    for exporter in _exporters:
        if exporter._log is not None:  # noqa: SLF001 - as above
            exporter._log.close()  # noqa: SLF001 - as above
        exporter.recorder.journal.post()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


class Exporter:
    """Records what a question-answering service does and serves it to Prometheus.

    A context manager: entering starts ``/metrics`` and the watching threads, leaving stops them. Recording
    works without being started, only nobody can scrape it.
    """

    def __init__(self, settings: ExporterSettings) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        values = Values()
        instruments = Instruments(settings, values)
        ledger = Ledger(settings, instruments, values)
        errors = values.journal.errors = ErrorCounter(instruments)
        self.tracing = Tracing(settings)
        self._log = QueryLog(instruments, errors) if settings.query_log else None
        self._breaker_states: dict[str, str] = {}
        watch = None
        if self.tracing.enabled or self._log is not None:
            watch = Watch(settings, self.tracing, self._log, self._breaker_states, errors)
        self.recorder = Recorder(instruments, ledger, values.journal, errors, watch)
        self._loops = LoopWatch(settings, instruments, errors)
        self._health = ProcessHealth(instruments, errors, ledger.proportional, GcPauses(), self._loops)
        self._membership = Membership(settings, values, ledger, self._health)
        self._exposition = Exposition(
            Totals(ledger, values, self._membership.directory), self._membership.publish
        )
        self.registry.register(self._exposition)
        self._no_query = NoQuery(self.recorder, ledger.scenario(LIVE))
        # Reentrant: the handler of a signal may record a state in the middle of another one.
        self._breaker_lock = threading.RLock()
        self._starting = threading.RLock()
        self._prices = {model: settings.prices.get(model[2]) for model in settings.models}
        self._access = MetricsAccess()
        self._server: MetricsServer | None = None
        self._heartbeat: Heartbeat | None = None
        self._forked_while_started = False
        _exporters.add(self)

    @property
    def errors(self) -> ErrorCounter:
        """Where errors inside recording calls are counted."""
        return self.recorder.errors

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds the metrics; empty while the exporter is not started."""
        return self._server.url if self._server else ""

    def start(self) -> None:
        """Serve ``/metrics`` and watch the process and its event loops; again, once started, it does nothing.

        Raises:
            MetricsAddressError: nothing can listen at the host and port of the settings.
            SettingsError: the token, the certificate or its key cannot be used.
            SharedDirectoryError: the directory that workers share cannot be used.
        """
        with self._starting:
            if self._server is not None:
                return
            self._access = MetricsAccess.of(self.settings)
            self.tracing.open()
            # Until it has joined, this worker does not know the users of the others.
            with self._exposition.held():
                self._server = self._membership.join(self._listen)
            self._server.warn_when_open_to_all()
            self._health.start()
            self._heartbeat = Heartbeat(
                self.recorder, self.settings.memory_sample_interval_seconds, self._membership
            )

    def close(self) -> None:
        """Stop the threads, free the port, send the last spans; what was counted stays counted."""
        with self._starting:
            server, heartbeat = self._server, self._heartbeat
            self._server, self._heartbeat = None, None
            if server is not None:
                server.close()
            if heartbeat is not None:
                heartbeat.close()
            self._health.close()
            if self._log is not None:
                # Before it leaves: the lines that it writes now are counted, too, and stay with the service.
                self._log.close()
            self._membership.leave()
            self.tracing.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @never_raises(catalogue.EVENT_LOOP_LAG)
    def watch_running_loop(self) -> None:
        """Watch the event loop that this is called in; the middleware does it."""
        loop = asyncio.get_running_loop()
        if loop is not self._loops.newest:
            self._loops.watch(loop)
            if self._forked_while_started:
                self._forked_while_started = False
                self.start()

    def query(
        self,
        scenario: str = LIVE,
        session: str | None = None,
        *,
        end_session: bool = False,
        began: float | None = None,
    ) -> Query:
        """A user's question, for transports that the middleware does not see; a context manager.

        Args:
            scenario: one of the settings' scenarios, or ``live``.
            session: the user's session id. Without one the query is counted, but no user is.
            end_session: whether the session closes once the query has finished.
            began: monotonic seconds at which it arrived, when that was earlier than now.
        """
        try:
            recorder = self.recorder
            ledger = recorder.ledger
            arrived = 0.0 if began is None else self._instant(began)
            try:
                book = ledger.known_scenarios[scenario]
            except Exception:  # noqa: BLE001 - it may be unhashable, or raise when it is compared
                recorder.dropped(catalogue.QUERIES_STARTED)
                book = ledger.scenario(OTHER)
            if len(book.lines) >= MOST_WAITING:
                recorder.journal.post()
            key = None
            if session is not None and is_session_id(session):
                key = ledger.sessions.key(book.name, str.__str__(session))
            return Query(recorder, book, arrived, key, key if end_session else None)
        except Exception as error:  # noqa: BLE001 - there may be no room for another series
            self.errors.report(catalogue.QUERIES_STARTED, error)
            return self._no_query

    def current_query(self) -> Query:
        """The query that this code works for; outside of one, a harmless stand-in. Never None."""
        query = CURRENT.get()
        if query is None or query._finished or query._recorder is not self.recorder:  # noqa: SLF001 - asked often
            return self._no_query
        return query

    @overload
    def observe_query(self, function: Function, /) -> Function: ...

    @overload
    def observe_query(
        self,
        /,
        *,
        scenario: str | Callable[..., str] = LIVE,
        session: str | Callable[..., str | None] | None = None,
        classify: Classifier | None = None,
        departures: tuple[type[BaseException], ...] = (),
    ) -> Callable[[Function], Function]: ...

    def observe_query(
        self,
        function: Function | None = None,
        /,
        *,
        scenario: str | Callable[..., str] = LIVE,
        session: str | Callable[..., str | None] | None = None,
        classify: Classifier | None = None,
        departures: tuple[type[BaseException], ...] = (),
    ) -> Function | Callable[[Function], Function]:
        """Decorate a function that answers a user's question: every call is a query.

        The function may be of any kind, and stays of its kind; a query whose answer is a stream ends with
        the stream, and its first piece is its first token. Within a query that is in progress already (the
        middleware's, or an outer function's) a call is a part of that query, and only names its outcome.
        It goes beneath a framework's own decorator, which keeps the function that it is given::

            @cl.on_message
            @exporter.observe_query(session=lambda message: cl.user_session.get("id"))
            async def main(message: cl.Message) -> None: ...

        Args:
            function: the function, where there is nothing else to say (``@exporter.observe_query``).
            scenario: one of the settings' scenarios, or a function of the call's arguments that tells it.
            session: the user's session id, or a function of the call's arguments that tells it. A query that
                is in progress already gets it, unless it has one.
            classify: tells the outcome from what is returned. Without one the function says it, through
                `current_query`; a query of which nobody says what came of it is an error.
            departures: exceptions by which the transport says that the user has left (Starlette's
                ``WebSocketDisconnect``); the query is then cancelled.

        Raises:
            ExporterError: what is decorated cannot be called, or a departure is no exception.
        """
        decorate: Callable[[Function], Function] = query_decorator(
            self, scenario, session, classify, departures
        )
        return decorate if function is None else decorate(function)

    def observe_component(
        self, component: str, *, classify: Classifier | None = None
    ) -> Callable[[Function], Function]:
        """Decorate a function that calls a component, for the query that is current when it is called.

        The function may be of any kind, and stays of its kind; a call that returns a stream ends with it.

        Args:
            component: one of the settings' components.
            classify: tells the outcome from what is returned; without one, whatever is returned is a success.

        Raises:
            ExporterError: what is decorated cannot be called.
        """
        return component_decorator(self, component, classify)

    def session(self, session: str, scenario: str = LIVE) -> UserSession:
        """A user who is there, with or without a question; a context manager.

        Args:
            session: the user's session id; that of their queries.
            scenario: one of the settings' scenarios, or ``live``; that of their queries.
        """
        known, key = OTHER, None
        try:
            known = self._known_scenario(scenario)
            if is_session_id(session):
                key = self.recorder.ledger.sessions.key(known, str.__str__(session))
        except Exception as error:  # noqa: BLE001 - as everywhere in recording
            self.errors.report(catalogue.ACTIVE_USERS, error)
        return UserSession(self.recorder, known, key)

    @never_raises(catalogue.FEEDBACK)
    def feedback(self, rating: str, scenario: str = LIVE) -> None:
        """A user has rated an answer: ``up`` or ``down``."""
        self.recorder.instruments.feedback.child(scenario, rating).inc()

    @never_raises(catalogue.ACTIVE_USERS)
    def end_session(self, session: str, scenario: str = LIVE) -> None:
        """The user has left, without another query to say so."""
        known = self._known_scenario(scenario)
        self.recorder.ledger.end_session(known, session)

    @never_raises(catalogue.RETRIES)
    def retry(self, component: str) -> None:
        """A call of a component is made again."""
        self.recorder.instruments.retries.child(component).inc()
        record = self._record()
        if record is not None:
            record.retried(component)

    @never_raises(catalogue.QUEUE_WAIT)
    def queue_wait(self, component: str, seconds: float) -> None:
        """A call of a component waited so long for its turn."""
        waited = _amount(seconds)
        self.recorder.instruments.queue_wait.child(component).observe(waited, self.tracing.exemplar())
        record = self._record()
        if record is not None:
            record.waited(component, waited)

    @never_raises(catalogue.QUEUE_DEPTH)
    def queue_depth(self, component: str, value: float) -> None:
        """So many calls of a component wait for their turn."""
        self.recorder.instruments.queue_depth.child(component).set(_amount(value))

    @never_raises(catalogue.BREAKER_STATE)
    def breaker_state(self, component: str, state: str) -> None:
        """The component's circuit breaker is in this state; another one than before is a transition."""
        instruments = self.recorder.instruments
        component = closed(component, self.settings.components) or self._dropped_component()
        known = closed(state, BREAKER_STATES)
        if known is None:
            instruments.dropped(catalogue.BREAKER_STATE.name)
        state = known or OTHER
        with self._breaker_lock:
            before = self._breaker_states.get(component)
            if before == state:
                return
            self._breaker_states[component] = state
            if before is not None:
                instruments.breaker_state.child(component, before).set(0)
            # Breakers begin closed, and many report only their changes.
            if state != (before or "closed"):
                instruments.breaker_transitions.child(component, state).inc()
            instruments.breaker_state.child(component, state).set(1)

    @never_raises(catalogue.BREAKER_REJECTIONS)
    def breaker_rejection(self, component: str, state: str) -> None:
        """The component's circuit breaker refused a call while it was in this state."""
        self.recorder.instruments.breaker_rejections.child(component, state).inc()
        record = self._record()
        if record is not None:
            record.refused(component, state)

    @never_raises(catalogue.CACHE_ENTRIES)
    def cache_entries(self, tier: str, count: float) -> None:
        """A cache tier holds so many answers."""
        self.recorder.instruments.cache_entries.child(tier).set(_amount(count))

    @never_raises(catalogue.CACHE_EVICTIONS)
    def cache_eviction(self, tier: str, count: float = 1) -> None:
        """A cache tier dropped so many answers for want of room."""
        self.recorder.instruments.cache_evictions.child(tier).inc(_amount(count))

    @never_raises(catalogue.CACHE_EXPIRATIONS)
    def cache_expiration(self, tier: str, count: float = 1) -> None:
        """A cache tier dropped so many answers because their time was up."""
        self.recorder.instruments.cache_expirations.child(tier).inc(_amount(count))

    @never_raises(catalogue.LLM_TIME_TO_FIRST_TOKEN)
    def llm_first_token(self, component: str, provider: str, model: str, seconds: float) -> None:
        """The first piece of a streamed model call came after so many seconds."""
        histogram = self.recorder.instruments.llm_first_token.child(component, provider, model)
        histogram.observe(_amount(seconds), self.tracing.exemplar())

    @never_raises(catalogue.LLM_TOKENS)
    def tokens(
        self, component: str, provider: str, model: str, *, input_tokens: float, output_tokens: float
    ) -> None:
        """A model call used so many tokens, which also adds to its cost where its price is known."""
        read, written = _amount(input_tokens), _amount(output_tokens)
        instruments = self.recorder.instruments
        key = next((known for known in self._prices if known == (component, provider, model)), None)
        if key is None:
            instruments.dropped(catalogue.LLM_TOKENS.name)
            key = (OTHER, OTHER, OTHER)
        instruments.tokens.child(*key, "input").inc(read)
        instruments.tokens.child(*key, "output").inc(written)
        price = self._prices.get(key)
        cost = None if price is None else price.cost(read, written)
        if cost is not None:
            instruments.cost.child(*key).inc(cost)
        if self.recorder.watch is not None:
            self._note_tokens((key[1], key[2], "chat"), read, written, cost)

    def _record(self) -> QueryRecord | None:
        return None if self.recorder.watch is None else self.current_query().record

    def _note_tokens(self, model: Model, read: float, written: float, cost: float | None) -> None:
        step, record = current_step(), self._record()
        if step is not None:
            step.used(model, read, written)
        if record is not None:
            record.used(read, written, cost)

    def _listen(self, port: int, *, beside_others: bool) -> MetricsServer:
        return MetricsServer(
            self._exposition.render,
            self.settings.host,
            port,
            beside_others=beside_others,
            access=self._access,
            count=lambda result: self.recorder.instruments.metrics_requests.child(result).inc(),
            failed=lambda error: self.errors.report(catalogue.METRICS_REQUESTS, error),
        )

    def _after_fork(self) -> None:
        """In a forked child: threads, port and place are the parent's. The first request starts it again."""
        self._forked_while_started = self._server is not None
        if self._server is not None:
            self._server.forget()
        self._server, self._heartbeat = None, None
        self._health.after_fork()
        self._breaker_lock = threading.RLock()
        self._starting = threading.RLock()
        self._exposition.after_fork()
        self._membership.after_fork()
        if self._log is not None:
            self._log.after_fork()

    def _known_scenario(self, scenario: object) -> str:
        known = closed(scenario, self.settings.all_scenarios)
        if known is None:
            self.recorder.instruments.dropped(catalogue.ACTIVE_USERS.name)
        return known or OTHER

    def _instant(self, began: float) -> float:
        """When a query began, or 0 if that is no past time: those of another clock would spoil sums."""
        try:
            is_past = 0.0 <= began <= time.monotonic()
        except Exception:  # noqa: BLE001 - it may not even be a number
            is_past = False
        if is_past:
            return float(began)
        self.errors.report(catalogue.QUERIES_STARTED, ValueError("not a past time of the monotonic clock"))
        return 0.0

    def _dropped_component(self) -> str:
        self.recorder.instruments.dropped(catalogue.BREAKER_STATE.name)
        return OTHER


def _amount(value: float) -> float:
    """The value, when a counter or gauge can hold it without being spoiled for good.

    Raises:
        ValueError: it is negative, no number or beyond sense; the guard of every recording call counts that.
    """
    number = float(value)
    if not 0 <= number <= _LARGEST_AMOUNT:
        raise ValueError(f"an amount is 0 or more, and at most {_LARGEST_AMOUNT:.0e}")
    return number
