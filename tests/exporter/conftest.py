"""A real server around an application, an exporter as the reference service has it, a collector, waiting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterSettings, Price
from cmo_exporter.queries import CURRENT

from .collector import collecting
from .uvicorn_server import serving
from .watched_loop import BLOCKED_AFTER, INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from .collector import Collector

DEADLINE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def no_query_of_another_test() -> Iterator[None]:
    """All tests of a process run in one context, and some leave a query that does not end."""
    token = CURRENT.set(None)
    yield
    CURRENT.reset(token)


@pytest.fixture
def settings() -> ExporterSettings:
    """The settings of the reference service: four scenarios, seven components."""
    return ExporterSettings(
        scenarios=("academic_research", "clinical_rush", "cache_effectiveness", "rag_intensive"),
        honour_scenario_header=True,
        components=("cache_l1", "cache_l2", "cache_l3", "lightrag", "perplexity", "llm", "embedding"),
        models=(
            ("lightrag", "stub", "cmo-stub"),
            ("perplexity", "stub", "cmo-sonar"),
            ("embedding", "stub", "cmo-embed"),
        ),
        prices={"cmo-stub": Price(input=0.15, output=0.60), "cmo-sonar": Price(input=1.0, output=1.0)},
        version="1.2.3",
        revision="abc1234",
    )


@pytest.fixture
def exporter(settings: ExporterSettings) -> Iterator[Exporter]:
    """A started exporter."""
    with Exporter(settings) as started:
        yield started


@pytest.fixture
def watching() -> Iterator[Exporter]:
    """A started exporter that looks at event loops often."""
    settings = ExporterSettings(loop_lag_interval_seconds=INTERVAL, loop_blocked_after_seconds=BLOCKED_AFTER)
    with Exporter(settings) as exporter:
        yield exporter


@pytest.fixture
def collector() -> Iterator[Collector]:
    """An OpenTelemetry collector, and what it was sent."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition holds; fail when it does not for a very long time."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the condition never held"
            time.sleep(0.01)

    return wait


@pytest.fixture
def serve(
    eventually: Callable[[Callable[[], object]], None],
) -> Callable[[Any], AbstractContextManager[int]]:
    """Serve an ASGI application with uvicorn on a free port, which is the value."""

    def serve_with_uvicorn(app: Any) -> AbstractContextManager[int]:
        return serving(app, eventually)

    return serve_with_uvicorn
