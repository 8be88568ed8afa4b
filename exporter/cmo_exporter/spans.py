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
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)

from cmo_exporter.query_record import reset

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi import FastAPI
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.util.types import Attributes, AttributeValue

    from cmo_exporter.query_record import Model
    from cmo_exporter.settings import ExporterSettings
    from cmo_exporter.tracing import Exemplar

    Headers = Iterable[tuple[bytes, bytes]]
    Simple = str | int | float

_SEND_TIMEOUT_SECONDS: Final = 5.0
_NANOSECONDS: Final = 1_000_000_000
_NO_FAULT: Final = frozenset({"success", "cancelled"})
_QUESTION: Final = "cmo.question"
_MOST_EVENTS: Final = 64
_SCOPE: Final = InstrumentationScope("cmo_exporter")
_FAULT: Final = Status(StatusCode.ERROR)
_UNSET: Final = Status()
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)

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
    """Makes the spans of requests, queries and component calls."""

    def __init__(
        self, tracer_provider: TracerProvider, sender: SpanProcessor, allowed: frozenset[str]
    ) -> None:
        self.sampler = tracer_provider.sampler
        self.ids = tracer_provider.id_generator
        self.resource = tracer_provider.resource
        self.sender = sender
        self.allowed = allowed
        self._fields = frozenset(field.lower().encode() for field in propagate.get_global_textmap().fields)

    def request(self, method: str, headers: Headers) -> OpenSpan:
        """A request has arrived; it may belong to a trace that its sender has begun."""
        parent = get_current()
        if not self._fields.isdisjoint([name for name, _ in headers]):
            parent = propagate.extract(headers, parent, _GETTER)
        return OpenSpan(self, method, SpanKind.SERVER, time.time_ns(), {}, parent)

    def query(self, scenario: str, began: int) -> OpenSpan:
        """A query has begun, at ``began`` nanoseconds of Unix time."""
        attributes: dict[str, Simple] = {"cmo.scenario": scenario}
        return OpenSpan(self, "query", SpanKind.INTERNAL, began, attributes, get_current())

    def component(self, name: str, model: Model | None, query: OpenSpan | None) -> OpenSpan:
        """A component is called. A model call is named and described as OpenTelemetry's conventions say."""
        parent = get_current()
        # A worker of the service's own may make the call, in the context of another query or of none.
        if query is not None and not query.is_of_trace(get_current_span(parent)):
            parent = set_span_in_context(query, parent)
        attributes: dict[str, Simple] = {"cmo.component": name}
        kind = SpanKind.INTERNAL
        if model is not None:
            attributes |= _model_attributes(model)
            name, kind = f"{model[2]} {model[1]}", SpanKind.CLIENT
        return OpenSpan(self, name, kind, time.time_ns(), attributes, parent)


class OpenSpan(Span):
    """A span under way, which is the current one until it ends.

    It costs a third of the SDK's own span, which guards against what cannot happen here: any number of
    attributes, of any type, from several threads. To the rest of the process it is a span like any other,
    except that it takes nothing that must not leave.
    """

    def __init__(
        self,
        maker: SpanMaker,
        name: str,
        kind: SpanKind,
        start: int,
        attributes: dict[str, Simple],
        parent: Context,
    ) -> None:
        above = get_current_span(parent).get_span_context()
        self._parent = SpanContext(above.trace_id, above.span_id, above.is_remote, above.trace_flags)
        trace_id = above.trace_id if above.is_valid else maker.ids.generate_trace_id()
        decision = maker.sampler.should_sample(parent, trace_id, name, kind, attributes).decision
        self._recording: bool = decision is Decision.RECORD_AND_SAMPLE
        flags = _SAMPLED if self._recording else _NOT_SAMPLED
        self._context = SpanContext(
            trace_id, maker.ids.generate_span_id(), is_remote=False, trace_flags=flags
        )
        self._maker = maker
        self._name = name
        self._kind = kind
        self._start = start
        self._attributes = attributes
        self._events: list[Event] = []
        self._status = _UNSET
        # Not kept: it holds the span, and a cycle of the two would be work for the garbage collector.
        self._token = attach(set_span_in_context(self, parent))

    def is_of_trace(self, other: Span) -> bool:
        """Whether another span is of the same trace."""
        return self._context.trace_id == other.get_span_context().trace_id

    def ids(self) -> tuple[str, str]:
        """Trace id and span id in hexadecimal."""
        return format_trace_id(self._context.trace_id), format_span_id(self._context.span_id)

    def exemplar(self) -> Exemplar | None:
        """What joins a measurement to this span, when it is sampled."""
        return exemplar_of(self)

    def event(self, name: str, attributes: dict[str, Simple]) -> None:
        """Something happened just now."""
        if self._recording and len(self._events) < _MOST_EVENTS:
            self._events.append(Event(name, attributes))

    def used(self, model: Model, read: float, written: float) -> None:
        """The model call has used so many tokens up to now."""
        self._attributes |= _model_attributes(model)
        self._attributes["gen_ai.usage.input_tokens"] = int(read)
        self._attributes["gen_ai.usage.output_tokens"] = int(written)

    def finish(
        self, outcome: str, seconds: float, error: BaseException | None, attributes: dict[str, Simple]
    ) -> None:
        """It has ended with this outcome, so many seconds after it began."""
        if self._recording:
            self._attributes |= attributes
            if outcome not in _NO_FAULT:
                self._attributes["error.type"] = outcome if error is None else type(error).__qualname__
                self._status = _FAULT
            self.end(self._start + int(seconds * _NANOSECONDS))
        reset(self._token)

    def finish_request(self, name: str, end: int, attributes: dict[str, Simple]) -> None:
        """The request has ended, at ``end`` nanoseconds of Unix time."""
        if self._recording:
            self._name = name
            self._attributes |= attributes
            if "error.type" in attributes:
                self._status = _FAULT
            self.end(end)
        reset(self._token)

    def end(self, end_time: int | None = None) -> None:
        """Hand it to what sends it; later calls change nothing."""
        if not self._recording:
            return
        self._recording = False
        span = ReadableSpan(
            self._name,
            self._context,
            self._parent if self._parent.is_valid else None,
            self._maker.resource,
            self._attributes,
            self._events,
            (),
            self._kind,
            instrumentation_scope=_SCOPE,
            status=self._status,
            start_time=self._start,
            end_time=time.time_ns() if end_time is None else end_time,
        )
        self._maker.sender.on_end(span)

    def get_span_context(self) -> SpanContext:
        """What children and exemplars refer to."""
        return self._context

    def is_recording(self) -> bool:
        """Whether it is sampled and has not ended."""
        return self._recording

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Take an attribute, if it may leave and is simple."""
        if self._recording and key in self._maker.allowed and isinstance(value, str | int | float):
            self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """The same for several."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Take none: what the service and its libraries say in an event may be a question."""

    def update_name(self, name: str) -> None:
        """Keep the name, for the same reason."""

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:  # noqa: ARG002 - the words may quote
        """Take the code, not the words."""
        code = status if isinstance(status, StatusCode) else status.status_code
        self._status = _FAULT if code is StatusCode.ERROR else _UNSET

    def record_exception(
        self,
        exception: BaseException,
        *_: object,
        **__: object,
    ) -> None:
        """Take the exception's type, and neither its message nor its stack."""
        self.event("exception", {"exception.type": type(exception).__qualname__})


def _model_attributes(model: Model) -> dict[str, Simple]:
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


class _Service(Resource):
    """A resource whose hash is made once: the encoder asks for it with every span, and it is made of JSON."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash


def pipeline(settings: ExporterSettings) -> tuple[TracerProvider, SpanMaker]:
    """What makes spans and sends them to the endpoint of the settings, or else of the environment."""
    endpoint = settings.otlp_endpoint
    sender = OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None, timeout=_SEND_TIMEOUT_SECONDS
    )
    name = os.environ.get("OTEL_SERVICE_NAME") or settings.service_name
    resource = Resource.create({"service.name": name, "service.version": settings.version})
    provider = TracerProvider(
        resource=_Service(resource.attributes, resource.schema_url), shutdown_on_exit=False
    )
    allowed = ATTRIBUTES_THAT_MAY_LEAVE | ({_QUESTION} if settings.record_question_text else frozenset())
    processor = BatchSpanProcessor(DiscreetSpanExporter(sender, allowed))
    provider.add_span_processor(processor)
    return provider, SpanMaker(provider, processor, allowed)


def instrument(app: FastAPI, tracer_provider: TracerProvider) -> None:
    """Let opentelemetry-instrumentation-fastapi make a span of every request of this app.

    One each, and no metrics, which we have of our own.
    """
    # Imported here because most services let the exporter make this span, at a third of the cost.
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 - asked for alone
    from opentelemetry.metrics import NoOpMeterProvider  # noqa: PLC0415 - asked for alone

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
        not span.links
        and all(allowed.issuperset(event.attributes or ()) for event in span.events)
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
