"""The ASGI middleware: a request to a query route is a query, and every request is in the HTTP metrics.

Pure ASGI, wrapped around the application as a whole: outside of the layer that turns exceptions into
answers, so that the last byte of those is seen as well. Websockets and the lifespan pass through untouched.
"""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter import catalogue
from cmo_exporter.defaults import default_exporter, lifetime
from cmo_exporter.errors import ExporterError, SettingsError
from cmo_exporter.exchange import MARK, Exchange, Site
from cmo_exporter.http_tallies import HttpTallies
from cmo_exporter.instruments import KNOWN_HTTP_METHODS
from cmo_exporter.request_watch import watched
from cmo_exporter.routes import RouteSet, RouteTemplates, path_in_app

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from fastapi import FastAPI

    from cmo_exporter.exchange import App, Receive, Scope, Send
    from cmo_exporter.exporter import Exporter

_log = logging.getLogger("cmo_exporter")

_INSTRUMENTED: Final = "_cmo_exporter"
_QUERY_METHODS: Final = ("POST",)


def instrument_asgi(
    app: App,
    exporter: Exporter | None = None,
    query_routes: Iterable[str] = ("/query",),
    query_methods: Iterable[str] = _QUERY_METHODS,
) -> App:
    """Wrap any ASGI application.

    Args:
        app: the application as a whole.
        exporter: where it is recorded. None takes `default_exporter`, which then starts and closes with the
            application.
        query_routes: the routes on which a request is a query, as templates (``/chats/{chat}/query``).
        query_methods: the methods with which it is one.

    Returns:
        The application to serve instead of ``app``.

    Raises:
        SettingsError: a route or method is none, or there is no exporter and the environment does not
            describe one.
    """
    recording = _exporter(exporter)
    routes, methods = RouteSet(query_routes), _methods(query_methods)

    def wrapped(inner: App) -> App:
        return Middleware(inner, recording, routes, methods, owner=app)

    return watched(recording.recorder.watch, app, app, wrapped)


def instrument_fastapi(
    app: FastAPI,
    exporter: Exporter | None = None,
    query_routes: Iterable[str] = ("/query",),
    query_methods: Iterable[str] = _QUERY_METHODS,
) -> Exporter:
    """Instrument a FastAPI application in place; a second time changes nothing.

    Args:
        app: the application, before it has served anything.
        exporter: where it is recorded. None takes `default_exporter`, which then starts and closes with the
            application.
        query_routes: the routes on which a request is a query, as templates (``/chats/{chat}/query``).
        query_methods: the methods with which it is one.

    Returns:
        The exporter that records the application.

    Raises:
        ExporterError: the application has begun to serve, so that nothing can be put around it any more.
        SettingsError: a route or method is none, or there is no exporter and the environment does not
            describe one.
    """
    found: Exporter | None = getattr(app, _INSTRUMENTED, None)
    if found is not None:
        if exporter not in (None, found):
            _log.warning(
                "The application is instrumented already, with another exporter, and stays so: take the "
                "first instrument_fastapi(app) away, or use the exporter that it returned."
            )
        return found
    if app.middleware_stack is not None:
        raise ExporterError(
            "instrument_fastapi came too late: the application has begun to serve. Call it where the "
            "application is made, before the server starts."
        )
    routes, methods = RouteSet(query_routes), _methods(query_methods)
    recording = _exporter(exporter)
    recording.tracing.instrument(app)
    build = app.build_middleware_stack

    def wrapped(inner: App) -> App:
        return Middleware(inner, recording, routes, methods, owner=app)

    def build_instrumented() -> Any:
        return watched(recording.recorder.watch, app, build(), wrapped)

    # FastAPI offers no other way to stand outside of the layer that turns exceptions into answers.
    app.build_middleware_stack = build_instrumented  # type: ignore[method-assign]  # see above
    setattr(app, _INSTRUMENTED, recording)
    return recording


def _methods(given: Iterable[str]) -> frozenset[str]:
    """The methods of HTTP that were given, or the one.

    Raises:
        SettingsError: one of them is none.
    """
    methods = (given,) if isinstance(given, str) else tuple(given)
    for method in methods:
        if not isinstance(method, str) or method.upper() not in KNOWN_HTTP_METHODS:
            raise SettingsError(
                f"query_methods holds {method!r}; a method is one of: {', '.join(KNOWN_HTTP_METHODS)}."
            )
    return frozenset(method.upper() for method in methods)


def _exporter(given: Exporter | None) -> Exporter:
    """The exporter that was given, or else the default one."""
    if given is None:
        return default_exporter()
    if not hasattr(given, "recorder"):
        raise ExporterError(
            f"The second argument is a {type(given).__name__}; expected an Exporter: "
            "Exporter(ExporterSettings(…))."
        )
    return given


class Middleware:
    """Wraps an ASGI application; see `instrument_asgi` and `instrument_fastapi`."""

    def __init__(
        self, app: App, exporter: Exporter, routes: RouteSet, methods: frozenset[str], *, owner: object
    ) -> None:
        self.app = app  # FastAPI follows this name to see whether OpenTelemetry is among its middlewares
        self._exporter = exporter
        # Where no template has a parameter, the paths themselves tell.
        self._query_routes: frozenset[str] | RouteSet = routes.plain if routes.all_plain else routes
        self._query_methods = methods
        self._lifetime = lifetime(exporter)
        self._tallies = HttpTallies(exporter.recorder, RouteTemplates(owner))
        self._sites: dict[asyncio.AbstractEventLoop, Site] = {}
        self._site: Site | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._pass_through(scope, receive, send)
            return
        try:
            site = self._site
            if site is None or site.loop is not get_running_loop():
                site = self._enter(get_running_loop())
            root_path = scope.get("root_path", "")
            path = path_in_app(scope) if root_path else scope["path"]
            is_query = path in self._query_routes and scope["method"] in self._query_methods
            if MARK in scope and self._is_watched(scope[MARK], is_query=is_query):
                exchange = None
            else:
                exchange = scope[MARK] = Exchange(site, scope, root_path, receive, send)
                if is_query:
                    exchange.begin_query()
        except Exception as error:  # noqa: BLE001 - nothing here may reach the service
            self._exporter.errors.report(catalogue.HTTP_SERVER_ACTIVE_REQUESTS, error)
            exchange = None
        if exchange is None:
            await self.app(scope, receive, send)
            return
        app = self.app  # Python 3.11 is slower to call it where it is
        try:
            await app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        if not exchange.complete or exchange.listener is not None:
            exchange.end(None)

    def _is_watched(self, outer: Exchange, *, is_query: bool) -> bool:
        """Whether an application around this one is instrumented, too, and watches the request."""
        if outer.site.exporter is not self._exporter:
            return False
        if is_query and not outer.is_query:
            outer.begin_query()
        return True

    async def _pass_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" or self._lifetime is None:
            self._exporter.watch_running_loop()
            await self.app(scope, receive, send)
            return
        self._lifetime.begin(self)
        try:
            await self.app(scope, receive, send)
        finally:
            self._lifetime.end(self)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> Site:
        """This event loop serves now; one process may have several, one after the other or in threads."""
        self._exporter.watch_running_loop()
        if self._lifetime is not None:
            self._lifetime.begin(self)
        site = self._sites.get(loop)
        if site is None:
            for ended in [known for known in tuple(self._sites) if known.is_closed()]:
                left = self._sites.pop(ended, None)  # another thread may have been here
                if left is not None:
                    left.close()
            site = self._sites[loop] = Site(self._exporter, self._tallies, loop)
        self._site = site
        return site
