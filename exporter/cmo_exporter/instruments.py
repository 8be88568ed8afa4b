"""The catalogue turned into prometheus-client metrics, with every child bound once.

`prometheus_client` costs twice as much when labels are looked up on each call, so a family keeps its
children in a dictionary of label values. The dictionary is filled beforehand, which also puts every label
set at 0 before anything has happened: a counter that is born with its first event loses that event to
Prometheus. Values from outside the closed lists become ``_other`` and are counted, so that no input can
make series.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from cmo_exporter import catalogue
from cmo_exporter.catalogue import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.metrics_core import Metric as Exposed

    from cmo_exporter.settings import ExporterSettings

Child = TypeVar("Child", bound=MetricWrapperBase)

KNOWN_HTTP_METHODS: Final = (
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
)  # fmt: skip
OTHER_HTTP_METHOD: Final = "_OTHER"
"""OpenTelemetry's word for a method that is not in the list."""

# Who hands a question on to whom. Other pairs may be recorded too; they are only not there beforehand,
# because every pair is 9 reasons times every scenario.
_USUAL_FALLBACKS: Final = (
    ("lightrag", "perplexity"),
    ("lightrag", "default"),
    ("perplexity", "stale"),
    ("perplexity", "default"),
)


def closed(value: object, allowed: Iterable[str]) -> str | None:
    """The value as a plain string when it is one of ``allowed``, else None; never raises."""
    if not issubclass(type(value), str):  # unlike isinstance, this asks nothing of the value itself
        return None
    plain = str.__str__(value)
    return plain if plain in allowed else None


class Family(Generic[Child]):
    """One metric of the catalogue and its children, by label values in the catalogue's order."""

    def __init__(
        self,
        metric: catalogue.Metric,
        client: Child,
        allowed: tuple[frozenset[str], ...],
        dropped: Callable[[str, int], None],
    ) -> None:
        self.metric = metric
        self._client = client
        self._allowed = allowed
        self._dropped = dropped
        self._children: dict[tuple[object, ...], Child] = {} if allowed else {(): client}

    def preset(self, combinations: Iterable[tuple[str, ...]]) -> None:
        """Put label sets at 0 before anything has happened."""
        for values in combinations:
            self._children[values] = self._client.labels(*values)

    def child(self, *values: object) -> Child:
        """The child of these label values; whatever is not in a closed list becomes ``_other``."""
        try:
            return self._children[values]
        except Exception:  # noqa: BLE001 - a value may be unhashable, or raise when it is compared
            return self._unusual_child(values)

    def collect(self) -> Exposed:
        """The samples at this moment, without the ``_created`` ones that prometheus-client adds."""
        return _collect(self._client)

    def _unusual_child(self, values: tuple[object, ...]) -> Child:
        safe: list[str] = []
        replaced = 0
        for value, allowed in zip(values, self._allowed, strict=True):
            plain = closed(value, allowed) or closed(value, (OTHER,))
            safe.append(plain or OTHER)
            replaced += plain is None
        if replaced:
            self._dropped(self.metric.name, replaced)
        key = tuple(safe)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = self._client.labels(*key)
        return found


class HttpFamily(Generic[Child]):
    """A family whose label values are known only once they are met, so that their number is bounded."""

    def __init__(
        self, client: Child, overflow: tuple[str, ...], maximum: int, dropped: Callable[[], None]
    ) -> None:
        self._client = client
        self._children: dict[tuple[str, ...], Child] = {}
        self._overflow = overflow
        self._maximum = maximum
        self._dropped = dropped

    def child(self, *values: str) -> Child:
        """The child of these label values, or the one that stands for all beyond the maximum."""
        found = self._children.get(values)
        if found is not None:
            return found
        if len(self._children) >= self._maximum:
            self._dropped()
            values = self._overflow
        return self._children.setdefault(values, self._client.labels(*values))

    def collect(self) -> Exposed:
        """The samples at this moment, without ``_created``."""
        return _collect(self._client)


class Instruments:
    """Every metric that is written event by event; the collector adds those that are read at scrape time."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._vocabulary: Mapping[str, tuple[str, ...]] = {
            "scenario": settings.all_scenarios,
            "component": settings.components,
            "provider": tuple(dict.fromkeys(provider for _, provider, _ in settings.models)),
            "model": tuple(dict.fromkeys(model for _, _, model in settings.models)),
            "metric": tuple(catalogue.BY_NAME),
            "http_request_method": (*KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD),
        }
        self.series_dropped = self._family(catalogue.SERIES_DROPPED, Counter)
        self.instrumentation_errors = self._family(catalogue.INSTRUMENTATION_ERRORS, Counter)
        self._queries()
        self._components()
        self._caches_and_breakers(settings)
        self._models(settings)
        self._service(settings)

    def dropped(self, metric_name: str, count: int = 1) -> None:
        """Count label values that were replaced by ``_other``."""
        self.series_dropped.child(metric_name).inc(count)

    def _queries(self) -> None:
        self.started = self._family(catalogue.QUERIES_STARTED, Counter)
        self.queries = self._family(catalogue.QUERIES, Counter)
        self.duration = self._family(catalogue.QUERY_DURATION, Histogram)
        self.first_token = self._family(catalogue.QUERY_TIME_TO_FIRST_TOKEN, Histogram)
        self.answers = self._family(catalogue.ANSWERS, Counter)
        self.in_progress = self._family(catalogue.QUERIES_IN_PROGRESS, Gauge)
        self.cache_results = self._family(catalogue.QUERY_CACHE_RESULTS_TOTAL, Counter)

    def _components(self) -> None:
        self.component_in_progress = self._family(catalogue.COMPONENT_IN_PROGRESS, Gauge)
        self.component_calls = self._family(catalogue.COMPONENT_CALLS, Counter)
        self.component_duration = self._family(catalogue.COMPONENT_DURATION, Histogram)
        self.queue_wait = self._family(catalogue.QUEUE_WAIT, Histogram)
        self.queue_depth = self._family(catalogue.QUEUE_DEPTH, Gauge)
        self.retries = self._family(catalogue.RETRIES, Counter)

    def _caches_and_breakers(self, settings: ExporterSettings) -> None:
        self.cache_requests = self._family(catalogue.CACHE_REQUESTS, Counter)
        self.cache_entries = self._family(catalogue.CACHE_ENTRIES, Gauge)
        self.cache_evictions = self._family(catalogue.CACHE_EVICTIONS, Counter)
        self.breaker_state = self._family(catalogue.BREAKER_STATE, Gauge)
        self.breaker_transitions = self._family(catalogue.BREAKER_TRANSITIONS, Counter)
        self.breaker_rejections = self._family(catalogue.BREAKER_REJECTIONS, Counter)
        self.fallbacks = self._family(
            catalogue.FALLBACKS,
            Counter,
            (
                (scenario, source, target, reason)
                for scenario in settings.all_scenarios
                for source, target in _USUAL_FALLBACKS
                for reason in catalogue.FALLBACK_REASONS
            ),
        )

    def _models(self, settings: ExporterSettings) -> None:
        self.tokens = self._family(
            catalogue.LLM_TOKENS,
            Counter,
            ((*model, token_type) for model in settings.models for token_type in catalogue.TOKEN_TYPES),
        )
        priced = (model for model in settings.models if model[2] in settings.prices)
        self.cost = self._family(catalogue.LLM_COST, Counter, priced)

    def _service(self, settings: ExporterSettings) -> None:
        self.network = self._family(catalogue.NETWORK, Counter)
        self.event_loop_lag = self._family(catalogue.EVENT_LOOP_LAG, Histogram)
        self.http_active = self._family(
            catalogue.HTTP_SERVER_ACTIVE_REQUESTS, Gauge, ((method,) for method in KNOWN_HTTP_METHODS)
        )
        http = catalogue.HTTP_SERVER_REQUEST_DURATION
        self.http_duration = HttpFamily(
            _client(http, Histogram),
            (OTHER_HTTP_METHOD, OTHER, OTHER),
            settings.maximum_http_series,
            lambda: self.dropped(http.name),
        )

    def _family(
        self,
        metric: catalogue.Metric,
        kind: type[Child],
        combinations: Iterable[tuple[str, ...]] | None = None,
    ) -> Family[Child]:
        lists = [
            self._vocabulary[label] if values is None else values for label, values in metric.labels.items()
        ]
        family = Family(
            metric, _client(metric, kind), tuple(frozenset(values) for values in lists), self.dropped
        )
        if metric.labels:
            family.preset(itertools.product(*lists) if combinations is None else combinations)
        return family


def _collect(client: MetricWrapperBase) -> Exposed:
    (exposed,) = client.collect()
    exposed.samples = [sample for sample in exposed.samples if not sample.name.endswith("_created")]
    return exposed


def _client(metric: catalogue.Metric, kind: type[Child]) -> Child:
    keywords: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
    return kind(metric.name, metric.help, tuple(metric.labels), registry=None, **keywords)
