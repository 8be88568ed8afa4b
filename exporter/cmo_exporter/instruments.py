"""The catalogue turned into things that can be counted with, each bound once to its numbers.

Looking labels up on each call costs more than counting, so a family keeps its children in a dictionary of
label values. The dictionary is filled beforehand, which also puts every label set at 0 before anything has
happened: a counter that is born with its first event loses that event to Prometheus. Values from outside
the closed lists become ``_other`` and are counted, so that no input can make series.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.catalogue import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cmo_exporter.settings import ExporterSettings
    from cmo_exporter.values import Numbers, Values

_log = logging.getLogger("cmo_exporter")

KNOWN_HTTP_METHODS: Final = (
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
)  # fmt: skip
OTHER_HTTP_METHOD: Final = "_OTHER"
"""OpenTelemetry's word for a method that is not in the list."""

EXEMPLARS: Final = "#exemplars"
"""Added to a histogram's name for the block that holds its exemplars."""
EXEMPLAR_WIDTH: Final = 8
"""Floats an exemplar takes: value, Unix time, and the ids of trace and span in parts of 32 bits."""

_MOST_UNUSUAL_SERIES: Final = 50
_LONGEST_LABEL: Final = 500

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


def _plain(value: object) -> str | None:
    """The value as a plain string when it can be a label of some series, else None; never raises."""
    if not issubclass(type(value), str):
        return None
    plain = str.__str__(value)
    # A lone surrogate would make every scrape fail.
    return plain if len(plain) <= _LONGEST_LABEL and plain.isprintable() else None


class Number:
    """A counter or a gauge: one number of the block."""

    __slots__ = ("_values", "slot")

    width: Final = 1

    def __init__(self, values: Values, metric: catalogue.Metric, labels: tuple[str, ...]) -> None:
        self._values = values
        self.slot = values.allocate(metric.name, labels, 1)

    def inc(self, amount: float = 1.0) -> None:
        """Add an amount."""
        values = self._values
        with values.lock:
            values.numbers[self.slot] += amount

    def dec(self, amount: float = 1.0) -> None:
        """Take an amount away."""
        self.inc(-amount)

    def set(self, value: float) -> None:
        """Put it to a value; a counter only where somebody else counts, as the kernel does CPU time."""
        values = self._values
        with values.lock:
            values.numbers[self.slot] = float(value)  # an integer would be shown as one


class Buckets:
    """A histogram: as many numbers as it has buckets, the one above all edges included, and the sum."""

    __slots__ = ("_exemplars", "_labels", "_metric", "_values", "edges", "slot")

    def __init__(self, values: Values, metric: catalogue.Metric, labels: tuple[str, ...]) -> None:
        self._values = values
        self._metric = metric
        self._labels = labels
        self.edges = metric.buckets
        self.slot = values.allocate(metric.name, labels, len(metric.buckets) + 2)
        self._exemplars: int | None = None

    def observe(self, value: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Count a value, in seconds.

        Args:
            value: what was measured.
            exemplar: ``trace_id`` and ``span_id``, in hexadecimal, of a trace that shows it.
        """
        bucket = bisect_left(self.edges, value)
        values = self._values
        with values.lock:
            numbers = values.numbers
            numbers[self.slot + bucket] += 1.0
            numbers[self.slot + len(self.edges) + 1] += value
        if exemplar is not None:
            self.remember(value, exemplar)

    def add(self, numbers: Numbers, values: Sequence[float]) -> None:
        """Count many values, in seconds; hold the lock of the ``numbers``."""
        slot, edges = self.slot, self.edges
        ordered, counted = sorted(values), 0
        # Goes through the edges, not the values, of which there are more, and no further than to the largest.
        for bucket, edge in enumerate(edges):
            within = bisect_right(ordered, edge, counted)
            if within > counted:
                numbers[slot + bucket] += within - counted
                counted = within
            if counted == len(ordered):
                break
        else:
            numbers[slot + len(edges)] += len(ordered) - counted
        numbers[slot + len(edges) + 1] += sum(values)

    def remember(self, value: float, exemplar: Mapping[str, str]) -> None:
        """Keep an exemplar as the latest of its bucket."""
        ids = f"{exemplar['trace_id']:0>32}{exemplar['span_id']:0>16}"
        parts = (int(ids[start : start + 8], 16) for start in range(0, len(ids), 8))
        data = (value, time.time(), *map(float, parts))
        bucket = bisect_left(self.edges, value)
        values = self._values
        with values.change():
            if self._exemplars is None:
                width = EXEMPLAR_WIDTH * (len(self.edges) + 1)
                self._exemplars = values.allocate(self._metric.name + EXEMPLARS, self._labels, width)
            start = self._exemplars + bucket * EXEMPLAR_WIDTH
            for offset, number in enumerate(data):
                values.numbers[start + offset] = number


def read_exemplar(numbers: Sequence[float]) -> tuple[dict[str, str], float, float] | None:
    """Ids, value and Unix time of an exemplar; None where none has been kept."""
    value, at, *parts = numbers
    ids = "".join(f"{int(part):08x}" for part in parts)
    return ({"trace_id": ids[:32], "span_id": ids[32:]}, value, at) if at else None


Child = TypeVar("Child", Number, Buckets)


class Family(Generic[Child]):
    """One metric of the catalogue and its children, by label values in the catalogue's order.

    Args:
        metric: the metric.
        make: makes a child of label values.
        allowed: the closed list of each label; None for one whose values are known only once they are met.
        maximum: children beyond so many are ``overflow``, so that no input can make series without end.
        overflow: the labels that stand for all beyond the maximum.
        dropped: told the metric's name and how many label values were replaced.
    """

    def __init__(
        self,
        metric: catalogue.Metric,
        make: Callable[[tuple[str, ...]], Child],
        allowed: tuple[frozenset[str] | None, ...],
        maximum: int,
        overflow: tuple[str, ...],
        dropped: Callable[[str, int], None],
    ) -> None:
        self.metric = metric
        self._make: Callable[[tuple[str, ...]], Child] = make
        self._allowed = allowed
        self._maximum = maximum
        self._overflow = overflow
        self._dropped = dropped
        self._children: dict[tuple[object, ...], Child] = {}

    def preset(self, combinations: Iterable[tuple[str, ...]]) -> None:
        """Put label sets at 0 before anything has happened; they are not counted against the maximum."""
        for values in combinations:
            self._children[values] = self._make(values)
            self._maximum += 1

    def child(self, *values: object) -> Child:
        """The child of these label values; whatever is not in a closed list becomes ``_other``."""
        try:
            return self._children[values]
        except Exception:  # noqa: BLE001 - a value may be unhashable, or raise when it is compared
            return self._unusual_child(values)

    def has(self, *values: str) -> bool:
        """Whether these label values have a child of their own, and are not part of the overflow."""
        return values in self._children

    def _unusual_child(self, values: tuple[object, ...]) -> Child:
        safe: list[str] = []
        replaced = 0
        for value, allowed in zip(values, self._allowed, strict=True):
            plain = _plain(value) if allowed is None else closed(value, allowed) or closed(value, (OTHER,))
            safe.append(OTHER if plain is None else plain)
            replaced += plain is None
        key = tuple(safe)
        if key not in self._children and len(self._children) >= self._maximum:
            replaced, key = 1, self._overflow
        if replaced:
            self._dropped(self.metric.name, replaced)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = self._make(key)
        return found


class Instruments:
    """Every metric that is written; the exposition adds those that are made when they are read."""

    def __init__(self, settings: ExporterSettings, values: Values) -> None:
        self.values = values
        self._said: set[str] = set()
        self._vocabulary: Mapping[str, tuple[str, ...]] = {
            "scenario": settings.all_scenarios,
            "component": settings.components,
            "provider": tuple(dict.fromkeys(provider for _, provider, _ in settings.models)),
            "model": tuple(dict.fromkeys(model for _, _, model in settings.models)),
            "metric": tuple(name for name in catalogue.BY_NAME if name not in catalogue.PROBE_METRICS),
            "http_request_method": (*KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD),
            "version": (settings.version,),
            "revision": (settings.revision,),
        }
        self.instrumentation_errors = self._numbers(catalogue.INSTRUMENTATION_ERRORS)
        self.series_dropped = self._numbers(catalogue.SERIES_DROPPED)
        self._queries()
        self._components(settings)
        self._caches_and_breakers(settings)
        self._models(settings)
        self._service(settings)
        self._process()

    def dropped(self, metric_name: str, count: int = 1) -> None:
        """Count label values that were replaced by ``_other``; say the first of each metric in the log."""
        self.series_dropped.child(metric_name).inc(count)
        if metric_name not in self._said:
            self._said.add(metric_name)
            with contextlib.suppress(Exception):  # the log's filters and handlers are the service's
                _log.warning(
                    "Something in %s was none of what it can be, or beyond a maximum, and counts as _other "
                    "or not at all%s. Further cases are only counted, in cmo_series_dropped_total.",
                    metric_name,
                    self._choices(metric_name),
                )

    def _choices(self, metric_name: str) -> str:
        metric = catalogue.BY_NAME[metric_name]
        lists = {label: values or self._vocabulary.get(label) for label, values in metric.labels.items()}
        told = [f"{label} is one of: {', '.join(values)}" for label, values in lists.items() if values]
        return f" ({'; '.join(told)})" if told else ""

    def _queries(self) -> None:
        self.started = self._numbers(catalogue.QUERIES_STARTED)
        self.queries = self._numbers(catalogue.QUERIES)
        self.duration = self._buckets(catalogue.QUERY_DURATION)
        self.first_token = self._buckets(catalogue.QUERY_TIME_TO_FIRST_TOKEN)
        self.streams_abandoned = self._numbers(catalogue.STREAMS_ABANDONED)
        self.feedback = self._numbers(catalogue.FEEDBACK)
        self.answers = self._numbers(catalogue.ANSWERS)
        self.in_progress = self._numbers(catalogue.QUERIES_IN_PROGRESS)
        self.oldest_query = self._numbers(catalogue.OLDEST_QUERY_AGE)
        self.cache_results = self._numbers(catalogue.QUERY_CACHE_RESULTS_TOTAL)

    def _components(self, settings: ExporterSettings) -> None:
        self.component_in_progress = self._numbers(catalogue.COMPONENT_IN_PROGRESS)
        self.component_calls = self._numbers(catalogue.COMPONENT_CALLS)
        # How long calls took whose user left is seldom asked; the histograms would be a sixth of all series.
        usual = itertools.product(settings.all_scenarios, settings.components, ("success", "failure"))
        self.component_duration = self._buckets(catalogue.COMPONENT_DURATION, usual)
        self.queue_wait = self._buckets(catalogue.QUEUE_WAIT)
        self.queue_depth = self._numbers(catalogue.QUEUE_DEPTH)
        self.retries = self._numbers(catalogue.RETRIES)

    def _caches_and_breakers(self, settings: ExporterSettings) -> None:
        self.cache_requests = self._numbers(catalogue.CACHE_REQUESTS)
        self.cache_entries = self._numbers(catalogue.CACHE_ENTRIES)
        self.cache_evictions = self._numbers(catalogue.CACHE_EVICTIONS)
        self.cache_expirations = self._numbers(catalogue.CACHE_EXPIRATIONS)
        self.breaker_state = self._numbers(catalogue.BREAKER_STATE)
        self.breaker_transitions = self._numbers(catalogue.BREAKER_TRANSITIONS)
        self.breaker_rejections = self._numbers(catalogue.BREAKER_REJECTIONS)
        usual = (
            (scenario, source, target, reason)
            for scenario in settings.all_scenarios
            for source, target in _USUAL_FALLBACKS
            for reason in catalogue.FALLBACK_REASONS
        )
        self.fallbacks = self._numbers(catalogue.FALLBACKS, usual)

    def _models(self, settings: ExporterSettings) -> None:
        tokens = ((*model, token_type) for model in settings.models for token_type in catalogue.TOKEN_TYPES)
        self.tokens = self._numbers(catalogue.LLM_TOKENS, tokens)
        priced = (model for model in settings.models if model[2] in settings.prices)
        self.cost = self._numbers(catalogue.LLM_COST, priced)
        self.llm_first_token = self._buckets(catalogue.LLM_TIME_TO_FIRST_TOKEN, settings.models)

    def _service(self, settings: ExporterSettings) -> None:
        self.memory = self._numbers(catalogue.MEMORY, ())
        self.memory_peak = self._numbers(catalogue.MEMORY_PEAK, ())
        self.worker_start_time = self._numbers(catalogue.WORKER_START_TIME, ())
        self.worker_restarts = self._numbers(catalogue.WORKER_RESTARTS, ())
        self.query_log_lines = self._numbers(catalogue.QUERY_LOG_LINES)
        self.network = self._numbers(catalogue.NETWORK)
        self.metrics_requests = self._numbers(catalogue.METRICS_REQUESTS)
        self.event_loop_lag = self._buckets(catalogue.EVENT_LOOP_LAG)
        self.build_info = self._numbers(catalogue.BUILD_INFO)
        self.http_active = self._numbers(
            catalogue.HTTP_SERVER_ACTIVE_REQUESTS, ((method,) for method in KNOWN_HTTP_METHODS)
        )
        self.http_duration = self._buckets(
            catalogue.HTTP_SERVER_REQUEST_DURATION,
            (),
            maximum=settings.maximum_http_series,
            overflow=(OTHER_HTTP_METHOD, OTHER, OTHER, OTHER),
        )
        self.http_first_byte = self._buckets(
            catalogue.HTTP_SERVER_TIME_TO_FIRST_BYTE, (), maximum=settings.maximum_http_series
        )

    def _process(self) -> None:
        self.memory_high_water = self._numbers(catalogue.MEMORY_HIGH_WATER, ())
        self.cpu_seconds = self._numbers(catalogue.CPU_SECONDS, ())
        self.open_files = self._numbers(catalogue.OPEN_FILES, ())
        self.max_files = self._numbers(catalogue.MAX_FILES, ())
        self.threads = self._numbers(catalogue.THREADS, ())
        self.gc_pause = self._buckets(catalogue.GC_PAUSE)
        self.event_loop_blocked = self._numbers(catalogue.EVENT_LOOP_BLOCKED, ())
        self.asyncio_tasks = self._numbers(catalogue.ASYNCIO_TASKS, ())

    def _numbers(
        self, metric: catalogue.Metric, combinations: Iterable[tuple[str, ...]] | None = None
    ) -> Family[Number]:
        return self._family(
            metric,
            lambda labels: Number(self.values, metric, labels),
            combinations,
            _MOST_UNUSUAL_SERIES,
            None,
        )

    def _buckets(
        self,
        metric: catalogue.Metric,
        combinations: Iterable[tuple[str, ...]] | None = None,
        *,
        maximum: int = _MOST_UNUSUAL_SERIES,
        overflow: tuple[str, ...] | None = None,
    ) -> Family[Buckets]:
        return self._family(
            metric, lambda labels: Buckets(self.values, metric, labels), combinations, maximum, overflow
        )

    def _family(
        self,
        metric: catalogue.Metric,
        make: Callable[[tuple[str, ...]], Child],
        combinations: Iterable[tuple[str, ...]] | None,
        maximum: int,
        overflow: tuple[str, ...] | None,
    ) -> Family[Child]:
        lists = [
            self._vocabulary.get(label) if values is None else values
            for label, values in metric.labels.items()
        ]
        family = Family(
            metric,
            make,
            tuple(None if values is None else frozenset(values) for values in lists),
            maximum,
            overflow or (OTHER,) * len(lists),
            self.dropped,
        )
        if combinations is None:
            combinations = itertools.product(*(values or () for values in lists))
        family.preset(combinations)
        return family
