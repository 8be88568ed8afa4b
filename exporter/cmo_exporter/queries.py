"""A query: one user question from its beginning to its end, however it came.

The service says what came of it; the transport says whether that reached the user. A success that was
not delivered is none, so an error or a departure before the last byte overrides it; nothing ever turns
a failure into a success.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from cmo_exporter import catalogue
from cmo_exporter.catalogue import OTHER, QUERY_CACHE_RESULTS, QUERY_OUTCOMES, SOURCES
from cmo_exporter.components import ComponentCall
from cmo_exporter.guard import never_raises
from cmo_exporter.instruments import closed
from cmo_exporter.postponed_ends import put_aside
from cmo_exporter.sessions import is_session_id

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.ledger import ScenarioBook
    from cmo_exporter.query_record import QueryRecord
    from cmo_exporter.recorder import Recorder
    from cmo_exporter.sessions import SessionKey

_REAL_ANSWERS: Final = frozenset({"cache", "lightrag", "perplexity"})
# What is said of every query is looked up, and the guard is written out, so that saying it costs little.
_OUTCOMES_OF_SOURCES: Final = {
    source: (source, "success" if source in _REAL_ANSWERS else "error") for source in SOURCES
}
_NOT_ORDINARY: Final = (None, "cancelled")
_CACHE_RESULTS: Final = {result: result for result in QUERY_CACHE_RESULTS}

_log = logging.getLogger("cmo_exporter")

CURRENT: ContextVar[Query | None] = ContextVar("cmo_exporter_query", default=None)


def current_query() -> Query | None:
    """The query that this code works for, unless it has finished."""
    query = CURRENT.get()
    return None if query is None or query._finished else query  # noqa: SLF001 - of this module; asked often


class Query:
    """One user question; a context manager that counts it when it begins and when it ends.

    The first outcome that the service names while the user is there is the one that counts; only a failure
    that is named after a success takes that back. Left without an outcome, the query is an error. No method
    raises.
    """

    __slots__ = (
        "_began",
        "_book",
        "_cache_result",
        "_closing",
        "_finished",
        "_first_token_seen",
        "_left_at",
        "_outcome",
        "_recorder",
        "_session",
        "_source",
        "_token",
        "record",
    )

    def __init__(
        self,
        recorder: Recorder,
        book: ScenarioBook,
        began: float = 0.0,
        session: SessionKey | None = None,
        closing: SessionKey | None = None,
    ) -> None:
        self._recorder = recorder
        self._book = book
        self._session = session
        self._closing = closing  # the same, if the session closes once the query has finished
        self._began = began  # 0 until it begins, unless it began before
        self._left_at: float | None = None
        self._outcome: str | None = None
        self._source: str | None = None
        self._cache_result: str | None = None
        self._first_token_seen = False
        self._finished = True
        self._token: Token[Query | None] | None = None
        self.record: QueryRecord | None = None

    @property
    def errors(self) -> ErrorCounter:
        """Where errors inside these methods are counted."""
        return self._recorder.errors

    @property
    def scenario(self) -> str:
        """The scenario it counts for."""
        return self._book.name

    @property
    def in_progress(self) -> bool:
        """Whether the query has begun and not finished."""
        return not self._finished

    def answered(self, source: str) -> None:
        """The user gets an answer from ``source``.

        From a cache, LightRAG or Perplexity it is a success; a stale answer or an apology is an error.
        """
        try:
            known, outcome = _OUTCOMES_OF_SOURCES[source]
        except Exception:  # noqa: BLE001 - it may be unhashable, or raise when it is compared
            self._recorder.dropped(catalogue.ANSWERS)
            known, outcome = OTHER, "error"
        if self._outcome is None and self._left_at is None:  # as `_claim`, for nearly all
            self._outcome, self._source = outcome, known
        else:
            self._claim(outcome, known)

    def failed(self) -> None:
        """The query has failed, without even an apology."""
        self._claim("error")

    def timed_out(self) -> None:
        """The query's own deadline has passed."""
        self._claim("timeout")

    def rejected(self) -> None:
        """The query was refused before any work."""
        self._claim("rejected")

    def cancelled(self) -> None:
        """The user has left."""
        self._claim("cancelled")

    def cache_result(self, result: str) -> None:
        """What the caches as a whole did: ``hit``, ``miss`` or ``bypass``; the first call counts.

        A query that never says so counts as ``bypass``: no cache was asked.
        """
        if self._cache_result is not None:
            return
        try:
            self._cache_result = _CACHE_RESULTS[result]
        except Exception:  # noqa: BLE001 - it may be unhashable, or raise when it is compared
            self._cache_result = OTHER
            self._recorder.dropped(catalogue.QUERY_CACHE_RESULTS_TOTAL)

    @never_raises(catalogue.QUERY_TIME_TO_FIRST_TOKEN)
    def first_token(self) -> None:
        """The first piece of a streamed answer is on its way; the first call counts."""
        if self._finished or self._first_token_seen:
            return
        self._first_token_seen = True
        seconds = monotonic() - self._began
        record = self.record
        if record is not None:
            record.first_token(seconds)
        exemplar = None if record is None else record.exemplar
        self._recorder.instruments.first_token.child(self.scenario).observe(seconds, exemplar)

    @never_raises(catalogue.CACHE_REQUESTS)
    def cache_request(self, tier: str, result: str) -> None:
        """One look-up in one cache tier: ``hit``, ``miss`` or ``error``."""
        self._recorder.instruments.cache_requests.child(self.scenario, tier, result).inc()
        if self.record is not None:
            self.record.looked_up(tier, result)

    @never_raises(catalogue.FALLBACKS)
    def fallback(self, *, source: str, target: str, reason: str) -> None:
        """The question is handed on from one source of answers to the next."""
        self._recorder.instruments.fallbacks.child(self.scenario, source, target, reason).inc()
        if self.record is not None:
            self.record.fell_back(source, target, reason)

    @never_raises(catalogue.QUERIES)
    def concluded(self, outcome: str, source: str | None = None) -> None:
        """What came of the query, in one word and, where there is an answer, its source.

        A success from a source that gives no real answers is an error, and so is an unknown outcome.
        """
        known = closed(outcome, QUERY_OUTCOMES)
        origin = None if source is None else closed(source, SOURCES) or OTHER
        if known is None:
            self._recorder.instruments.dropped(catalogue.QUERIES.name)
        if origin == OTHER:
            self._recorder.instruments.dropped(catalogue.ANSWERS.name)
        if known is None or (known == "success" and origin not in (None, *_REAL_ANSWERS)):
            known = "error"
        self._claim(known, origin)

    def component(self, name: str) -> ComponentCall:
        """A call of a component for this query; a context manager."""
        return ComponentCall(self._recorder, self.scenario, name, self.record)

    def model_call(self, component: str, provider: str, model: str, operation: str = "chat") -> ComponentCall:
        """A call of a model, which its span tells by OpenTelemetry's conventions for generative AI.

        Args:
            component: one of the settings' components.
            provider: who is called, and ``model`` which one; both as in the settings' models.
            model: the model's name.
            operation: ``chat``, ``text_completion``, ``generate_content`` or ``embeddings``.
        """
        return ComponentCall(
            self._recorder, self.scenario, component, self.record, (provider, model, operation)
        )

    @never_raises(catalogue.ACTIVE_USERS)
    def asked_by(self, session: str) -> None:
        """Whose question it is, where only the service can tell (a cookie, a token); the first word counts.

        Args:
            session: the user's session id.
        """
        if self._session is not None or self._finished or not is_session_id(session):
            return
        ledger = self._recorder.ledger
        key = ledger.sessions.key(self.scenario, str.__str__(session))
        if ledger.open_session(self.scenario, key):
            self._session = key
        else:
            self._recorder.dropped(catalogue.ACTIVE_USERS)

    @never_raises(catalogue.QUERIES)
    def question(self, text: str) -> None:
        """What the user asks. Nothing is kept of it, unless the setting ``record_question_text`` is on."""
        if self.record is not None:
            self.record.asked(text)

    def begin(self) -> None:
        """Count the query as begun. `with` does this; a transport that cannot use it calls it itself."""
        try:
            if self._token is not None:
                return
            if not self._began:
                self._began = monotonic()
            self._finished = False
            self._token = CURRENT.set(self)
            book, recorder = self._book, self._recorder
            book.under_way[self] = self._began
            if self._session is None:
                book.lines.append(None)
            elif not recorder.ledger.enter(book, self._session):
                self._session = None
                recorder.dropped(catalogue.ACTIVE_USERS)
            if recorder.watch is not None:
                self.record = recorder.watch.query(book.name, self._began)
        except Exception as error:  # noqa: BLE001 - the guard, written out
            self.errors.report(catalogue.QUERIES_STARTED, error)

    def client_left(self) -> None:
        """The transport saw the user leave before the last byte; their waiting ends now."""
        if self._left_at is None and not self._finished:
            self._left_at = monotonic()

    def undelivered(self) -> None:
        """The transport answered with a failure, so the success that the service claims was none."""
        if self._outcome == "success":
            self._outcome, self._source = "error", None

    def finish(self, error: BaseException | None = None, ended: float = 0.0) -> None:
        """Count the query as finished; later calls change nothing.

        Args:
            error: what ended it, when it did not end well.
            ended: monotonic seconds at which it ended, when that was earlier than now.
        """
        try:
            token = self._token
            if self._finished or token is None:
                return
            # Not a lambda: its variables would take longer to reach in all of this method.
            if error is not None and put_aside(error, partial(self.finish, error, ended or monotonic())):
                return
            self._finished = True
            # An asynchronous generator may be closed in another context than it was opened in.
            try:  # noqa: SIM105 - `suppress` takes as long as all of the counting
                CURRENT.reset(token)
            except ValueError:
                pass
            outcome, source, seconds = self._outcome, self._source, (ended or monotonic()) - self._began
            if outcome in _NOT_ORDINARY or error is not None or self._left_at is not None:
                outcome, source, seconds = self._settled(error, seconds)
            book, cache_result = self._book, self._cache_result or "bypass"
            try:
                del book.under_way[self]
            except KeyError:  # in a child that was forked meanwhile
                return
            ending = book.endings[outcome, cache_result, source]
            if self._session is None:
                ending.lines.append(seconds)
            else:
                self._recorder.ledger.leave(ending, seconds, self._session, end=self._closing is not None)
            if self.record is not None:
                if self.record.exemplar is not None:
                    ending.remember(seconds, self.record.exemplar)
                self.record.finish(outcome=outcome, source=source, cache=cache_result, seconds=seconds)
        except Exception as problem:  # noqa: BLE001 - the guard, written out
            self.errors.report(catalogue.QUERIES, problem)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _claim(self, outcome: str, source: str | None = None) -> None:
        # After a departure nothing can be delivered; a refusal then is the framework's, of half a body.
        if self._left_at is not None:
            return
        if self._outcome is None or (self._outcome == "success" and outcome != "success"):
            self._outcome, self._source = outcome, source

    def _settled(self, error: BaseException | None, seconds: float) -> tuple[str, str | None, float]:
        """Outcome, source and duration where not everything went the ordinary way."""
        outcome, source = self._outcome or "error", self._source
        if error is not None or self._left_at is not None:
            # Not delivered: no answer, and no success. A failure that was known before stays what it is.
            source = None
            if self._outcome in (None, "success"):
                left = self._left_at is not None or isinstance(error, (asyncio.CancelledError, GeneratorExit))
                outcome = "cancelled" if left else "timeout" if isinstance(error, TimeoutError) else "error"
        if self._left_at is not None:
            seconds = self._left_at - self._began
        if outcome == "cancelled" and self._first_token_seen:
            self._recorder.instruments.streams_abandoned.child(self.scenario).inc()
        return outcome, source, seconds


class NoQuery(Query):
    """Stands for the query where there is none: outcomes go nowhere, the rest is counted under ``live``."""

    __slots__ = ("_said",)

    def begin(self) -> None:
        """Nothing begins."""

    def answered(self, source: str) -> None:
        """Counts nothing: there is no query that it could answer."""
        self._claim("success", source)

    def cache_result(self, result: str) -> None:
        """Counts nothing: there is no query whose result it could be."""

    def _claim(self, outcome: str, source: str | None = None) -> None:  # noqa: ARG002 - as of a query
        """Outcomes of no query count nothing; the first is said in the log."""
        if not hasattr(self, "_said"):
            self._said = True
            with suppress(Exception):  # the log's filters and handlers are the service's
                _log.warning(
                    "An answer was said where no query is in progress, and is not counted. Is its route in "
                    "query_routes, and the call made before the response has ended? No more is said of it."
                )

    def __enter__(self) -> Self:
        return self
