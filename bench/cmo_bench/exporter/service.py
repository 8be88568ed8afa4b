"""The service that is measured: one question in, one answer out, and no work between.

FastAPI 0.162 and later records telemetry of its own as soon as OpenTelemetry has a provider. "Bare" means
without it, and it is switched off in the same way for every variant; earlier versions ignore the argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from pydantic import BaseModel

from cmo_bench.exporter.question import QUERY_PATH

if TYPE_CHECKING:
    from collections.abc import Callable


class Question(BaseModel):
    """What a user asks."""

    question: str


def service(work: Callable[[], None] | None = None) -> FastAPI:
    """The application.

    Args:
        work: what the handler does before it answers, such as saying what came of the query.
    """
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    if work is None:

        @app.post(QUERY_PATH)
        async def answer(question: Question) -> dict[str, str]:
            return {"answer": question.question}

    else:

        @app.post(QUERY_PATH)
        async def answer_and_say_so(question: Question) -> dict[str, str]:
            work()
            return {"answer": question.question}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
