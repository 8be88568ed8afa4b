"""The service with our exporter, set up as the reference service has it, and started."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter import Exporter, ExporterSettings, Price, instrument_fastapi

from cmo_bench.exporter.question import QUERY_PATH
from cmo_bench.exporter.service import service
from cmo_bench.exporter.variants import Built, total

if TYPE_CHECKING:
    from cmo_bench.exporter.variants import Surroundings

_QUERIES: Final = "cmo_queries_total"
_REQUESTS: Final = "http_server_request_duration_seconds_count"
_REFERENCE_SERVICE: Final[dict[str, Any]] = {
    "scenarios": ("academic_research", "clinical_rush", "cache_effectiveness", "rag_intensive"),
    "honour_scenario_header": True,
    "components": ("cache_l1", "cache_l2", "cache_l3", "lightrag", "perplexity", "llm", "embedding"),
    "models": (
        ("lightrag", "stub", "cmo-stub"),
        ("perplexity", "stub", "cmo-sonar"),
        ("embedding", "stub", "cmo-embed"),
    ),
    "prices": {"cmo-stub": Price(0.15, 0.60), "cmo-sonar": Price(1.0, 1.0)},
}


def http_and_queries(surroundings: Surroundings) -> Built:
    """What a service gets that sets nothing further."""
    return _with_queries(_exporter(surroundings))


def http_alone(surroundings: Surroundings) -> Built:
    """No route is a query."""
    exporter = _exporter(surroundings)
    app = service()
    instrument_fastapi(app, exporter, query_routes=())
    return Built(app, lambda: total(exporter.registry.collect(), _REQUESTS), exporter.close, exporter)


def shared(surroundings: Surroundings) -> Built:
    """One of several workers, whose values are summed by whichever is scraped."""
    return _with_queries(_exporter(surroundings, shared_directory=surroundings.directory))


def traces(surroundings: Surroundings) -> Built:
    """Every query is traced, and an exemplar of its histograms."""
    exporter = _exporter(surroundings, otlp_endpoint=surroundings.otlp_endpoint)
    built = _with_queries(exporter)
    provider = getattr(exporter.tracing, "provider", None) or getattr(exporter.tracing, "_provider", None)
    if provider is None:
        raise RuntimeError("the exporter makes no spans although it has an endpoint")
    return replace(built, flush=provider.force_flush)


def _exporter(surroundings: Surroundings, **settings: object) -> Exporter:
    named = {**_REFERENCE_SERVICE, "worker": surroundings.worker, **settings}
    exporter = Exporter(ExporterSettings(**named))
    exporter.start()
    return exporter


def _with_queries(exporter: Exporter) -> Built:
    def work() -> None:
        query = exporter.current_query()
        query.cache_result("miss")
        query.answered("lightrag")

    app = service(work)
    instrument_fastapi(app, exporter, query_routes=(QUERY_PATH,))
    return Built(app, lambda: total(exporter.registry.collect(), _QUERIES), exporter.close, exporter)
