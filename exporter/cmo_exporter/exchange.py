"""One HTTP request and its response, watched from outside of the application.

It ends with its last byte, not when the application returns, which is after its background tasks. What each
message costs is paid by every request of the service, so errors are caught in place instead of by a
decorator, and nothing is looked up twice.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter import catalogue
from cmo_exporter.catalogue import (
    INCOMPLETE,
    LIVE,
    SCENARIO_HEADER,
    SESSION_END_HEADER,
    SESSION_HEADER,
)
from cmo_exporter.departures import DepartureWatch, Listener
from cmo_exporter.http_tallies import STATUS_CODES, ActiveRequests, known_method, status_code
from cmo_exporter.queries import Query
from cmo_exporter.routes import matched_route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from cmo_exporter.exporter import Exporter
    from cmo_exporter.http_tallies import HttpTallies

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

MARK: Final = "cmo_exporter"
"""Under this key a scope holds its exchange: an application in an instrumented one is not counted again."""

_SCENARIO: Final = SCENARIO_HEADER.lower().encode()
_SESSION: Final = SESSION_HEADER.lower().encode()
_SESSION_END: Final = SESSION_END_HEADER.lower().encode()
_OURS: Final = frozenset({_SCENARIO, _SESSION, _SESSION_END})

_SERVER_ERROR: Final = 500
_CLIENT_CLOSED_REQUEST: Final = 499
_LOWEST_FAILURE: Final = 400
_NO_STATUS: Final = -1
_TIMEOUT_STATUSES: Final = frozenset({408, 504})
_REFUSED_STATUSES: Final = frozenset({503})


class Site:
    """What all exchanges of one application in one event loop have in common."""

    def __init__(
        self,
        exporter: Exporter,
        tallies: HttpTallies,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.exporter = exporter
        self.recorder = exporter.recorder
        self.errors = exporter.recorder.errors
        # Without traces nothing is asked for: every request would pay.
        self.exemplar = exporter.tracing.exemplar if exporter.tracing.enabled else None
        self.tallies = tallies
        self.usual = tallies.usual
        self.loop = loop
        self.live = exporter.recorder.ledger.scenario(LIVE)
        self.watch = DepartureWatch(loop, self.errors, exporter.recorder.journal)
        self.active = self.watch.active
        self._active_requests = ActiveRequests(exporter.recorder, self.active)

    def close(self) -> None:
        """The event loop is closed."""
        self._active_requests.close()


class Exchange:
    """Counts one request; see the module."""

    __slots__ = (
        "_arrived",
        "_body_read",
        "_ending",
        "_first_byte_at",
        "_inner_receive",
        "_inner_send",
        "_left_at",
        "_listened",
        "_query",
        "_received_bytes",
        "_receiving",
        "_root_path",
        "_scope",
        "_sent_bytes",
        "_status",
        "complete",
        "listener",
        "method",
        "site",
    )

    def __init__(self, site: Site, scope: Scope, root_path: str, receive: Receive, send: Send) -> None:
        self._arrived = arrived = monotonic()
        self.site = site
        self.method: object = scope["method"]  # as it arrived; the application may put another there
        self._scope = scope
        self._inner_receive = receive
        self._inner_send = send
        self._root_path = root_path
        self._query: Query | None = None
        self._status = self._received_bytes = self._sent_bytes = 0
        self.complete = False
        self._first_byte_at: float | None = None
        self._left_at: float | None = None
        # What follows is about listening whether the user leaves.
        self._receiving = self._body_read = self._listened = False
        self.listener: Listener | None = None
        watch = site.watch
        if not watch.ticking:
            watch.tick_later()
        site.active[self] = arrived

    def begin_query(self) -> None:
        """The request is a query, which has not been said before."""
        try:
            site, query = self.site, None
            try:
                headers = self._scope["headers"]
                if type(headers) is not list:  # an iterator could be read once only
                    headers = self._scope["headers"] = list(headers)
                for name, _ in headers:
                    if name in _OURS:
                        query = self._query_of(dict(headers))
                        break
            except (AttributeError, KeyError, TypeError, ValueError) as error:  # of a server that is none
                site.errors.report(catalogue.ACTIVE_USERS, error)
            if query is None:
                query = Query(site.recorder, site.live, self._arrived)
            query.begin()
            self._query = query
        except Exception as error:  # noqa: BLE001 - as above
            self.site.errors.report(catalogue.QUERIES_STARTED, error)

    def _query_of(self, headers: Mapping[bytes, bytes]) -> Query:
        exporter = self.site.exporter
        scenario, session = LIVE, headers.get(_SESSION)
        if _SCENARIO in headers and exporter.settings.honour_scenario_header:
            scenario = headers[_SCENARIO].decode("latin-1")
        return exporter.query(
            scenario,
            None if session is None else session.decode("latin-1"),
            end_session=headers.get(_SESSION_END, b"").strip() in (b"1", b"true"),
            began=self._arrived,
        )

    @property
    def is_query(self) -> bool:
        """Whether the request is a query."""
        return self._query is not None

    async def receive(self) -> Message:
        """What the application calls to receive; also notices that the user has left."""
        if self.listener is not None and self.listener.listens:
            message = await self.listener.next()
            if not self.listener.listens:
                self.site.watch.wait_again(self, monotonic())
            return message
        self._receiving = True
        receive = self._inner_receive  # Python 3.11 is slower to call it where it is
        try:
            message = await receive()
        except asyncio.CancelledError:
            self._listened = self._body_read
            raise
        finally:
            self._receiving = False
        try:
            if message["type"] == "http.request":
                self._received_bytes += len(message.get("body") or b"")
                self._body_read = not message.get("more_body")
            else:
                self._received(message)
        except Exception as error:  # noqa: BLE001 - as above
            self.site.errors.report(catalogue.NETWORK, error)
        if self.listener is not None:
            self.site.watch.wait_again(self, monotonic())
        return message

    async def send(self, message: Message) -> None:
        """What the application calls to send; the request ends when its last byte has been sent."""
        if self.listener is not None:
            self._ending = _is_last(message)
        inner_send = self._inner_send  # as above
        try:
            await inner_send(message)
        except OSError:  # how servers of ASGI 2.4 and later say that the user has left
            self._ending = False
            self._leave()
            raise
        try:
            kind = message["type"]
            if kind == "http.response.body":
                body = message.get("body")
                if body:
                    self._sent_bytes += len(body)
                if not message.get("more_body"):
                    self._finish(None)
                elif body and self._first_byte_at is None and self._left_at is None:
                    self._first_byte_at = monotonic()
            elif kind == "http.response.start":
                status = message["status"]
                self._status = status if status in STATUS_CODES else _NO_STATUS
            elif kind == "http.response.pathsend":
                self._finish(None)
        except Exception as error:  # noqa: BLE001 - as above
            self.site.errors.report(catalogue.HTTP_SERVER_REQUEST_DURATION, error)

    def end(self, error: BaseException | None) -> None:
        """The application has returned or raised; if its last byte is out, all has been said."""
        try:
            # A user who was listened for and not heard to leave is still there: it is the server that stops.
            stopping = isinstance(error, asyncio.CancelledError) and self._could_hear()
            if self.listener is not None:
                self._ending = False
                self.listener.stop()
            if self.complete:
                return
            if isinstance(error, asyncio.CancelledError) and not stopping:
                self._leave()
            elif self._left_at is None and (error is None or stopping):
                error = RuntimeError("The application ended without completing its response.")
            self._finish(error)
        except Exception as problem:  # noqa: BLE001 - as above
            self.site.errors.report(catalogue.HTTP_SERVER_REQUEST_DURATION, problem)

    def overdue(self) -> None:
        """The answer takes long: listen whether the user leaves, unless the application does so itself."""
        if self.complete or self._left_at is not None:
            return
        if self.listener is None:
            self._ending = False
            self.listener = Listener(self._inner_receive, self._received, self.site.loop)
        # To ask for a body is to say "100 Continue" to the client, which is for the application to decide.
        if not self._receiving and not self.listener.listens and (self._body_read or not self._is_asked()):
            self.listener.listen()

    def _is_asked(self) -> bool:
        return any(name == b"expect" for name, _ in self._scope.get("headers") or ())

    def _could_hear(self) -> bool:
        return self._listened or (self.listener is not None and self.listener.listens)

    def _received(self, message: Message) -> None:
        try:
            kind = message["type"]
            if kind == "http.request":
                if self._query is not None:
                    self._received_bytes += len(message.get("body") or b"")
                self._body_read = not message.get("more_body", False)
            elif kind == "http.disconnect":
                self._leave()
        except Exception as error:  # noqa: BLE001 - as above
            self.site.errors.report(catalogue.NETWORK, error)

    def _leave(self) -> None:
        # Once the last byte is out, or on its way, a disconnect is how servers say that all is done.
        if self.complete or self._left_at is not None or (self.listener is not None and self._ending):
            return
        self._left_at = monotonic()
        if self._query is not None:
            self._query.client_left()

    def _finish(self, error: BaseException | None) -> None:
        if self.complete:
            return
        self.complete = True
        ended = monotonic()
        scope, site, query, status = self._scope, self.site, self._query, self._status
        try:  # noqa: SIM105 - `suppress` takes longer than all of this
            del scope[MARK]
        except KeyError:  # the application has thrown it out
            pass
        try:
            # Before the query ends and the request is not active any more: then all has been counted.
            first_byte_at, tally = self._first_byte_at, None
            if error is None and self._left_at is None:
                first_byte_at = first_byte_at or ended  # it went out with the last
                # What FastAPI puts there, for included routers alone, takes longer to look at.
                route = matched_route(scope) if "fastapi" in scope else scope.get("route")
                tally = site.usual.get((self.method, id(route), status))
            if tally is None or scope.get("root_path", "") != self._root_path:
                status, ended, error_type = self._verdict(error, ended)
                kind = (known_method(self.method), status, error_type)
                tally = site.tallies.of(scope, self._root_path, kind)
            if query is None:
                self._received_bytes = self._sent_bytes = 0
            tally.lines.append((self._arrived, first_byte_at, ended, self._received_bytes, self._sent_bytes))
            if site.exemplar is not None and (exemplar := site.exemplar()) is not None:
                waited = None if first_byte_at is None else first_byte_at - self._arrived
                tally.remember(ended - self._arrived, waited, exemplar)
        finally:
            try:  # noqa: SIM105 - as above
                del site.active[self]
            except KeyError:  # in a child that was forked meanwhile
                pass
            if query is not None:
                if status >= _LOWEST_FAILURE and error is None and self._left_at is None:
                    _let_status_speak(query, status)
                query.finish(error, ended)

    def _verdict(self, error: BaseException | None, ended: float) -> tuple[int, float, str]:
        """Status, when it ended, and the error type, which is empty where all went well."""
        if self._left_at is not None:
            return _CLIENT_CLOSED_REQUEST, self._left_at, ""
        if error is None:
            failed = self._status >= _SERVER_ERROR
            return self._status, ended, status_code(self._status) if failed else ""
        if self._status:
            return self._status, ended, INCOMPLETE
        # With nothing sent, it is the server that answers, in the application's place.
        return _SERVER_ERROR, ended, status_code(_SERVER_ERROR)


def _let_status_speak(query: Query, status: int) -> None:
    """Let the status speak where the service did not, and never against a failure that it named."""
    query.undelivered()
    if status in _TIMEOUT_STATUSES:
        query.timed_out()
    elif status == _CLIENT_CLOSED_REQUEST:
        query.cancelled()
    elif status in _REFUSED_STATUSES or status < _SERVER_ERROR:
        query.rejected()


def _is_last(message: Message) -> bool:
    try:
        kind = message["type"]
        return kind == "http.response.pathsend" or (
            kind == "http.response.body" and not message.get("more_body", False)
        )
    except Exception:  # noqa: BLE001 - the server will refuse it
        return False
