"""Traces, off until an endpoint is set, and without anything that a user has said or that tells who they are.

opentelemetry-instrumentation-fastapi makes the spans. What it puts into them (URL with query string, client
address, messages and stack traces of exceptions) may hold a clinical question, so spans pass a list of
what may leave the process before they are sent; what is not on the list does not leave.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

from cmo_exporter.errors import ExporterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import Attributes, AttributeValue

    from cmo_exporter.settings import ExporterSettings

_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SEND_TIMEOUT_SECONDS: Final = 5.0
_FLUSH_TIMEOUT_MILLISECONDS: Final = 2_000

_ATTRIBUTES_THAT_MAY_LEAVE: Final = frozenset(
    {
        "error.type",
        "exception.type",
        "http.flavor",
        "http.method",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "http.scheme",
        "http.status_code",
        "network.protocol.version",
        "url.scheme",
    }
)

_log = logging.getLogger("cmo_exporter")


class Tracing:
    """The tracer provider of one exporter; there is none while no endpoint is set."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._provider: TracerProvider | None = None
        self._settings = settings

    @property
    def enabled(self) -> bool:
        """Whether an endpoint is set and OpenTelemetry is not switched off (OTEL_SDK_DISABLED)."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        named = (self._settings.otlp_endpoint, *(os.environ.get(name) for name in _ENDPOINT_VARIABLES))
        return any(named)

    def instrument(self, app: FastAPI) -> None:
        """Make a span of every request of this app, if an endpoint is set.

        Raises:
            ExporterError: an endpoint is set and a package that traces need is missing.
        """
        if not self.enabled:
            return
        try:
            from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
            from opentelemetry.metrics import NoOpMeterProvider
        except ImportError as error:
            raise ExporterError(
                f"An OTLP endpoint is set, but traces need a package that is missing: {error.name}. "
                "Install it, or unset the endpoint."
            ) from error
        if self._provider is None:
            self._provider = _provider(self._settings)
        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )

    def close(self) -> None:
        """Send what is left, for a short time, and stop."""
        if self._provider is None:
            return
        provider, self._provider = self._provider, None
        try:
            provider.force_flush(_FLUSH_TIMEOUT_MILLISECONDS)
            provider.shutdown()
        except Exception as error:  # noqa: BLE001 - spans that cannot be sent must not stop a service from ending
            _log.warning("The last spans could not be sent: %s.", type(error).__name__)


def _provider(settings: ExporterSettings) -> TracerProvider:
    # Imported here because most services run without traces, and these imports take a third of a second.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = settings.otlp_endpoint
    sender = OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None, timeout=_SEND_TIMEOUT_SECONDS
    )
    name = os.environ.get("OTEL_SERVICE_NAME") or settings.service_name
    resource = Resource.create({"service.name": name, "service.version": settings.version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_discreet(sender)))
    return provider


def _discreet(sender: SpanExporter) -> SpanExporter:
    """A span exporter that sends only what may leave the process."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class DiscreetSpanExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return sender.export([_without_content(span) for span in spans])

        def shutdown(self) -> None:
            sender.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return sender.force_flush(timeout_millis)

    return DiscreetSpanExporter()


def _without_content(span: ReadableSpan) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Status

    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_allowed(span.attributes),
        events=[_event_without_content(event) for event in span.events],
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def _event_without_content(event: Event) -> Event:
    from opentelemetry.sdk.trace import Event

    return Event(event.name, attributes=_allowed(event.attributes), timestamp=event.timestamp)


def _allowed(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in (attributes or {}).items() if name in _ATTRIBUTES_THAT_MAY_LEAVE}
