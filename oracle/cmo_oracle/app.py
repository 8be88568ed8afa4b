"""The HTTP face of the service: one route to ask, two to see whether it is well."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

from cmo_exporter import instrument_fastapi
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from cmo_oracle.body_limit import BodyLimit
from cmo_oracle.event_stream import EventStream, UserGoneError, unless_user_leaves
from cmo_oracle.question import DEFAULT_MODE, Mode, Question
from cmo_oracle.service import VERSION, Service
from cmo_oracle.timing import TimingLog
from cmo_oracle.trail import Trail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from cmo_oracle.pipeline import Reply
    from cmo_oracle.settings import Settings

QUERY_ROUTE: Final = "/query"
_CLIENT_CLOSED_REQUEST: Final = 499
_RETRY_AFTER_SECONDS: Final = "1"
# The longest question in UTF-8, escaped in JSON, and the fields around it.
_BODY_BYTES_PER_CHARACTER: Final = 12
_BODY_BYTES_BESIDE: Final = 4096


class QueryRequest(BaseModel):
    """The body of a query. How long a question may be is the profile's to say."""

    model_config = ConfigDict(extra="forbid")

    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    mode: Mode = DEFAULT_MODE
    stream: bool = False


def create_app(settings: Settings) -> FastAPI:
    """The instrumented application of one instance.

    Raises:
        CorpusError: the passages cannot be read.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.open()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(title="Clinical question answering", version=VERSION, lifespan=lifespan)
    app.state.service = service
    characters = settings.profile.query.characters
    app.add_middleware(BodyLimit, limit=characters * _BODY_BYTES_PER_CHARACTER + _BODY_BYTES_BESIDE)
    _add_routes(app, service, characters)
    _add_refusals(app, service)
    instrument_fastapi(app, service.exporter, query_routes=(QUERY_ROUTE,))
    return app


def with_timer(app: FastAPI, settings: Settings) -> ASGIApp:
    """What a server runs: the application, inside the independent timer if the settings ask for one."""
    return app if settings.timing_log is None else TimingLog(app, settings.timing_log, route=QUERY_ROUTE)


def _add_routes(app: FastAPI, service: Service, characters: int) -> None:
    @app.post(QUERY_ROUTE)
    async def ask(body: QueryRequest, request: Request) -> Response:
        """Answer a question from the caches, LightRAG or Perplexity, or apologise."""
        _check_length(body.question, characters)
        question = Question(body.question, body.mode)
        if body.stream:
            return EventStream(service.pipeline, question, as_json=_as_json)
        try:
            return _as_json(await unless_user_leaves(request.receive, service.pipeline.run(question)))
        except UserGoneError:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """The engine is loaded; says which of the optional parts do not work."""
        readiness = service.readiness()
        content = {"ready": readiness.ready, "degraded": readiness.degraded, "parts": readiness.parts}
        return JSONResponse(content, 200 if readiness.ready else 503)


def _add_refusals(app: FastAPI, service: Service) -> None:
    """Requests that are no questions: counted as rejected when they came as one, answered without an echo."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        service.exporter.current_query().rejected()
        detail = [{"loc": problem["loc"], "msg": problem["msg"]} for problem in error.errors()]
        return JSONResponse({"detail": detail, "trail": _rejected()}, 422)

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> JSONResponse:
        service.exporter.current_query().rejected()
        content = {"detail": error.detail, "trail": _rejected()}
        return JSONResponse(content, error.status_code, headers=error.headers)


def _check_length(question: str, characters: int) -> None:
    if len(question) > characters:
        message = f"String should have at most {characters} characters"
        raise RequestValidationError(
            [{"type": "string_too_long", "loc": ("body", "question"), "msg": message}]
        )


def _rejected() -> dict[str, Any]:
    return Trail(outcome="rejected").as_json()


def _as_json(reply: Reply) -> JSONResponse:
    status = reply.trail.http_status
    headers = {"retry-after": _RETRY_AFTER_SECONDS} if reply.trail.outcome == "rejected" else None
    return JSONResponse({"answer": reply.answer, "trail": reply.trail.as_json()}, status, headers=headers)
