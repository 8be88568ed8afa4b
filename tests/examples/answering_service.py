"""A small instrumented service, as a team has one: it answers from a cache or from LightRAG, and says which.

Its answers are made up, its instrumentation is that of the exporter. Started as a process of its own: its
port is its argument, that of its metrics is in ``METRICS_PORT``; with ``APOLOGISES`` it answers nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import uvicorn
from cmo_exporter import Exporter, ExporterSettings, instrument_fastapi
from fastapi import FastAPI, Request

SCENARIOS = ("academic_research", "clinical_rush", "cache_effectiveness", "rag_intensive")
LIGHTRAG_SECONDS = 0.01

app = FastAPI()
exporter = instrument_fastapi(
    app,
    Exporter(
        ExporterSettings(
            port=int(os.environ["METRICS_PORT"]),
            scenarios=SCENARIOS,
            honour_scenario_header=True,
            components=("lightrag",),
        )
    ),
)
exporter.start()
known: set[str] = set()


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/query")
async def query(request: Request) -> dict[str, Any]:
    text = str(await request.json())
    asked = exporter.current_query()
    if os.environ.get("APOLOGISES"):
        asked.cache_result("miss")
        asked.answered("default")
        return _answer("error", "default", "miss")
    hit = text in known
    asked.cache_request("l1", "hit" if hit else "miss")
    asked.cache_result("hit" if hit else "miss")
    if not hit:
        with asked.component("lightrag"):
            await asyncio.sleep(LIGHTRAG_SECONDS)
        known.add(text)
    source = "cache" if hit else "lightrag"
    asked.answered(source)
    return _answer("success", source, "hit" if hit else "miss")


def _answer(outcome: str, source: str, cache: str) -> dict[str, Any]:
    trail = {"outcome": outcome, "source": source, "cache": cache, "tiers": [["l1", cache]], "fallbacks": []}
    return {"answer": "An answer.", "trail": trail}


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        timeout_keep_alive=120,
        log_level="warning",
        access_log=False,
    )
