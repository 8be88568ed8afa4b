"""The ASGI wrapper that stands around everything while traces or the query log are on.

It makes the span of a request, unless opentelemetry-instrumentation-fastapi does, and lets the queries that
come with the request know its route and status. opentelemetry-instrumentation-fastapi would do the first as
well, at three times the cost, and for FastAPI alone.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter import catalogue
from cmo_exporter.instruments import KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD
from cmo_exporter.query_record import enter_request, leave_request
from cmo_exporter.routes import UNMATCHED, RouteTemplates

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_exporter.exchange import App, Message, Receive, Scope, Send
    from cmo_exporter.query_record import Watch
    from cmo_exporter.spans import OpenSpan

_MARK: Final = "cmo_exporter.request"
_METHODS: Final = frozenset(KNOWN_HTTP_METHODS)
_SCHEMES: Final = frozenset({"http", "https"})
_VERSIONS: Final = frozenset({"1.0", "1.1", "2", "3"})
_CLIENT_CLOSED_REQUEST: Final = 499
_SERVER_ERROR: Final = 500


def watched(watch: Watch | None, owner: object, stack: App, wrap: Callable[[App], App]) -> App:
    """``wrap(stack)``, with a `RequestWatch` at the place where it belongs, if there is a watch.

    Args:
        watch: what follows queries; None while traces and the query log are off.
        owner: the outermost application, which holds the mounts.
        stack: the application to wrap.
        wrap: puts the middleware of the metrics around an application.
    """
    if watch is None:
        return wrap(stack)
    # opentelemetry-instrumentation-fastapi puts its middleware into another that handles its errors.
    for layer in (stack, getattr(stack, "app", None)):
        if type(layer).__module__ == "opentelemetry.instrumentation.asgi":
            # Its span is to be the parent of the query's: it has to stand outside of what begins queries.
            other: Any = layer
            other.app = RequestWatch(wrap(other.app), watch, owner, makes_span=False)
            return stack
    return RequestWatch(wrap(stack), watch, owner, makes_span=True)


class WatchedRequest:
    """One HTTP request, as far as its span and the log lines of its queries tell it."""

    __slots__ = (
        "_ending",
        "_receive",
        "_root_path",
        "_routes",
        "_scope",
        "_send",
        "ended",
        "left",
        "method",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, routes: RouteTemplates) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._routes = routes
        self._root_path = str(scope.get("root_path", ""))
        method = scope.get("method")
        self.method = method if isinstance(method, str) and method in _METHODS else OTHER_HTTP_METHOD
        self.status: int | None = None
        self.ended: int | None = None
        self.left = False
        self._ending = False

    @property
    def route(self) -> str:
        """The template of the route, once the application has found it."""
        return self._routes.of(self._scope, self._root_path)

    def attributes(self) -> dict[str, str | float]:
        """What its span may say of it, without its status."""
        found: dict[str, str | float] = {"http.request.method": self.method, "http.route": self.route}
        if self._scope.get("scheme") in _SCHEMES:
            found["url.scheme"] = self._scope["scheme"]
        if self._scope.get("http_version") in _VERSIONS:
            found["network.protocol.version"] = self._scope["http_version"]
        return found

    async def receive(self) -> Message:
        """What the application calls to receive."""
        message = await self._receive()
        # With the last byte on its way, a disconnect is how servers say that all is done.
        if _kind(message) == "http.disconnect" and not self._ending:
            self._leave()
        return message

    async def send(self, message: Message) -> None:
        """What the application calls to send."""
        kind = _kind(message)
        if kind == "http.response.start" and not self.left:
            self.status = message.get("status")
        self._ending = kind == "http.response.pathsend" or (
            kind == "http.response.body" and not message.get("more_body", False)
        )
        try:
            await self._send(message)
        except OSError:  # how servers of ASGI 2.4 and later say that the user has left
            self._ending = False
            self._leave()
            raise
        if self._ending and self.ended is None:
            self.ended = time.time_ns()

    def _leave(self) -> None:
        if self.ended is None:
            self.left, self.status, self.ended = True, _CLIENT_CLOSED_REQUEST, time.time_ns()


def _kind(message: Message) -> object:
    """What a message is; of what is none, nothing: the server or the application will refuse it."""
    try:
        return message["type"]
    except Exception:  # noqa: BLE001 - whatever it is
        return None


class RequestWatch:
    """Wraps an ASGI application; see `watched`."""

    def __init__(self, app: App, watch: Watch, owner: object, *, makes_span: bool) -> None:
        self.app = app
        self._watch = watch
        self._routes = RouteTemplates(owner)
        self._makes_span = makes_span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or _MARK in scope:
            await self.app(scope, receive, send)
            return
        request = WatchedRequest(scope, receive, send, self._routes)
        scope[_MARK] = True
        span = self._span(scope, request)
        token = enter_request(request)
        error: type[BaseException] | None = None
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as raised:
            error = type(raised)
            raise
        finally:
            leave_request(token)
            if span is not None:
                self._end(span, request, error)

    def _span(self, scope: Scope, request: WatchedRequest) -> OpenSpan | None:
        maker = self._watch.tracing.maker
        if maker is None or not self._makes_span:
            return None
        try:
            method = "HTTP" if request.method == OTHER_HTTP_METHOD else request.method
            return maker.request(method, scope.get("headers") or ())
        except Exception as error:  # noqa: BLE001 - a propagator or a sampler may be anybody's
            self._watch.errors.report(catalogue.HTTP_SERVER_REQUEST_DURATION, error)
            return None

    def _end(self, span: OpenSpan, request: WatchedRequest, raised: type[BaseException] | None) -> None:
        try:
            _end(span, request, raised)
        except Exception as error:  # noqa: BLE001 - nothing here may reach the service
            self._watch.errors.report(catalogue.HTTP_SERVER_REQUEST_DURATION, error)


def _end(span: OpenSpan, request: WatchedRequest, error: type[BaseException] | None) -> None:
    """End the span with the last byte, which may have gone out long before background tasks were done."""
    attributes = request.attributes()
    status = request.status
    cancelled = error is not None and issubclass(error, asyncio.CancelledError)
    if request.ended is None:
        status = _CLIENT_CLOSED_REQUEST if cancelled else _SERVER_ERROR
    if status is not None:
        attributes["http.response.status_code"] = status
        if status >= _SERVER_ERROR or (error is not None and not request.left and not cancelled):
            attributes["error.type"] = error.__qualname__ if error is not None else str(status)
    name = "HTTP" if request.method == OTHER_HTTP_METHOD else request.method
    if attributes["http.route"] != UNMATCHED:
        name = f"{name} {attributes['http.route']}"
    span.finish_request(name, request.ended or time.time_ns(), attributes)
