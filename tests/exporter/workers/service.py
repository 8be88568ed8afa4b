"""A service for several worker processes: each imports this module and makes an exporter of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cmo_exporter import Exporter, ExporterSettings, instrument_fastapi
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

exporter = Exporter(
    ExporterSettings(
        scenarios=("rush",),
        honour_scenario_header=True,
        components=("lightrag",),
        port=int(os.environ.get("METRICS_PORT", "0")),
        shared_directory=Path(os.environ["SHARED_DIRECTORY"]),
        session_idle_timeout_seconds=float(os.environ.get("IDLE_SECONDS", "60")),
        query_log="QUERY_LOG" in os.environ,
        record_question_text=True,
    )
)
if "START_AT_IMPORT" in os.environ:
    exporter.start()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Serve the metrics as long as the worker lives."""
    with exporter:
        yield


app = FastAPI(lifespan=lifespan)
instrument_fastapi(app, exporter, query_routes=("/query", "/stream"))


@app.post("/query")
async def query(length: int = 0) -> dict[str, int]:
    """Answer a question of that length, and say which worker did."""
    if length:
        exporter.current_query().question("é" * length)
    with exporter.current_query().component("lightrag"):
        exporter.current_query().answered("lightrag")
    return {"worker": os.getpid()}


@app.post("/stream")
async def stream(pieces: int) -> StreamingResponse:
    """Answer in so many pieces, and then, if that is none, wait until the user leaves."""
    return StreamingResponse(answer(pieces), headers={"X-Worker": str(os.getpid())})


async def answer(pieces: int) -> AsyncIterator[str]:
    """The pieces; the query is there while they are made."""
    exporter.current_query().first_token()
    yield "it "
    for _ in range(pieces):
        yield "may "
    if not pieces:
        await asyncio.Event().wait()
    exporter.current_query().answered("lightrag")
    yield "be"


@app.post("/block")
def block(seconds: float) -> dict[str, int]:
    """Hold a thread of the worker, which then has a request in flight."""
    time.sleep(seconds)
    return {"worker": os.getpid()}


@app.post("/freeze")
async def freeze(until: Path) -> dict[str, int]:
    """Block the worker's event loop until a file is there, as a synchronous call inside a coroutine does."""
    while not until.exists():  # noqa: ASYNC240 - the point of it
        time.sleep(0.02)  # noqa: ASYNC251 - likewise
    return {"worker": os.getpid()}


@app.post("/die")
async def die() -> None:
    """Be killed in the middle of a request."""
    os.kill(os.getpid(), signal.SIGKILL)
