"""Routes are whole templates, wherever an application keeps them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cmo_exporter import (
    Exporter,
    ExporterError,
    ExporterSettings,
    SettingsError,
    instrument_asgi,
    instrument_fastapi,
    routes,
)
from cmo_exporter.routes import RouteTemplates, path_in_app
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

if TYPE_CHECKING:
    from pathlib import Path

Serve = Callable[..., AbstractContextManager[int]]
Counted = Callable[[], dict[tuple[str, ...], float]]
Outcomes = Callable[[], dict[str, float]]


async def ask() -> str:
    """An endpoint of FastAPI."""
    return "yes"


async def show(_request: Any) -> PlainTextResponse:
    """An endpoint of Starlette."""
    return PlainTextResponse("yes")


def fetch(port: int, *paths: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for path in paths:
            client.get(path)


def test_one_route_that_is_served_at_two_places_is_two(
    exporter: Exporter, serve: Serve, counted: Counted
) -> None:
    """Also included: then FastAPI says by another way which of them it is."""
    route, router = APIRoute("/show", ask), APIRouter()
    router.get("/ask")(ask)
    app = FastAPI(routes=[route, Mount("/under", routes=[route])])
    app.include_router(router)
    app.include_router(router, prefix="/again")
    instrument_fastapi(app, exporter)
    with serve(app) as port:
        fetch(port, *["/show", "/under/show", "/ask", "/again/ask"] * 3)
    assert counted() == {("GET", path, "200"): 3.0 for path in ("/show", "/under/show", "/ask", "/again/ask")}


def test_fastapi_with_routers_in_routers_and_mounts_in_mounts(
    exporter: Exporter, serve: Serve, counted: Counted, tmp_path: Path
) -> None:
    (tmp_path / "logo.txt").write_text("logo")
    app, tenant, deep = FastAPI(), FastAPI(), FastAPI()
    outer, inner = APIRouter(prefix="/v1"), APIRouter(prefix="/chats")
    inner.get("/{chat}/query")(ask)
    outer.include_router(inner, prefix="/rooms/{room}")
    app.include_router(outer, prefix="/api")
    deep.get("/ask/{number}")(ask)
    nested = APIRouter(prefix="/n")
    nested.get("/{x}")(ask)
    tenant.include_router(nested)
    tenant.mount("/deep/{level}", GZipMiddleware(deep))
    app.mount("/tenants/{tenant}", tenant)
    app.mount("/static", StaticFiles(directory=tmp_path))
    instrument_fastapi(app, exporter)
    with serve(app) as port:
        for number in range(3):
            fetch(
                port,
                f"/api/v1/rooms/{number}/chats/{number}/query",
                f"/tenants/{number}/deep/{number}/ask/{number}",
                f"/tenants/{number}/n/{number}",
                f"/tenants/{number}/nowhere/{number}",
                f"/nowhere/{number}",
                "/static/logo.txt",
            )
    assert counted() == {
        ("GET", "/api/v1/rooms/{room}/chats/{chat}/query", "200"): 3,
        ("GET", "/tenants/{tenant}/deep/{level}/ask/{number}", "200"): 3,
        ("GET", "/tenants/{tenant}/n/{x}", "200"): 3,
        ("GET", "/tenants/{tenant}", "404"): 3,
        ("GET", "unmatched", "404"): 3,
        ("GET", "/static", "200"): 3,
    }


def test_a_mount_is_searched_for_once_however_many_values_its_parameter_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[str] = []

    def search(app: object, grown: str) -> tuple[str, object]:
        searched.append(grown)
        return search_mounts(app, grown)

    search_mounts = routes._search_mounts
    monkeypatch.setattr(routes, "_search_mounts", search)
    inner = Route("/query", show)
    templates = RouteTemplates(Starlette(routes=[Mount("/tenants/{tenant}", routes=[inner])]))

    def template(tenant: int) -> str:
        return templates.of({"root_path": f"/tenants/{tenant}", "route": inner}, "")

    tenants = range(routes._MOST_KNOWN_MOUNTS - 1)
    assert {template(tenant) for tenant in (*tenants, *tenants)} == {"/tenants/{tenant}/query"}
    assert len(searched) == len(tenants)
    # One too many: it is found all the same, and known from then on.
    assert {template(-1), template(-1), template(-1), template(0)} == {"/tenants/{tenant}/query"}
    assert len(searched) == len(tenants) + 2
    assert len(templates._known_mounts) <= routes._MOST_KNOWN_MOUNTS


def test_routes_of_starlette_in_fastapi(exporter: Exporter, serve: Serve, counted: Counted) -> None:
    """FastAPI leaves no route behind for them."""
    app, mounted, router = FastAPI(), FastAPI(), APIRouter()
    mounted.get("/asked/{number}")(ask)
    mounted.add_route("/shown/{number}", show)
    router.mount("/shop", mounted)
    router.add_route("/items/{item}", show)
    app.include_router(router, prefix="/api")
    app.mount("/direct/{level}", mounted)
    app.add_route("/first/{thing}", show)
    app.add_route("/second/{thing}", show, methods=["GET"])
    instrument_fastapi(app, exporter)
    with serve(app) as port:
        for number in range(2):
            fetch(
                port,
                f"/api/shop/asked/{number}",
                f"/api/shop/shown/{number}",
                f"/api/shop/nowhere/{number}",
                f"/api/items/{number}",
                f"/direct/{number}/asked/{number}",
                f"/direct/{number}/shown/{number}",
                f"/first/{number}",
                f"/second/{number}",
                f"/nowhere/{number}",
            )
        httpx.post(f"http://127.0.0.1:{port}/second/1")
    assert counted() == {
        ("GET", "/api/shop/asked/{number}", "200"): 2,
        ("GET", "/api/shop/shown/{number}", "200"): 2,
        ("GET", "/api/shop", "404"): 2,
        ("GET", "/api/items/{item}", "200"): 2,
        ("GET", "/direct/{level}/asked/{number}", "200"): 2,
        ("GET", "/direct/{level}/shown/{number}", "200"): 2,
        ("GET", "/first/{thing}", "200"): 2,
        ("GET", "/second/{thing}", "200"): 2,
        ("POST", "/second/{thing}", "405"): 1,
        ("GET", "unmatched", "404"): 2,
    }


def test_starlette_alone(exporter: Exporter, serve: Serve, counted: Counted) -> None:
    app = Starlette(
        routes=[
            Route("/items/{item:int}", show),
            Mount("/shop", routes=[Route("/{thing}", show), Mount("/back", app=Router([Route("/x", show)]))]),
        ]
    )
    with serve(instrument_asgi(app, exporter)) as port:
        fetch(port, "/items/1", "/items/2", "/items/x", "/shop/1", "/shop/back/x")
    assert counted() == {
        ("GET", "/items/{item:int}", "200"): 2,
        ("GET", "unmatched", "404"): 1,
        ("GET", "/shop/{thing}", "200"): 1,
        ("GET", "/shop/back/x", "200"): 1,
    }


@pytest.mark.parametrize("where", ["server", "application"])
def test_a_proxy_s_prefix_is_no_part_of_a_route(
    exporter: Exporter, serve: Serve, counted: Counted, outcomes: Outcomes, where: str
) -> None:
    app = FastAPI()
    if where == "application":
        app.root_path = "/proxy"  # as its constructor, which is deprecated, does
    inner = FastAPI()
    app.post("/query")(ask)
    inner.get("/{x}")(ask)
    app.mount("/inner", inner)
    served = instrument_asgi(app, exporter)
    with serve(served, **({"root_path": "/proxy"} if where == "server" else {})) as port:
        httpx.post(f"http://127.0.0.1:{port}/query")
        fetch(port, "/inner/1" if where == "server" else "/proxy/inner/1")
    assert counted() == {("POST", "/query", "200"): 1, ("GET", "/inner/{x}", "200"): 1}
    assert outcomes() == {"error": 1}, "an answer that nobody has named is an error, and a query"


@pytest.mark.parametrize("wrong", [("query",), ("/query", ""), (b"/query",), "query", (None,)])
def test_a_route_that_can_match_nothing_is_refused(exporter: Exporter, wrong: Any) -> None:
    with pytest.raises(SettingsError, match="a route begins with /"):
        instrument_asgi(Starlette(), exporter, query_routes=wrong)
    app = FastAPI()
    with pytest.raises(SettingsError, match="a route begins with /"):
        instrument_fastapi(app, exporter, query_routes=wrong)
    assert instrument_fastapi(app, exporter, query_routes="/query") is exporter, "it is meant as one"


def test_methods_are_methods_of_http_in_any_case(
    exporter: Exporter, serve: Serve, outcomes: Outcomes
) -> None:
    for methods in ("post", ("Post",), ["POST", "GET"]):
        app = FastAPI()
        app.post("/query")(ask)
        instrument_fastapi(app, exporter, query_methods=methods)
        with serve(app) as port:
            httpx.post(f"http://127.0.0.1:{port}/query")
    assert outcomes() == {"error": 3}
    for wrong in ("ASK", ("GET", ""), (None,)):
        with pytest.raises(SettingsError, match="a method is one of: CONNECT, "):
            instrument_fastapi(FastAPI(), exporter, query_methods=wrong)  # type: ignore[arg-type]  # on purpose


def test_an_answer_where_no_query_is_in_progress_is_said_once(
    exporter: Exporter, serve: Serve, outcomes: Outcomes, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer() -> None:
        exporter.current_query().answered("lightrag")

    app = FastAPI()
    app.post("/ask")(answer)
    instrument_fastapi(app, exporter)
    with serve(app) as port:
        for _ in range(2):
            httpx.post(f"http://127.0.0.1:{port}/ask")
    assert outcomes() == {}
    (said,) = [record.getMessage() for record in caplog.records if record.name == "cmo_exporter"]
    assert "Is its route in query_routes" in said


def test_who_instruments_again_with_another_exporter_is_told(
    exporter: Exporter, settings: ExporterSettings, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    instrument_fastapi(app, exporter)
    assert instrument_fastapi(app, exporter) is instrument_fastapi(app) is exporter
    assert not caplog.records
    assert instrument_fastapi(app, Exporter(settings)) is exporter
    assert "instrumented already, with another exporter" in caplog.text


def test_settings_in_the_place_of_an_exporter_are_refused(settings: Any) -> None:
    for instrument in (instrument_asgi, instrument_fastapi):
        with pytest.raises(ExporterError, match="is a ExporterSettings; expected an Exporter"):
            instrument(FastAPI(), settings)


def test_a_prefix_ends_where_a_name_ends() -> None:
    assert path_in_app({"root_path": "/api", "path": "/api/query"}) == "/query"
    assert path_in_app({"root_path": "/api", "path": "/apiary"}) == "/apiary"
    assert path_in_app({"root_path": "", "path": "/query"}) == "/query"


def test_an_application_inside_another_that_is_not_instrumented_is_counted_by_its_own_routes(
    exporter: Exporter, serve: Serve, counted: Counted, outcomes: Outcomes
) -> None:
    app, inner = FastAPI(), FastAPI()
    inner.post("/ask/{chat}")(ask)
    app.get("/elsewhere")(ask)
    app.mount("/inner/{tenant}", inner)
    instrument_fastapi(inner, exporter, query_routes=("/ask/{chat}",))
    with serve(app) as port:
        httpx.post(f"http://127.0.0.1:{port}/inner/1/ask/1")
        fetch(port, "/elsewhere", "/inner/1/nowhere")
    assert counted() == {("POST", "/ask/{chat}", "200"): 1, ("GET", "unmatched", "404"): 1}
    assert outcomes() == {"error": 1}, "and what it calls a query is one"


def test_an_application_inside_an_instrumented_one_is_counted_once(
    exporter: Exporter, serve: Serve, counted: Counted, outcomes: Outcomes
) -> None:
    app, inner = FastAPI(), FastAPI()
    inner.post("/ask/{chat}")(ask)
    app.mount("/inner", inner)
    instrument_fastapi(inner, exporter, query_routes=("/ask/{chat}",))
    instrument_fastapi(app, exporter)
    instrument_fastapi(app, exporter)
    with serve(instrument_asgi(instrument_asgi(app, exporter), exporter)) as port:
        httpx.post(f"http://127.0.0.1:{port}/inner/ask/1")
    assert counted() == {("POST", "/inner/ask/{chat}", "200"): 1}
    assert outcomes() == {"error": 1}, "what the inner application calls a query is one"
