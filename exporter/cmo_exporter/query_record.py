"""What is remembered of one query while it runs, for its spans and its log line.

Metrics need none of this, so there is a `Watch`, and a record of each query, only while traces or the query
log are switched on. Every word in a record is from a closed list of the catalogue or the settings: what a
service passes by mistake in the place of a component's name may be a question, and must not leave.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter import catalogue
from cmo_exporter.catalogue import OTHER
from cmo_exporter.instruments import closed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.query_log import QueryLog
    from cmo_exporter.request_watch import WatchedRequest
    from cmo_exporter.settings import ExporterSettings
    from cmo_exporter.spans import OpenSpan
    from cmo_exporter.tracing import Exemplar, Tracing

MOST_STEPS: Final = 32
"""Component calls of one query that are remembered one by one; the others only add to a sum."""
MOST_EVENTS: Final = 32
"""Look-ups, fallbacks and refusals of one query that are remembered."""
MOST_QUESTION_CHARACTERS: Final = 2_000

OPERATIONS: Final = ("chat", "text_completion", "generate_content", "embeddings")
"""What a model call does, in the words of OpenTelemetry's conventions for generative AI."""

_TRIVIAL_SECONDS: Final = 0.001

_request: ContextVar[WatchedRequest | None] = ContextVar("cmo_exporter_request", default=None)
_step: ContextVar[Step | None] = ContextVar("cmo_exporter_step", default=None)

Model = tuple[str, str, str]
"""Provider, model and operation of a model call."""


class Watch:
    """Follows single queries. The exporter has one only while traces or the query log are on."""

    def __init__(
        self,
        settings: ExporterSettings,
        tracing: Tracing,
        log: QueryLog | None,
        breakers: Mapping[str, str],
        errors: ErrorCounter,
    ) -> None:
        self.settings = settings
        self.tracing = tracing
        self.log = log
        self.breakers = breakers
        self.errors = errors
        self._components = frozenset(settings.components)
        self._providers = frozenset(provider for _, provider, _ in settings.models)
        self._models = frozenset(model for _, _, model in settings.models)

    def query(self, scenario: str, began: float) -> QueryRecord:
        """A query has begun, at ``began`` by the monotonic clock."""
        return QueryRecord(self, scenario, began)

    def step(self, record: QueryRecord | None, component: str, model: Model | None) -> Step:
        """A component is called, for the query of ``record`` or for none."""
        name = self.component(component)
        step = Step(record, name, model and self.model(*model))
        if record is not None:
            record.add(step)
        maker = self.tracing.maker
        if maker is not None:
            parent = record.span if record is not None else None
            step.span = maker.component(name, step.model, parent)
        step.token = _step.set(step)
        return step

    def component(self, name: object) -> str:
        """The component's name, if it is one of the settings'."""
        return closed(name, self._components) or OTHER

    def model(self, provider: object, model: object, operation: object) -> Model:
        """The same, as far as the settings and the conventions know it."""
        return (
            closed(provider, self._providers) or OTHER,
            closed(model, self._models) or OTHER,
            closed(operation, OPERATIONS) or OTHER,
        )


class Step:
    """One call of a component, under way or done."""

    __slots__ = ("began", "component", "model", "outcome", "record", "seconds", "span", "token", "usage")

    def __init__(self, record: QueryRecord | None, component: str, model: Model | None) -> None:
        self.record = record
        self.component = component
        self.model = model
        self.began = time.monotonic()
        self.outcome: str | None = None
        self.seconds = 0.0
        self.usage = (0.0, 0.0)
        self.span: OpenSpan | None = None
        self.token: Token[Step | None] | None = None

    def finish(self, outcome: str, seconds: float, error: BaseException | None) -> None:
        """The call has ended."""
        self.outcome, self.seconds = outcome, seconds
        if self.record is not None:
            self.record.step_finished(self)
        if self.span is not None:
            self.span.finish(outcome, seconds, error, {"cmo.outcome": outcome})
        if self.token is not None:
            reset(self.token)
        self.record = None  # which holds this step; together they would be work for the garbage collector

    def used(self, model: Model, read: float, written: float) -> None:
        """The call has used tokens."""
        self.usage = (self.usage[0] + read, self.usage[1] + written)
        if self.span is not None:
            self.span.used(self.model or model, *self.usage)


class QueryRecord:
    """One query, as its spans and its log line will tell it."""

    __slots__ = (
        "_events",
        "_watch",
        "began",
        "breakers",
        "cache",
        "cost",
        "fallbacks",
        "finished",
        "first_token_seconds",
        "omitted",
        "outcome",
        "question_text",
        "queue_wait_seconds",
        "refusals",
        "request",
        "retries",
        "scenario",
        "seconds",
        "source",
        "span",
        "steps",
        "tiers",
        "time",
        "tokens",
    )

    def __init__(self, watch: Watch, scenario: str, began: float) -> None:
        self._watch = watch
        self._events = 0
        self.scenario = scenario
        self.began = began
        early = time.monotonic() - began
        self.time = time.time_ns() - (int(early * 1e9) if early > _TRIVIAL_SECONDS else 0)
        self.finished = False
        self.outcome = "error"
        self.source: str | None = None
        self.cache = "bypass"
        self.seconds = 0.0
        self.first_token_seconds: float | None = None
        self.steps: list[Step] = []
        self.omitted: dict[str, tuple[int, float]] = {}
        self.tiers: list[tuple[str, str]] = []
        self.fallbacks: list[tuple[str, str, str]] = []
        self.refusals: list[tuple[str, str]] = []
        self.retries: dict[str, int] = {}
        self.queue_wait_seconds: dict[str, float] = {}
        self.tokens = (0.0, 0.0)
        self.cost: float | None = None
        self.breakers: dict[str, str] = {}
        self.question_text: str | None = None
        self.request = _request.get()
        maker = watch.tracing.maker
        self.span: OpenSpan | None = maker.query(scenario, self.time) if maker is not None else None

    @property
    def exemplar(self) -> Exemplar | None:
        """What joins a measurement of this query to its trace, when that is sampled."""
        return self.span.exemplar() if self.span is not None else None

    def add(self, step: Step) -> None:
        """A component call has begun for this query."""
        if len(self.steps) < MOST_STEPS and not self.finished:
            self.steps.append(step)
        elif not self.finished:
            calls, seconds = self.omitted.get(step.component, (0, 0.0))
            self.omitted[step.component] = calls + 1, seconds

    def step_finished(self, step: Step) -> None:
        """Add the time of a call that is not remembered by itself."""
        if not self.finished and len(self.steps) == MOST_STEPS and step not in self.steps:
            calls, seconds = self.omitted.get(step.component, (0, 0.0))
            self.omitted[step.component] = calls, seconds + step.seconds

    def first_token(self, seconds: float) -> None:
        """The first piece of the answer went out after so long."""
        self.first_token_seconds = seconds

    def looked_up(self, tier: object, result: object) -> None:
        """A cache tier was asked."""
        if self._room():
            self.tiers.append(
                (
                    closed(tier, catalogue.CACHE_TIERS) or OTHER,
                    closed(result, catalogue.CACHE_RESULTS) or OTHER,
                )
            )

    def fell_back(self, source: object, target: object, reason: object) -> None:
        """The question was handed on."""
        if not self._room():
            return
        words = (
            closed(source, catalogue.FALLBACK_SOURCES) or OTHER,
            closed(target, catalogue.FALLBACK_TARGETS) or OTHER,
            closed(reason, catalogue.FALLBACK_REASONS) or OTHER,
        )
        self.fallbacks.append(words)
        if self.span is not None:
            names = ("cmo.fallback.source", "cmo.fallback.target", "cmo.fallback.reason")
            self.span.event("cmo.fallback", dict(zip(names, words, strict=True)))

    def retried(self, component: object) -> None:
        """A call of a component is made again."""
        if self._room():
            name = self._watch.component(component)
            self.retries[name] = self.retries.get(name, 0) + 1
            if self.span is not None:
                self.span.event("cmo.retry", {"cmo.component": name})

    def refused(self, component: object, state: object) -> None:
        """A circuit breaker refused a call."""
        if self._room():
            known = closed(state, catalogue.BREAKER_STATES) or OTHER
            self.refusals.append((self._watch.component(component), known))

    def waited(self, component: object, seconds: float) -> None:
        """A call of a component waited so long for its turn."""
        if not self.finished:
            name = self._watch.component(component)
            self.queue_wait_seconds[name] = self.queue_wait_seconds.get(name, 0.0) + seconds

    def used(self, read: float, written: float, cost: float | None) -> None:
        """Model calls have used tokens, at a cost in US dollars where the price is known."""
        self.tokens = (self.tokens[0] + read, self.tokens[1] + written)
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost

    def asked(self, text: object) -> None:
        """Keep the question's text, if the settings say by name that it is to be recorded."""
        if self._watch.settings.record_question_text and issubclass(type(text), str):
            self.question_text = str.__str__(text)[:MOST_QUESTION_CHARACTERS]
            if self.span is not None:
                self.span.set_attribute("cmo.question", self.question_text)

    def finish(self, *, outcome: str, source: str | None, cache: str, seconds: float) -> None:
        """The query has finished: end its span, and have its line written."""
        self.outcome, self.source, self.cache, self.seconds = outcome, source, cache, seconds
        self.breakers = dict(self._watch.breakers)
        self.finished = True
        if self.span is not None:
            attributes: dict[str, str | float] = {"cmo.outcome": outcome, "cmo.cache": cache}
            if source is not None:
                attributes["cmo.source"] = source
            if self.first_token_seconds is not None:
                attributes["cmo.time_to_first_token_seconds"] = self.first_token_seconds
            self.span.finish(outcome, seconds, None, attributes)
        if self._watch.log is not None:
            self._watch.log.put(self)

    def _room(self) -> bool:
        self._events += 1
        return not self.finished and self._events <= MOST_EVENTS


def current_step() -> Step | None:
    """The component call that this code is part of, unless it has ended."""
    step = _step.get()
    return step if step is not None and step.outcome is None else None


def enter_request(request: WatchedRequest) -> Token[WatchedRequest | None]:
    """Queries that begin from now on, in this context, came with this request."""
    return _request.set(request)


def leave_request(token: Token[WatchedRequest | None]) -> None:
    """The request is over."""
    reset(token)


def reset(token: Token[Any]) -> None:
    """Undo the setting of a context variable, where this is still the context that it was set in."""
    # An asynchronous generator may be closed in another one, and the end of a query be seen in another task.
    try:
        token.var.reset(token)
    except (ValueError, RuntimeError):
        return
