"""Spans: how they are made, where they are sent, and what of them may leave.

opentelemetry-instrumentation-fastapi puts into a span what may hold a clinical question or tell who asked
it: the URL with its query string, the client's address, messages and stack traces of exceptions; and a
service may put anything into the span that it finds current. So spans are sent by a list of what may leave;
what is not on the list stays. This module is imported only once an endpoint is set, because its imports take
a third of a second.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from opentelemetry import propagate
from opentelemetry.context import attach, get_current
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)

from cmo_exporter.query_record import reset

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextvars import Token

    from fastapi import FastAPI
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import Attributes, AttributeValue

    from cmo_exporter.query_record import Model
    from cmo_exporter.settings import ExporterSettings
    from cmo_exporter.tracing import Exemplar

    Headers = Iterable[tuple[bytes, bytes]]

_SEND_TIMEOUT_SECONDS: Final = 5.0
_NANOSECONDS: Final = 1_000_000_000
_NO_FAULT: Final = frozenset({"success", "cancelled"})
_QUESTION: Final = "cmo.question"

ATTRIBUTES_THAT_MAY_LEAVE: Final = frozenset(
    {
        "cmo.cache",
        "cmo.component",
        "cmo.fallback.reason",
        "cmo.fallback.source",
        "cmo.fallback.target",
        "cmo.outcome",
        "cmo.scenario",
        "cmo.source",
        "cmo.time_to_first_token_seconds",
        "error.type",
        "exception.type",
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
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


class SpanMaker:
    """Makes the spans of requests, queries and component calls with one tracer."""

    def __init__(self, tracer_provider: TracerProvider) -> None:
        self._tracer = tracer_provider.get_tracer("cmo_exporter")
        self._fields = frozenset(field.lower().encode() for field in propagate.get_global_textmap().fields)

    def request(self, method: str, headers: Headers, attributes: Mapping[str, AttributeValue]) -> OpenSpan:
        """A request has arrived; it may belong to a trace that its sender has begun."""
        parent = get_current()
        if not self._fields.isdisjoint([name for name, _ in headers]):
            parent = propagate.extract(headers, parent, _GETTER)
        return _open(self._tracer, method, time.time_ns(), SpanKind.SERVER, attributes, parent)

    def query(self, scenario: str, began: int) -> OpenSpan:
        """A query has begun, at ``began`` nanoseconds of Unix time."""
        return _open(
            self._tracer, "query", began, SpanKind.INTERNAL, {"cmo.scenario": scenario}, get_current()
        )

    def component(self, name: str, model: Model | None, query: OpenSpan | None) -> OpenSpan:
        """A component is called. A model call is named and described as OpenTelemetry's conventions say."""
        parent = get_current()
        # A worker of the service's own may make the call, in the context of another query or of none.
        if query is not None and not query.is_of_trace(get_current_span(parent)):
            parent = query.context
        attributes: dict[str, AttributeValue] = {"cmo.component": name}
        kind = SpanKind.INTERNAL
        if model is not None:
            attributes |= _model_attributes(model)
            name, kind = f"{model[2]} {model[1]}", SpanKind.CLIENT
        return _open(self._tracer, name, time.time_ns(), kind, attributes, parent)


class OpenSpan:
    """A span under way, which is the current one until it ends."""

    __slots__ = ("_span", "_start", "_token", "context")

    def __init__(self, span: Span, start: int, context: Context, token: Token[Context]) -> None:
        self._span = span
        self._start = start
        self._token = token
        self.context = context

    def is_of_trace(self, other: Span) -> bool:
        """Whether another span is of the same trace."""
        return self._span.get_span_context().trace_id == other.get_span_context().trace_id

    def ids(self) -> tuple[str, str]:
        """Trace id and span id in hexadecimal."""
        context = self._span.get_span_context()
        return format_trace_id(context.trace_id), format_span_id(context.span_id)

    def exemplar(self) -> Exemplar | None:
        """What joins a measurement to this span, when it is sampled."""
        return exemplar_of(self._span)

    def set(self, name: str, value: AttributeValue) -> None:
        """Say something of what the span stands for."""
        self._span.set_attribute(name, value)

    def event(self, name: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Something happened just now."""
        self._span.add_event(name, attributes)

    def used(self, model: Model, read: float, written: float) -> None:
        """The model call has used so many tokens up to now."""
        if self._span.is_recording():
            usage = {"gen_ai.usage.input_tokens": int(read), "gen_ai.usage.output_tokens": int(written)}
            self._span.set_attributes({**_model_attributes(model), **usage})

    def end(
        self,
        outcome: str,
        seconds: float,
        error: BaseException | None,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        """It has ended with this outcome, so many seconds after it began."""
        span = self._span
        if span.is_recording():
            span.set_attributes(attributes)
            if outcome not in _NO_FAULT:
                span.set_attribute("error.type", outcome if error is None else type(error).__qualname__)
                span.set_status(_FAULT)
            span.end(self._start + int(seconds * _NANOSECONDS))
        reset(self._token)

    def end_request(self, name: str, end: int, attributes: Mapping[str, AttributeValue]) -> None:
        """The request has ended, at ``end`` nanoseconds of Unix time."""
        span = self._span
        if span.is_recording():
            span.update_name(name)
            span.set_attributes(attributes)
            if "error.type" in attributes:
                span.set_status(_FAULT)
            span.end(end)
        reset(self._token)


def _open(
    tracer: Tracer,
    name: str,
    start: int,
    kind: SpanKind,
    attributes: Mapping[str, AttributeValue],
    parent: Context,
) -> OpenSpan:
    span = tracer.start_span(name, parent, kind, attributes, start_time=start)
    context = set_span_in_context(span, parent)
    return OpenSpan(span, start, context, attach(context))


def _model_attributes(model: Model) -> dict[str, AttributeValue]:
    provider, name, operation = model
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
    }


def exemplar_of(span: Span) -> Exemplar | None:
    """What joins a measurement to this span, when it is sampled."""
    context = span.get_span_context()
    if not context.trace_flags.sampled:
        return None
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}


def current_exemplar() -> Exemplar | None:
    """The same of the span that is current."""
    return exemplar_of(get_current_span())


class _HeaderGetter(Getter["Headers"]):
    """Reads the headers of an ASGI scope for a propagator."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        wanted = key.lower().encode()
        return [value.decode("latin-1") for name, value in carrier if name == wanted] or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_GETTER: Final = _HeaderGetter()
_FAULT: Final = Status(StatusCode.ERROR)


class DiscreetSpanExporter(SpanExporter):
    """Hands spans on to another exporter without what must not leave the process."""

    def __init__(self, sender: SpanExporter, allowed: frozenset[str] = ATTRIBUTES_THAT_MAY_LEAVE) -> None:
        self._sender = sender
        self._allowed = allowed

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send what may leave of these spans."""
        return self._sender.export([without_content(span, self._allowed) for span in spans])

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
    allowed = ATTRIBUTES_THAT_MAY_LEAVE | ({_QUESTION} if settings.record_question_text else frozenset())
    made.add_span_processor(BatchSpanProcessor(DiscreetSpanExporter(sender, allowed)))
    return made


def instrument(app: FastAPI, tracer_provider: TracerProvider) -> None:
    """Let opentelemetry-instrumentation-fastapi make a span of every request of this app.

    One each, and no metrics, which we have of our own.
    """
    # Imported here because most services let the exporter make this span, at a third of the cost.
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415
    from opentelemetry.metrics import NoOpMeterProvider  # noqa: PLC0415

    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=tracer_provider,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["receive", "send"],
    )


def without_content(span: ReadableSpan, allowed: frozenset[str] = ATTRIBUTES_THAT_MAY_LEAVE) -> ReadableSpan:
    """The span, or a copy of it that holds only what may leave the process."""
    if _holds_nothing_else(span, allowed):
        return span
    return ReadableSpan(
        name=span.name,
        context=_without_state(span.context),
        parent=_without_state(span.parent),
        resource=span.resource,
        attributes=_allowed(span.attributes, allowed),
        events=[
            Event(event.name, attributes=_allowed(event.attributes, allowed), timestamp=event.timestamp)
            for event in span.events
        ],
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def _holds_nothing_else(span: ReadableSpan, allowed: frozenset[str]) -> bool:
    """Whether the span may leave as it is, as most of our own may: a copy costs as much as the span did."""
    contexts = (span.context, span.parent)
    return (
        not span.events
        and not span.links
        and not span.status.description
        and allowed.issuperset(span.attributes or ())
        and not any(context is not None and context.trace_state for context in contexts)
    )


def _without_state(context: SpanContext | None) -> SpanContext | None:
    # The trace state is text that the client has sent, in its header `tracestate`.
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


def _allowed(attributes: Attributes, allowed: frozenset[str]) -> dict[str, AttributeValue]:
    return {name: value for name, value in (attributes or {}).items() if name in allowed}
