"""The variants that are compared. Each is built in a process of its own: several leave traces in globals."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cmo_bench.exporter.service import service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmo_exporter import Exporter
    from fastapi import FastAPI
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from prometheus_client.metrics_core import Metric

BARE: Final = "bare"
OURS: Final = "cmo"
OURS_HTTP: Final = "cmo-http"
OURS_SHARED: Final = "cmo-shared"
OURS_TRACES: Final = "cmo-traces"
INSTRUMENTATOR: Final = "instrumentator"
INSTRUMENTATOR_SHARED: Final = "instrumentator-shared"
STARLETTE_EXPORTER: Final = "starlette-exporter"
OTEL_METRICS: Final = "otel-metrics"
OTEL: Final = "otel"

TITLES: Final = {
    BARE: "bare FastAPI",
    OURS: "**cmo_exporter**, HTTP and query metrics",
    OURS_HTTP: "cmo_exporter, HTTP metrics alone",
    OURS_SHARED: "**cmo_exporter**, HTTP and query metrics, several workers' shared storage",
    OURS_TRACES: "**cmo_exporter**, HTTP and query metrics, traces and exemplars at 100 %",
    INSTRUMENTATOR: "prometheus-fastapi-instrumentator",
    INSTRUMENTATOR_SHARED: "prometheus-fastapi-instrumentator, prometheus-client's multiprocess mode",
    STARLETTE_EXPORTER: "starlette_exporter",
    OTEL_METRICS: "OpenTelemetry's FastAPI instrumentation, metrics alone",
    OTEL: "OpenTelemetry's FastAPI instrumentation, defaults: metrics, traces, all spans",
}

_SHARED_DIRECTORY: Final = "shared_directory"


@dataclass(frozen=True)
class Surroundings:
    """What a variant may use of the machine.

    Attributes:
        directory: a folder for its files.
        otlp_endpoint: base URL of a collector that throws away what it gets.
        worker: the number of the worker that it is, where several share their storage.
    """

    directory: Path
    otlp_endpoint: str
    worker: str = "0"


@dataclass(frozen=True)
class Built:
    """A variant, ready to serve.

    Attributes:
        app: the application.
        recorded: how many requests its metrics show; None where only the collector can tell.
        close: sends what is left and stops its threads.
        exporter: the exporter, where it is ours.
    """

    app: FastAPI
    recorded: Callable[[], float | None]
    close: Callable[[], None]
    exporter: Exporter | None = None


def missing(name: str) -> str:
    """Why a variant cannot be measured with what is installed; empty when it can be."""
    if name != OURS_SHARED:
        return ""
    from cmo_exporter import ExporterSettings

    if any(field.name == _SHARED_DIRECTORY for field in fields(ExporterSettings)):
        return ""
    return "this version of the exporter has no shared storage"


def build(name: str, surroundings: Surroundings) -> Built:
    """Build the variant of this name in this process, which must not have built another before."""
    return _BUILDERS[name](surroundings)


def _bare(_: Surroundings) -> Built:
    return Built(service(), lambda: None, lambda: None)


def _ours(surroundings: Surroundings) -> Built:
    return _with_exporter(surroundings)


def _ours_http(surroundings: Surroundings) -> Built:
    return _with_exporter(surroundings, query_routes=())


def _ours_shared(surroundings: Surroundings) -> Built:
    return _with_exporter(surroundings, shared_directory=surroundings.directory)


def _ours_traces(surroundings: Surroundings) -> Built:
    return _with_exporter(surroundings, otlp_endpoint=surroundings.otlp_endpoint)


def _with_exporter(
    surroundings: Surroundings, *, query_routes: tuple[str, ...] = ("/query",), **settings: object
) -> Built:
    from cmo_exporter import Exporter, ExporterSettings, Price, instrument_fastapi

    # The settings of the reference service: four scenarios, seven components.
    named = {
        "scenarios": ("academic_research", "clinical_rush", "cache_effectiveness", "rag_intensive"),
        "honour_scenario_header": True,
        "components": ("cache_l1", "cache_l2", "cache_l3", "lightrag", "perplexity", "llm", "embedding"),
        "models": (
            ("lightrag", "stub", "cmo-stub"),
            ("perplexity", "stub", "cmo-sonar"),
            ("embedding", "stub", "cmo-embed"),
        ),
        "prices": {"cmo-stub": Price(0.15, 0.60), "cmo-sonar": Price(1.0, 1.0)},
        "worker": surroundings.worker,
        **settings,
    }
    exporter = Exporter(ExporterSettings(**named))  # type: ignore[arg-type]  # which settings there are varies
    exporter.start()

    def work() -> None:
        query = exporter.current_query()
        query.cache_result("miss")
        query.answered("lightrag")

    app = service(work if query_routes else None)
    instrument_fastapi(app, exporter, query_routes=query_routes)
    counter = "cmo_queries_total" if query_routes else "http_server_request_duration_seconds_count"
    return Built(app, lambda: _total(exporter.registry.collect(), counter), exporter.close, exporter)


def _instrumentator(_: Surroundings) -> Built:
    from prometheus_client import REGISTRY
    from prometheus_fastapi_instrumentator import Instrumentator

    app = service()
    Instrumentator().instrument(app)
    return Built(app, lambda: _total(REGISTRY.collect(), "http_requests_total"), lambda: None)


def _instrumentator_shared(surroundings: Surroundings) -> Built:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(surroundings.directory)
    built = _instrumentator(surroundings)

    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Built(built.app, lambda: _total(registry.collect(), "http_requests_total"), built.close)


def _starlette_exporter(_: Surroundings) -> Built:
    from prometheus_client import REGISTRY
    from starlette_exporter import PrometheusMiddleware

    app = service()
    app.add_middleware(PrometheusMiddleware)
    return Built(app, lambda: _total(REGISTRY.collect(), "starlette_requests_total"), lambda: None)


def _otel_metrics(surroundings: Surroundings) -> Built:
    from opentelemetry.trace import NoOpTracerProvider

    return _with_opentelemetry(surroundings, NoOpTracerProvider(), lambda: None)


def _otel(surroundings: Surroundings) -> Built:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    tracers = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"{surroundings.otlp_endpoint}/v1/traces")
    tracers.add_span_processor(BatchSpanProcessor(exporter))
    return _with_opentelemetry(surroundings, tracers, tracers.shutdown)


def _with_opentelemetry(
    surroundings: Surroundings, tracers: TracerProvider, close: Callable[[], None]
) -> Built:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    meters, close_meters = _meters(surroundings)
    app = service()
    FastAPIInstrumentor.instrument_app(app, tracer_provider=tracers, meter_provider=meters)

    def close_both() -> None:
        close()
        close_meters()

    return Built(app, lambda: None, close_both)


def _meters(surroundings: Surroundings) -> tuple[MeterProvider, Callable[[], None]]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    sender = OTLPMetricExporter(endpoint=f"{surroundings.otlp_endpoint}/v1/metrics")
    meters = MeterProvider(metric_readers=[PeriodicExportingMetricReader(sender)])
    return meters, meters.shutdown


def _total(families: Iterable[Metric], name: str) -> float:
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


_BUILDERS: Final = {
    BARE: _bare,
    OURS: _ours,
    OURS_HTTP: _ours_http,
    OURS_SHARED: _ours_shared,
    OURS_TRACES: _ours_traces,
    INSTRUMENTATOR: _instrumentator,
    INSTRUMENTATOR_SHARED: _instrumentator_shared,
    STARLETTE_EXPORTER: _starlette_exporter,
    OTEL_METRICS: _otel_metrics,
    OTEL: _otel,
}
