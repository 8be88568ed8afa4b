"""The service with starlette_exporter and its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from starlette_exporter import PrometheusMiddleware

from cmo_bench.exporter.service import service
from cmo_bench.exporter.variants import Built, total

if TYPE_CHECKING:
    from cmo_bench.exporter.variants import Surroundings


def defaults(_: Surroundings) -> Built:
    """As its first page shows it."""
    app = service()
    app.add_middleware(PrometheusMiddleware)
    return Built(app, lambda: total(REGISTRY.collect(), "starlette_requests_total"), lambda: None)
