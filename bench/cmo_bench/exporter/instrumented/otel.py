"""The service with OpenTelemetry's FastAPI instrumentation, its SDK and its OTLP exporters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracerProvider

from cmo_bench.exporter.service import service
from cmo_bench.exporter.variants import Built

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry import trace

    from cmo_bench.exporter.variants import Surroundings


def metrics_alone(surroundings: Surroundings) -> Built:
    """Its metrics, and no span."""
    meters = _meters(surroundings)
    return _instrumented(NoOpTracerProvider(), meters, meters.shutdown, lambda: None)


def defaults(surroundings: Surroundings) -> Built:
    """Its metrics, and every span: of the request, of each receive and each send."""
    meters = _meters(surroundings)
    tracers = TracerProvider()
    sender = OTLPSpanExporter(endpoint=f"{surroundings.otlp_endpoint}/v1/traces")
    tracers.add_span_processor(BatchSpanProcessor(sender))

    def close() -> None:
        tracers.shutdown()
        meters.shutdown()

    return _instrumented(tracers, meters, close, tracers.force_flush)


def _instrumented(
    tracers: trace.TracerProvider,
    meters: MeterProvider,
    close: Callable[[], None],
    flush: Callable[[], object],
) -> Built:
    app = service()
    FastAPIInstrumentor.instrument_app(app, tracer_provider=tracers, meter_provider=meters)
    return Built(app, lambda: None, close, flush=flush)


def _meters(surroundings: Surroundings) -> MeterProvider:
    sender = OTLPMetricExporter(endpoint=f"{surroundings.otlp_endpoint}/v1/metrics")
    return MeterProvider(metric_readers=[PeriodicExportingMetricReader(sender)])
