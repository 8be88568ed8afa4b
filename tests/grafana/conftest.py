"""A small exposition of the whole catalogue, whose every number the tests know.

Nothing here moves by the clock: each scrape is one step, so increases are exact however late a scrape is.
"""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from cmo_exporter import catalogue
from cmo_stack import servers
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client.metrics_core import Metric as Family

Labels = dict[str, str]

SCENARIOS: Final = (
    catalogue.LIVE,
    "academic_research",
    "clinical_rush",
    "cache_effectiveness",
    "rag_intensive",
)
PASSING: Final = "academic_research"
FAILING: Final = "clinical_rush"
BARELY: Final = "rag_intensive"
"""Exactly on its targets, which a strict operator leaves outside."""

OUTCOMES: Final = {
    catalogue.LIVE: {"success": 98, "error": 2},
    PASSING: {"success": 97, "error": 1, "timeout": 2, "cancelled": 5},
    FAILING: {"success": 80, "error": 15, "rejected": 5},
    "cache_effectiveness": {"success": 381, "error": 19},
    BARELY: {"success": 95, "error": 5},
}
"""Queries that finish in one step, by scenario and outcome."""
SLOW_SUCCESSES: Final = {FAILING: 30}
"""Successes of a step that took more than 2 s."""
CANCELLED_EARLY: Final = {PASSING: 3}
"""Cancelled queries of a step whose users left within 2 s."""
CALLS: Final = {
    "lightrag": {"success": 90, "error": 10},
    "perplexity": {"success": 9, "timeout": 1},
    "llm": {"success": 120},
}
"""Calls of components that finish in one step, in every scenario."""
SLOW_CALLS: Final = {"lightrag": 30}
"""Successful calls of a step that took more than 2 s."""
ANSWERS: Final = {"cache": 80, "lightrag": 10, "perplexity": 8, "default": 2}
"""Answers of a step, in every scenario."""
BREAKERS: Final = {"lightrag": "open", "perplexity": "closed"}
"""States under load; idle, both are closed."""
LOOK_UPS: Final = {"hit": 80, "miss": 20}
"""Look-ups of a step, in every tier and scenario."""
WAITS: Final = 10
"""Of a step: calls that waited, times that the event loop was late, first bytes of a route."""
HTTP_STATUSES: Final = {"200": 10, "404": 3, "503": 2}
"""HTTP requests of a step."""
OF_HTTP: Final = (catalogue.HTTP_SERVER_REQUEST_DURATION, catalogue.HTTP_SERVER_TIME_TO_FIRST_BYTE)
MAX_FILES: Final = 1_024
CACHE: Final = {"hit": 80, "miss": 20, "bypass": 7}
USERS: Final = {catalogue.LIVE: 3, PASSING: 50, FAILING: 60, "cache_effectiveness": 80, BARELY: 49}
MEGABYTE: Final = 1e6
LOADING_STEPS: Final = 6
"""More than one: Prometheus may give up a scrape of its first second, on a busy machine."""
RSS_LOADING: Final = 120 * MEGABYTE
RSS_LOADED: Final = 300 * MEGABYTE
GROWTH: Final = {PASSING: 45 * MEGABYTE, FAILING: 130 * MEGABYTE}

BREAKER_OPENED, BREAKER_REFUSED = 1, 4
"""Of a step: times that LightRAG's breaker opened, and calls that it refused."""
COLLECTIONS: Final = {"0": 3, "1": 2, "2": 1}
"""Pauses of the garbage collector in a step, by generation."""
PAUSE_SECONDS: Final = 0.6
DROPPED, MISCOUNTED = 3, 2
"""Of a step: label values that are on no list, and errors inside the instrumentation."""
METRICS_REQUESTS: Final = {"ok": 40, "unauthorized": 4, "cut_off": 1}
LOG_LINES: Final = {"written": 90, "dropped": 5}
FEW: Final = 0.1
"""So much of a step is too little for any verdict, of one scenario and of all."""

RATINGS: Final = {"up": 4, "down": 1}
"""Of a step, in every scenario; and so many left in mid-answer as liked one."""
_WAITED_FOR: Final = (
    catalogue.QUEUE_WAIT,
    catalogue.EVENT_LOOP_LAG,
    catalogue.QUERY_TIME_TO_FIRST_TOKEN,
    catalogue.LLM_TIME_TO_FIRST_TOKEN,
    catalogue.PROBE_DURATION,
    catalogue.PROBE_TIME_TO_FIRST_TOKEN,
    catalogue.HTTP_SERVER_TIME_TO_FIRST_BYTE,
)
"""All of it for as long: in the bucket that ends at 2 s."""

_CLOSED_BY_SETTINGS: Final = {
    "scenario": SCENARIOS,
    "component": ("lightrag", "perplexity", "llm"),
    "worker": ("0",),
    "metric": ("cmo_queries_total",),
    "provider": ("stub",),
    "model": ("cmo-stub",),
    "version": ("0",),
    "revision": ("0",),
    "http_request_method": ("POST",),
    "canary": ("popular",),
    "http_route": ("/query",),
    "http_response_status_code": tuple(HTTP_STATUSES),
    "error_type": ("",),
}


@pytest.fixture
def exposition() -> Iterator[Exposition]:
    """A running exposition, idle."""
    with Exposition() as running:
        yield running


@pytest.fixture(params=servers.installed("promtool"), ids=lambda server: server.label.replace(" ", "-"))
def promtool(request: pytest.FixtureRequest) -> servers.Server:
    """Each promtool of this machine in turn."""
    server: servers.Server = request.param
    return server


class Exposed(Collector):
    """The catalogue, scrape by scrape. Idle until ``busy`` is set, then every scrape is one step.

    Under load it is not well either: whatever a service should have none of, there is some. Set while idle,
    ``hardly_busy`` makes one scrape a small part of a step.
    """

    scenarios = SCENARIOS
    passing, failing, barely = PASSING, FAILING, BARELY
    cache, users, growth = CACHE, USERS, GROWTH
    rss_loaded, loading_steps = RSS_LOADED, LOADING_STEPS
    closed_by_settings: ClassVar[Mapping[str, tuple[str, ...]]] = _CLOSED_BY_SETTINGS

    def __init__(self) -> None:
        self.busy = False
        self.hardly_busy = False
        self.scrapes = 0
        self.steps = 0.0

    def describe(self) -> list[Family]:
        """Nothing: the registry would otherwise collect once, which is no scrape."""
        return []

    def collect(self) -> Iterator[Family]:
        """One scrape."""
        if self.busy:
            self._step()
        elif self.hardly_busy:
            self.hardly_busy = False
            self.steps += FEW
        yield from [self._family(metric) for metric in catalogue.CATALOGUE]

    def _step(self) -> None:
        self.steps += 1

    def _family(self, metric: catalogue.Metric) -> Family:
        names = list(metric.labels)
        values = [metric.labels[name] or self.closed_by_settings[name] for name in names]
        sets = [dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)]
        if metric.kind is catalogue.Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=names)
            for labels in sets:
                buckets, seconds = self._buckets(metric, labels), self._seconds(metric, labels)
                histogram.add_metric(list(labels.values()), buckets, sum_value=seconds)
            return histogram
        kind = CounterMetricFamily if metric.kind is catalogue.Kind.COUNTER else GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=names)
        for labels in sets:
            family.add_metric(list(labels.values()), self._value(metric, labels))
        return family

    def _value(self, metric: catalogue.Metric, labels: Labels) -> float:
        scenario = labels.get("scenario", "")
        if metric is catalogue.QUERIES:
            return self.steps * OUTCOMES[scenario].get(labels["outcome"], 0)
        if metric is catalogue.QUERIES_STARTED:
            return self.steps * sum(OUTCOMES[scenario].values())
        if metric is catalogue.QUERY_CACHE_RESULTS_TOTAL:
            return self.steps * CACHE[labels["result"]]
        if metric is catalogue.COMPONENT_CALLS:
            return self.steps * CALLS[labels["component"]].get(labels["outcome"], 0)
        if metric is catalogue.ANSWERS:
            return self.steps * ANSWERS.get(labels["source"], 0)
        if metric is catalogue.ACTIVE_USER_SECONDS:
            return self.steps * USERS[scenario]
        if metric is catalogue.ACTIVE_USER_CLOCK:
            return 1_000 + self.scrapes
        if metric in (catalogue.ACTIVE_USERS, catalogue.QUERIES_IN_PROGRESS):
            return USERS[scenario] if self.steps else 0
        return self._state_value(metric, labels)

    def _state_value(self, metric: catalogue.Metric, labels: Labels) -> float:
        if metric is catalogue.BREAKER_STATE:
            state = BREAKERS.get(labels["component"], "")
            return float(labels["state"] == (state if self.steps else state and "closed"))
        if metric is catalogue.CACHE_REQUESTS:
            return self.steps * LOOK_UPS.get(labels["result"], 0)
        if metric is catalogue.FALLBACKS:
            return float(self.steps)
        if metric is catalogue.FEEDBACK:
            return self.steps * RATINGS[labels["rating"]]
        if metric is catalogue.STREAMS_ABANDONED:
            return self.steps * RATINGS["up"]
        if metric is catalogue.PROBE_UP:
            return float(self.steps > 0)
        if metric in (catalogue.PROBE_LAST_ASKED, catalogue.PROBE_LAST_SUCCESS):
            # The one thing that moves by the clock: what looks at it asks how long ago it was.
            return time.time() if self.steps else 0
        if metric is catalogue.BUILD_INFO:
            return 1
        if metric is catalogue.MAX_FILES:
            return MAX_FILES
        return self._memory_value(metric, labels)

    def _memory_value(self, metric: catalogue.Metric, labels: Labels) -> float:
        resident = RSS_LOADING if self.scrapes <= LOADING_STEPS else RSS_LOADED
        if metric in (catalogue.MEMORY, catalogue.MEMORY_HIGH_WATER):
            return resident
        if metric is catalogue.MEMORY_PEAK:
            return resident + (GROWTH.get(labels["scenario"], 0.0) if self.steps else 0.0)
        return 1_790_000_000 if metric is catalogue.WORKER_START_TIME else self._mishaps(metric, labels)

    def _mishaps(self, metric: catalogue.Metric, labels: Labels) -> float:
        opened = labels.get("component") == "lightrag" and labels.get("state") == "open"
        result = labels.get("result", "")
        of_a_step = {
            catalogue.BREAKER_TRANSITIONS.name: BREAKER_OPENED * opened,
            catalogue.BREAKER_REJECTIONS.name: BREAKER_REFUSED * opened,
            catalogue.SERIES_DROPPED.name: DROPPED,
            catalogue.INSTRUMENTATION_ERRORS.name: MISCOUNTED,
            catalogue.METRICS_REQUESTS.name: METRICS_REQUESTS.get(result, 0),
            catalogue.QUERY_LOG_LINES.name: LOG_LINES.get(result, 0),
        }
        return self.steps * of_a_step.get(metric.name, 0)

    def _buckets(self, metric: catalogue.Metric, labels: Labels) -> list[tuple[str, float]]:
        within, count = 0.0, 0.0
        if metric is catalogue.QUERY_DURATION:
            within, count = self._within_and_count(labels)
        elif metric is catalogue.COMPONENT_DURATION:
            within, count = self._calls_within_and_count(labels)
        elif metric in _WAITED_FOR:
            within = count = self.steps * WAITS
        elif metric is catalogue.HTTP_SERVER_REQUEST_DURATION:
            within = count = self.steps * HTTP_STATUSES[labels["http_response_status_code"]]
        elif metric is catalogue.GC_PAUSE:
            within = count = self.steps * COLLECTIONS[labels["generation"]]
        edges = [(str(edge), within if edge >= 2.0 else 0) for edge in metric.buckets if edge <= 2.0]
        edges += [(str(edge), within) for edge in metric.buckets if edge > 2.0]
        return [*edges, ("+Inf", count)]

    def _seconds(self, metric: catalogue.Metric, labels: Labels) -> float:
        """The sum of a histogram; of most nobody knows it."""
        if metric is catalogue.GC_PAUSE:
            return self.steps * COLLECTIONS[labels["generation"]] * PAUSE_SECONDS
        return 0.0

    def _calls_within_and_count(self, labels: Labels) -> tuple[float, float]:
        finished = CALLS[labels["component"]]
        if labels["outcome"] == "success":
            count, slow = finished["success"], SLOW_CALLS.get(labels["component"], 0)
        else:
            count, slow = sum(finished.get(outcome, 0) for outcome in ("error", "timeout", "rejected")), 0
        if labels["outcome"] == "cancelled":
            count = 0
        return self.steps * (count - slow), self.steps * count

    def _within_and_count(self, labels: Labels) -> tuple[float, float]:
        finished = OUTCOMES[labels["scenario"]]
        if labels["outcome"] == "success":
            count = finished["success"]
            within = count - SLOW_SUCCESSES.get(labels["scenario"], 0)
        elif labels["outcome"] == "cancelled":
            count = finished.get("cancelled", 0)
            within = CANCELLED_EARLY.get(labels["scenario"], 0)
        else:
            count = sum(finished.get(outcome, 0) for outcome in ("error", "timeout", "rejected"))
            within = count
        return self.steps * within, self.steps * count


class _Silent(WSGIRequestHandler):
    """Tells nobody of each scrape."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


class Exposition(Exposed):
    """Serves what is exposed; a context manager.

    What the next scrape is answered with is made after the last: it takes long, and a busy machine would give
    up the scrape. So ``busy`` counts from the second scrape on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._maker = ThreadPoolExecutor(1)
        self._next = self._maker.submit(generate_latest, self._registry)
        self._server = make_server("127.0.0.1", 0, self._answer, handler_class=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Host and port to scrape."""
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._maker.shutdown()

    def _answer(self, _environment: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        made = self._next.result()
        self.scrapes += 1
        self._next = self._maker.submit(generate_latest, self._registry)
        start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
        return [made]
