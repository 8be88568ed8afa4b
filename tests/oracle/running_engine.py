"""The engine over a real upstream stub in this process, and what watches it, for the tests of the engine."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import uvicorn
from cmo_oracle.corpus import load_corpus
from cmo_oracle.engine import Engine, EngineSettings, EngineTelemetry
from cmo_oracle.engine_index import ensure_index
from cmo_oracle.upstream.calibration import Calibration
from cmo_oracle.upstream.server import Upstream, serve_app
from cmo_stack.free_ports import free_port

from .waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

WAIT_SECONDS = 90.0
NEVER = {"quiet": 0.0, "loaded": 0.0}
ALWAYS = {"quiet": 1.0, "loaded": 1.0}

QUESTION, ANSWER_PASSAGE = "What does TMAO tell us about cardiovascular risk?", "tmao-cardiovascular-risk"


def calibration(**chat: Any) -> Calibration:
    quick = {
        "median_seconds": 0.001,
        "p95_seconds": 0.002,
        "error": NEVER,
        "rate_limit": NEVER,
        "stall": NEVER,
    }
    return Calibration.model_validate(
        {
            "capacity": 1000, "saturation": 2000, "stretch": 0.0, "stall_seconds": 3600,
            "routes": {"chat": quick | chat, "embeddings": quick, "perplexity": quick},
        }
    )  # fmt: skip


@dataclass
class Stub:
    """A running upstream: where it is, and its state to look at."""

    base_url: str
    upstream: Upstream

    def settings(self, working_directory: Path, **changes: Any) -> EngineSettings:
        plain = EngineSettings(
            working_directory=working_directory,
            model_base_url=f"{self.base_url}/v1",
            index_base_url=f"{self.base_url}/ingest/v1",
            api_key="secret-key",
        )
        return replace(plain, **changes)

    async def until_in_flight(self, expected: int) -> None:
        await until(lambda: self.upstream.in_flight == expected)


@contextlib.asynccontextmanager
async def serve(**chat: Any) -> AsyncIterator[Stub]:
    upstream = Upstream(calibration(**chat))
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(serve_app(upstream), port=port, log_level="warning", timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        yield Stub(f"http://127.0.0.1:{port}", upstream)
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def opened(
    settings: EngineSettings, telemetry: EngineTelemetry | None = None, **more: Any
) -> AsyncIterator[Engine]:
    engine = await Engine.open(settings, telemetry, **more)
    try:
        yield engine
    finally:
        await engine.close()


async def build_index(directory: Path) -> None:
    async with serve() as stub:
        await ensure_index(stub.settings(directory), load_corpus())


@dataclass
class Call:
    component: str
    outcome: str = "success"


@dataclass
class RecordedQuery:
    """One query's telemetry: a stand-in for the exporter's, which this room does not test."""

    name: str
    calls: list[Call] = field(default_factory=list)

    @contextlib.contextmanager
    def model_call(self, component: str, _provider: str, _model: str, _operation: str, /) -> Iterator[_Timed]:
        timed = _Timed(Call(component))
        self.calls.append(timed.call)
        try:
            yield timed
        except asyncio.CancelledError:
            timed.call.outcome = "cancelled"
            raise


@dataclass
class _Timed:
    call: Call

    def outcome(self, outcome: str, /) -> None:
        self.call.outcome = outcome


CURRENT: ContextVar[RecordedQuery | None] = ContextVar("current", default=None)


class Recorder:
    """Telemetry that remembers all that it is told."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.depths: list[int] = []
        self.used: list[tuple[str, str, str, int, int]] = []

    def current_query(self) -> RecordedQuery:
        return CURRENT.get() or RecordedQuery("none")

    def queue_wait(self, component: str, seconds: float, /) -> None:
        assert component == "llm"
        self.waits.append(seconds)

    def queue_depth(self, component: str, value: int, /) -> None:
        assert component == "llm"
        self.depths.append(value)

    def tokens(
        self, component: str, provider: str, model: str, /, *, input_tokens: int, output_tokens: int
    ) -> None:
        self.used.append((component, provider, model, input_tokens, output_tokens))
