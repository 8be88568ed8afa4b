"""A service for several worker processes: each imports this module and makes an exporter of its own."""

from __future__ import annotations

import os
import signal
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cmo_exporter import Exporter, ExporterSettings, instrument_fastapi
from fastapi import FastAPI

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
    )
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Serve the metrics as long as the worker lives."""
    with exporter:
        yield


app = FastAPI(lifespan=lifespan)
instrument_fastapi(app, exporter)


@app.post("/query")
async def query() -> dict[str, int]:
    """Answer, and say which worker did."""
    with exporter.current_query().component("lightrag"):
        exporter.current_query().answered("lightrag")
    return {"worker": os.getpid()}


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
