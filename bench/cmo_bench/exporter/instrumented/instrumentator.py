"""The service with prometheus-fastapi-instrumentator and its defaults."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_fastapi_instrumentator import Instrumentator

from cmo_bench.exporter.service import service
from cmo_bench.exporter.variants import Built, total

if TYPE_CHECKING:
    from cmo_bench.exporter.variants import Surroundings

_REQUESTS: Final = "http_requests_total"


def one_process(_: Surroundings) -> Built:
    """As its first page shows it."""
    app = service()
    Instrumentator().instrument(app)
    return Built(app, lambda: total(REGISTRY.collect(), _REQUESTS), lambda: None)


def multiprocess(surroundings: Surroundings) -> Built:
    """One of several workers; the process was started with PROMETHEUS_MULTIPROC_DIR set to the folder."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR") != str(surroundings.directory):
        raise RuntimeError(
            "prometheus-client reads PROMETHEUS_MULTIPROC_DIR when it is imported; set it before"
        )
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
    app = service()
    Instrumentator().instrument(app)
    return Built(app, lambda: total(registry.collect(), _REQUESTS), lambda: None)
