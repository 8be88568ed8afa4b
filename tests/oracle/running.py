"""The real service and the real upstream stub as processes, for the tests of this room."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import httpx
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from prometheus_client.parser import text_string_to_metric_families

from .waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

_STUB = """
import sys, uvicorn
from pathlib import Path
from cmo_oracle.upstream.calibration import load_calibration
from cmo_oracle.upstream.server import create_app
app = create_app(load_calibration("steady", Path(sys.argv[2])))
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
"""
_ROUTE = """
      median_seconds: {median}
      p95_seconds: {p95}
      error: {{quiet: 0.0, loaded: 0.0}}
      rate_limit: {{quiet: 0.0, loaded: 0.0}}
      stall: {{quiet: 0.0, loaded: 0.0}}
"""


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


class Stub:
    """The upstream stub, steady: it never fails by itself, and answers in about ``seconds``."""

    def __init__(self, folder: Path, *, seconds: float = 0.01) -> None:
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        calibration = folder / "calibrations.yml"
        route = _ROUTE.format(median=seconds, p95=seconds * 1.01)
        routes = "".join(f"    {name}:{route}" for name in ("chat", "embeddings", "perplexity"))
        head = "steady:\n  capacity: 1000\n  saturation: 2000\n  stretch: 0.0\n  stall_seconds: 600.0\n"
        calibration.write_text(f"{head}  routes:\n{routes}")
        self.process = ManagedProcess(
            "upstream stub",
            [sys.executable, "-c", _STUB, str(self.port), str(calibration)],
            log_path=folder / "stub.log",
            ready=lambda: _answers(f"{self.root}/healthz"),
        )

    def fail(self, how: str | None) -> None:
        """Make every call fail: ``error``, ``timeout`` or, again, None."""
        httpx.put(f"{self.root}/control", json={"fail": how}, timeout=60, trust_env=False).raise_for_status()

    def in_flight(self) -> int:
        """Calls under way."""
        health = httpx.get(f"{self.root}/healthz", timeout=60, trust_env=False)
        return int(health.json()["in_flight"])


class RunningService:
    """One instance of the service."""

    def __init__(
        self,
        folder: Path,
        upstream: Stub,
        fallback: Stub,
        *,
        index: Path,
        changes: Sequence[str] = (),
        redis_url: str | None = None,
        scenarios: Sequence[str] = ("academic_research",),
    ) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.cache_file = folder / "cache" / "answers.sqlite3"
        self.timing_log = folder / "timing.jsonl"
        self.log = folder / "service.log"
        options = {
            "--profile": "report",
            "--port": self.port,
            "--metrics-port": self.metrics_port,
            "--upstream-url": f"{upstream.root}/v1",
            "--perplexity-url": f"{fallback.root}/perplexity/v1",
            "--index-directory": index,
            "--cache-directory": folder / "cache",
            "--timing-log": self.timing_log,
        }
        if redis_url:
            options["--redis-url"] = redis_url
        words = [str(word) for option in options.items() for word in option]
        words += [word for scenario in scenarios for word in ("--scenario", scenario)]
        words += [word for change in changes for word in ("--set", change)]
        self.process = ManagedProcess(
            "service",
            [sys.executable, "-m", "cmo_oracle", *words],
            log_path=self.log,
            ready=lambda: _answers(f"{self.root}/readyz"),
        )

    def client(self) -> httpx.AsyncClient:
        """A client that waits as long as it takes."""
        return httpx.AsyncClient(base_url=self.root, timeout=120, trust_env=False)

    async def ask(self, question: str, **more: Any) -> httpx.Response:
        """One question over a connection of its own."""
        headers = more.pop("headers", {})
        async with self.client() as client:
            return await client.post("/query", json={"question": question, **more}, headers=headers)

    async def trail(self, question: str, **more: Any) -> dict[str, Any]:
        """The trail of one question's answer."""
        trail: dict[str, Any] = (await self.ask(question, **more)).json()["trail"]
        return trail

    async def scrape(self) -> Samples:
        """What ``/metrics`` shows now."""
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def in_progress(self) -> float:
        """How many queries are under way, of any scenario."""
        samples = await self.scrape()
        return sum(value for (name, _), value in samples.items() if name == "cmo_queries_in_progress")

    async def samples(self) -> Samples:
        """What ``/metrics`` shows once no query is under way: counters move after the last byte."""
        await until(self._at_rest)
        return await self.scrape()

    async def _at_rest(self) -> bool:
        return await self.in_progress() == 0

    async def value(self, name: str, **labels: str) -> float:
        """One sample."""
        return (await self.samples())[name, tuple(sorted(labels.items()))]
