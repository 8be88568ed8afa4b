"""The ASGI middleware: a request to a query route is a query, and every request is in the HTTP metrics.

Pure ASGI, wrapped around the application as a whole: outside of the layer that turns exceptions into
answers, so that the last byte of those is seen as well. A request ends with its last byte, not when the
application returns, which is after its background tasks. A user who leaves is seen even when the
application does not look: once the body has been read, something listens for them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter import catalogue
from cmo_exporter.catalogue import LIVE, OTHER, SCENARIO_HEADER, SESSION_END_HEADER, SESSION_HEADER
from cmo_exporter.errors import ExporterError
from cmo_exporter.guard import never_raises
from cmo_exporter.instruments import KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD
from cmo_exporter.request_watch import watched
from cmo_exporter.routes import RouteSet, path_in_app, route_template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from fastapi import FastAPI

    from cmo_exporter.exporter import Exporter
    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.queries import Query

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MARK: Final = "_cmo_exporter"
_QUERY_METHODS: Final = ("POST",)
_SCENARIO: Final = SCENARIO_HEADER.lower().encode()
_SESSION: Final = SESSION_HEADER.lower().encode()
_SESSION_END: Final = SESSION_END_HEADER.lower().encode()
_METHODS: Final = frozenset(KNOWN_HTTP_METHODS)

_SERVER_ERROR: Final = 500
_CLIENT_CLOSED_REQUEST: Final = 499
_LOWEST_FAILURE: Final = 400
_STATUS_CODES: Final = {status: str(status) for status in range(100, 600)}
_TIMEOUT_STATUSES: Final = frozenset({408, 504})
_REFUSED_STATUSES: Final = frozenset({503})


def instrument_asgi(
    app: App,
    exporter: Exporter,
    query_routes: Iterable[str] = ("/query",),
    query_methods: Iterable[str] = _QUERY_METHODS,
) -> App:
    """Wrap any ASGI application.

    Args:
        app: the application as a whole.
        exporter: where it is recorded.
        query_routes: the routes on which a request is a query, as templates (``/chats/{chat}/query``).
        query_methods: the methods with which it is one.

    Returns:
        The application to serve instead of ``app``.
    """
    routes, methods = RouteSet(query_routes), frozenset(query_methods)

    def wrapped(inner: App) -> App:
        return Middleware(inner, exporter, routes, methods, owner=app)

    return watched(exporter.recorder.watch, app, app, wrapped)


def instrument_fastapi(
    app: FastAPI,
    exporter: Exporter,
    query_routes: Iterable[str] = ("/query",),
    query_methods: Iterable[str] = _QUERY_METHODS,
) -> None:
    """Instrument a FastAPI application in place; a second time does nothing.

    Args:
        app: the application, before it has served anything.
        exporter: where it is recorded.
        query_routes: the routes on which a request is a query, as templates (``/chats/{chat}/query``).
        query_methods: the methods with which it is one.

    Raises:
        ExporterError: the application has begun to serve, so that nothing can be put around it any more.
    """
    if getattr(app, _MARK, None) is not None:
        return
    if app.middleware_stack is not None:
        raise ExporterError(
            "instrument_fastapi came too late: the application has begun to serve. Call it where the "
            "application is made, before the server starts."
        )
    exporter.tracing.instrument(app)
    build = app.build_middleware_stack
    routes, methods = RouteSet(query_routes), frozenset(query_methods)

    def wrapped(inner: App) -> App:
        return Middleware(inner, exporter, routes, methods, owner=app)

    def build_instrumented() -> Any:
        return watched(exporter.recorder.watch, app, build(), wrapped)

    # FastAPI offers no other way to stand outside of the layer that turns exceptions into answers.
    app.build_middleware_stack = build_instrumented  # type: ignore[method-assign]
    setattr(app, _MARK, exporter)


class Middleware:
    """Wraps an ASGI application; see `instrument_asgi` and `instrument_fastapi`."""

    def __init__(
        self, app: App, exporter: Exporter, routes: RouteSet, methods: frozenset[str], *, owner: object
    ) -> None:
        self.app = app  # FastAPI follows this name to see whether OpenTelemetry is among its middlewares
        self._exporter = exporter
        self._routes = routes
        self._methods = methods
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        self._exporter.watch_running_loop()
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(self._exporter, scope, receive, send, self._owner)
        exchange.begin(is_query=self._is_query(scope))
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        else:
            exchange.end(None)

    def _is_query(self, scope: Scope) -> bool:
        return scope.get("method") in self._methods and path_in_app(scope) in self._routes


class Exchange:
    """One HTTP request and its response, watched from outside of the application."""

    __slots__ = (
        "_app",
        "_arrived",
        "_complete",
        "_exporter",
        "_inner_receive",
        "_inner_send",
        "_left_at",
        "_listener",
        "_method",
        "_query",
        "_root_path",
        "_scope",
        "_status",
    )

    def __init__(self, exporter: Exporter, scope: Scope, receive: Receive, send: Send, app: object) -> None:
        self._arrived = time.monotonic()
        self._exporter = exporter
        self._scope = scope
        self._inner_receive = receive
        self._inner_send = send
        self._app = app
        self._root_path = str(scope.get("root_path", ""))
        method = scope.get("method")
        self._method = method if method in _METHODS else OTHER_HTTP_METHOD
        self._status = 0
        self._complete = False
        self._left_at: float | None = None
        self._query: Query | None = None
        self._listener: asyncio.Task[Message] | None = None

    @property
    def errors(self) -> ErrorCounter:
        """Where errors inside these methods are counted."""
        return self._exporter.errors

    def begin(self, *, is_query: bool) -> None:
        """The request has arrived."""
        self._begin_request()
        if is_query:
            self._begin_query()

    async def receive(self) -> Message:
        """What the application calls to receive; also notices that the user has left."""
        if self._listener is not None:
            return await asyncio.shield(self._listener)
        message = await self._inner_receive()
        self._received(message)
        return message

    async def send(self, message: Message) -> None:
        """What the application calls to send; the request ends when its last byte has been sent."""
        try:
            await self._inner_send(message)
        except OSError:  # how servers of ASGI 2.4 and later say that the user has left
            self._note_departure()
            raise
        self._sent(message)

    @never_raises(catalogue.QUERIES)
    def end(self, error: BaseException | None) -> None:
        """The application has returned or raised; if its last byte is out, all has been said."""
        if self._listener is not None:
            self._listener.cancel()
        if self._complete:
            return
        # A user who was listened for and not heard to leave is still there: it is the server that stops.
        stopping = isinstance(error, asyncio.CancelledError) and self._listener is not None
        if self._left_at is None and (error is None or stopping):
            error = RuntimeError("The application ended without completing its response.")
        left = self._left_at is not None or isinstance(error, asyncio.CancelledError)
        self._finish(_CLIENT_CLOSED_REQUEST if left else _SERVER_ERROR, error)

    @never_raises(catalogue.HTTP_SERVER_ACTIVE_REQUESTS)
    def _begin_request(self) -> None:
        instruments = self._exporter.recorder.instruments
        if self._method == OTHER_HTTP_METHOD:
            instruments.dropped(catalogue.HTTP_SERVER_ACTIVE_REQUESTS.name)
        instruments.http_active.child(self._method).inc()

    @never_raises(catalogue.QUERIES_STARTED)
    def _begin_query(self) -> None:
        exporter = self._exporter
        scenario, session, ends = LIVE, None, False
        for name, value in self._scope.get("headers") or ():
            if name == _SCENARIO and exporter.settings.honour_scenario_header:
                scenario = value.decode("latin-1")
            elif name == _SESSION:
                session = value.decode("latin-1")
            elif name == _SESSION_END:
                ends = value.strip() in (b"1", b"true")
        self._query = exporter.query(scenario, session, end_session=ends, began=self._arrived)
        self._query.begin()

    @never_raises(catalogue.NETWORK)
    def _received(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._note_departure()
        elif self._query is not None and message["type"] == "http.request":
            body = message.get("body") or b""
            self._exporter.recorder.instruments.network.child("receive").inc(len(body))
            if not message.get("more_body", False):
                self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> Message:
        while True:
            message = await self._inner_receive()
            if message["type"] == "http.disconnect":
                self._note_departure()
                return message

    def _note_departure(self) -> None:
        if self._complete or self._left_at is not None:
            return
        self._left_at = time.monotonic()
        if self._query is not None:
            self._query.client_left()

    @never_raises(catalogue.HTTP_SERVER_REQUEST_DURATION)
    def _sent(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
        elif kind == "http.response.body":
            if self._query is not None:
                body = message.get("body") or b""
                self._exporter.recorder.instruments.network.child("transmit").inc(len(body))
            if not message.get("more_body", False):
                self._finish(self._status if self._left_at is None else _CLIENT_CLOSED_REQUEST, None)
        elif kind == "http.response.pathsend":
            self._finish(self._status, None)

    def _finish(self, status: int, error: BaseException | None) -> None:
        self._complete = True
        ended = time.monotonic() if self._left_at is None else self._left_at
        if self._query is not None:
            self._settle_query(self._query, status, error)
        instruments = self._exporter.recorder.instruments
        try:
            route = route_template(self._scope, self._app, self._root_path)
            code = _STATUS_CODES.get(status, OTHER)
            instruments.http_duration.child(self._method, route, code).observe(
                ended - self._arrived, self._exporter.tracing.exemplar()
            )
        finally:
            instruments.http_active.child(self._method).dec()

    def _settle_query(self, query: Query, status: int, error: BaseException | None) -> None:
        """Let the status speak where the service did not, and never against a failure that it named."""
        if error is None and self._left_at is None and status >= _LOWEST_FAILURE:
            if status in _TIMEOUT_STATUSES:
                query.timed_out()
            elif status == _CLIENT_CLOSED_REQUEST:
                query.cancelled()
            elif status in _REFUSED_STATUSES or status < _SERVER_ERROR:
                query.rejected()
            query.undelivered()
        query.finish(error)
