"""Spans on their way out of the process: where they are sent, and what of them may leave.

opentelemetry-instrumentation-fastapi puts into a span what may hold a clinical question or tell who asked
it: the URL with its query string, the client's address, messages and stack traces of exceptions. So spans
are sent by a list of what may leave; what is not on the list stays. This module is imported only once an
endpoint is set, because its imports take a third of a second.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanContext, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.util.types import Attributes, AttributeValue

    from cmo_exporter.settings import ExporterSettings

_SEND_TIMEOUT_SECONDS: Final = 5.0

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


class DiscreetSpanExporter(SpanExporter):
    """Hands spans on to another exporter without what must not leave the process."""

    def __init__(self, sender: SpanExporter) -> None:
        self._sender = sender

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send what may leave of these spans."""
        return self._sender.export([without_content(span) for span in spans])

    def shutdown(self) -> None:
        """Stop sending."""
        self._sender.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is waiting."""
        return self._sender.force_flush(timeout_millis)


def provider(settings: ExporterSettings) -> TracerProvider:
    """A tracer provider that sends to the endpoint of the settings, or else of the environment."""
    endpoint = settings.otlp_endpoint
    sender = OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None, timeout=_SEND_TIMEOUT_SECONDS
    )
    name = os.environ.get("OTEL_SERVICE_NAME") or settings.service_name
    resource = Resource.create({"service.name": name, "service.version": settings.version})
    made = TracerProvider(resource=resource, shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(DiscreetSpanExporter(sender)))
    return made


def instrument(app: FastAPI, tracer_provider: TracerProvider) -> None:
    """Make a span of every request of this app: one each, and no metrics, which we have of our own."""
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=tracer_provider,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["receive", "send"],
    )


def without_content(span: ReadableSpan) -> ReadableSpan:
    """A copy of a span that holds only what may leave the process."""
    return ReadableSpan(
        name=span.name,
        context=_without_state(span.context),
        parent=_without_state(span.parent),
        resource=span.resource,
        attributes=_allowed(span.attributes),
        events=[
            Event(event.name, attributes=_allowed(event.attributes), timestamp=event.timestamp)
            for event in span.events
        ],
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def _without_state(context: SpanContext | None) -> SpanContext | None:
    # The trace state is text that the client has sent, in its header `tracestate`.
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


def _allowed(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in (attributes or {}).items() if name in _ATTRIBUTES_THAT_MAY_LEAVE}
