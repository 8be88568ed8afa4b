"""Every metric this project knows, as data.

Rules, dashboards, the checker and the documentation take metric names, labels and label values from
here, so that a name that is not in this file cannot be used anywhere. The module imports nothing but
the standard library: a reader of metrics must not have to install what a writer of them needs.

Names follow Prometheus: base units, ``_total`` for counters, ``_seconds``, ``_bytes``. Label values are
closed lists; whatever is not in a list is recorded as ``OTHER`` and counted as dropped. The lists that
depend on the service (scenarios, components, models) are settings of the exporter; they have ``None`` here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class OverWorkers(StrEnum):
    """What becomes of a metric where several worker processes make up one service.

    Counters and histograms are always added up, workers that are gone included.
    """

    SUM = "sum"
    LARGEST = "largest"  # of any worker: it is a fact that workers share, or cannot be added
    EACH = "each"  # by itself, under the label `worker`, as long as that worker lives


OTHER: Final = "_other"
"""Stands for any label value that is not in its closed list."""

LIVE: Final = "live"
"""The scenario of everything that no load test has named."""

SCENARIO_HEADER: Final = "X-CMO-Scenario"
SESSION_HEADER: Final = "X-CMO-Session"
SESSION_END_HEADER: Final = "X-CMO-Session-End"

QUERY_OUTCOMES: Final = ("success", "error", "timeout", "rejected", "cancelled")
DURATION_OUTCOMES: Final = ("success", "failure", "cancelled")
SOURCES: Final = ("cache", "lightrag", "perplexity", "stale", "default")
CACHE_TIERS: Final = ("l1", "l2", "l3", "lightrag")
"""The tiers of the service, and the cache of answers that LightRAG keeps itself."""
CACHE_RESULTS: Final = ("hit", "miss", "error")
QUERY_CACHE_RESULTS: Final = ("hit", "miss", "bypass")
BREAKER_STATES: Final = (
    "closed",
    "open",
    "half_open",
    "degraded",
    "rate_limited",
    "budget_limited",
    "maintenance",
)
FALLBACK_REASONS: Final = (
    "api_timeout",
    "api_error",
    "rate_limit",
    "circuit_breaker_open",
    "budget_exceeded",
    "low_confidence",
    "performance_degradation",
    "service_unavailable",
    "unknown_error",
)
FALLBACK_SOURCES: Final = ("cache", "lightrag", "perplexity")
FALLBACK_TARGETS: Final = ("lightrag", "perplexity", "stale", "default")
FEEDBACK_RATINGS: Final = ("up", "down")
TOKEN_TYPES: Final = ("input", "output")
INCOMPLETE: Final = "incomplete"
"""The ``error_type`` of an HTTP answer that failed after it had begun, whatever its status says."""
MEMORY_KINDS: Final = ("rss", "pss")
QUERY_LOG_RESULTS: Final = ("written", "dropped")
NETWORK_DIRECTIONS: Final = ("receive", "transmit")
CPU_MODES: Final = ("user", "system")
GC_GENERATIONS: Final = ("0", "1", "2")
LOOPS: Final = ("0", "1", "2", "3")
METRICS_REQUEST_RESULTS: Final = (
    "ok",
    "bad_request",
    "unauthorized",
    "not_found",
    "wrong_method",
    "failed",
    "cut_off",
    "refused",
)

PROBE_SCENARIO: Final = "probe"
"""The scenario that the prober asks a service to count its questions under."""

PROBE_OUTCOMES: Final = ("success", "failure")
PROBE_STEPS: Final = ("dns", "connect", "tls")


class ProbeResult(StrEnum):
    """What one question of the prober came to, as a user would see it."""

    SUCCESS = "success"
    WRONG_ANSWER = "wrong_answer"
    WRONG_SOURCE = "wrong_source"
    APOLOGY = "apology"
    DEGRADED = "degraded"
    TOO_SLOW = "too_slow"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    INVALID = "invalid"
    HTTP_ERROR = "http_error"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TLS_ERROR = "tls_error"


# Every histogram has an edge at exactly 2.0, where CMO-LIGHTRAG-015 judges; the edges around it bound
# the estimated P95. Floats, because an integer bound is exposed as le="2" instead of le="2.0".
DURATION_BUCKETS_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 4.0, 6.0,
    10.0, 30.0, 60.0,
)  # fmt: skip
# Components come in scenarios times outcomes times components, HTTP requests in methods times routes times
# statuses: few edges keep the series few.
COMPONENT_BUCKETS_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 4.0, 10.0, 30.0)
# Most collections take less than a millisecond; those that anybody notices take a tenth of a second.
GC_PAUSE_BUCKETS_SECONDS: Final = (0.001, 0.01, 0.1, 0.5, 2.0)


@dataclass(frozen=True)
class Metric:
    """One metric family.

    ``labels`` maps each label name, in the order of exposition, to its closed list of values, or to
    ``None`` where the list is a setting of the exporter. ``unit`` is the base unit, empty for counts.
    ``over_workers`` says how the values of several workers become one.
    """

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    over_workers: OverWorkers = OverWorkers.SUM

    def __post_init__(self) -> None:
        """Refuse a declaration that breaks the naming rules.

        Raises:
            ValueError: the name contradicts the kind or the unit, or a histogram lacks the edge at 2.0.
        """
        if (self.kind is Kind.COUNTER) != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and only counters, end in _total")
        if self.unit and not self.name.removesuffix("_total").endswith(f"_{self.unit}"):
            raise ValueError(f"{self.name}: the name must end in its unit, {self.unit}")
        if (self.kind is Kind.HISTOGRAM) != bool(self.buckets):
            raise ValueError(f"{self.name}: histograms, and only histograms, have buckets")
        if self.buckets and 2.0 not in self.buckets:
            raise ValueError(f"{self.name}: a bucket edge at exactly 2.0 is needed")
        if "worker" in self.labels:
            object.__setattr__(self, "over_workers", OverWorkers.EACH)
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    @property
    def series_names(self) -> tuple[str, ...]:
        """The names under which samples of this metric can be queried."""
        if self.kind is Kind.HISTOGRAM:
            return (f"{self.name}_bucket", f"{self.name}_count", f"{self.name}_sum")
        return (self.name,)


def _counter(name: str, text: str, unit: str = "", **labels: tuple[str, ...] | None) -> Metric:
    return Metric(name, Kind.COUNTER, text, unit, labels)


def _gauge(
    name: str,
    text: str,
    unit: str = "",
    /,
    over_workers: OverWorkers = OverWorkers.SUM,
    **labels: tuple[str, ...] | None,
) -> Metric:
    return Metric(name, Kind.GAUGE, text, unit, labels, over_workers=over_workers)


def _histogram(
    name: str,
    text: str,
    buckets: tuple[float, ...] = DURATION_BUCKETS_SECONDS,
    /,
    **labels: tuple[str, ...] | None,
) -> Metric:
    return Metric(name, Kind.HISTOGRAM, text, "seconds", labels, buckets)


QUERIES_STARTED = _counter(
    "cmo_queries_started_total", "User questions that have begun, however they arrive.", scenario=None
)
QUERIES = _counter(
    "cmo_queries_total",
    "User questions that have finished. Success is a real answer; an apology or a stale answer is an error.",
    scenario=None,
    outcome=QUERY_OUTCOMES,
)
QUERY_DURATION = _histogram(
    "cmo_query_duration_seconds",
    "Time from a question's arrival to the last byte of its answer.",
    scenario=None,
    outcome=DURATION_OUTCOMES,
)
QUERY_TIME_TO_FIRST_TOKEN = _histogram(
    "cmo_query_time_to_first_token_seconds",
    "Time from a question's arrival to the first piece of its answer, where the answer is streamed.",
    scenario=None,
)
STREAMS_ABANDONED = _counter(
    "cmo_streams_abandoned_total",
    "Questions whose user left after the first piece of a streamed answer and before its end.",
    scenario=None,
)
FEEDBACK = _counter(
    "cmo_feedback_total", "Ratings that users gave to answers.", scenario=None, rating=FEEDBACK_RATINGS
)
ANSWERS = _counter("cmo_answers_total", "Answers by where they came from.", scenario=None, source=SOURCES)
QUERIES_IN_PROGRESS = _gauge(
    "cmo_queries_in_progress", "Questions that have begun and not finished.", scenario=None
)
OLDEST_QUERY_AGE = _gauge(
    "cmo_oldest_query_age_seconds",
    "Age of the oldest question in progress, 0 when there is none.",
    "seconds",
    over_workers=OverWorkers.LARGEST,
    scenario=None,
)
ACTIVE_USERS = _gauge(
    "cmo_active_users", "Users with an open session, thinking time included.", scenario=None
)
ACTIVE_USER_SECONDS = _counter(
    "cmo_active_user_seconds_total",
    "Integral of the active users over time: its rise between two scrapes, over the rise of "
    "cmo_active_user_clock_seconds_total, is the exact mean number of users.",
    "seconds",
    scenario=None,
)
ACTIVE_USER_CLOCK = _counter(
    "cmo_active_user_clock_seconds_total",
    "The exporter's monotonic clock, read at the same instant as cmo_active_user_seconds_total.",
    "seconds",
)
COMPONENT_CALLS = _counter(
    "cmo_component_calls_total",
    "Calls of a component that have finished.",
    scenario=None,
    component=None,
    outcome=QUERY_OUTCOMES,
)
COMPONENT_DURATION = _histogram(
    "cmo_component_duration_seconds",
    "Duration of calls of a component. A model's begins when its turn has come; the wait for it is part of "
    "LightRAG's.",
    COMPONENT_BUCKETS_SECONDS,
    scenario=None,
    component=None,
    outcome=DURATION_OUTCOMES,
)
COMPONENT_IN_PROGRESS = _gauge(
    "cmo_component_in_progress", "Calls of a component that have begun and not finished.", component=None
)
QUEUE_WAIT = _histogram(
    "cmo_queue_wait_seconds",
    "Time that calls of a component waited for their turn.",
    COMPONENT_BUCKETS_SECONDS,
    component=None,
)
QUEUE_DEPTH = _gauge("cmo_queue_depth", "Calls of a component that wait for their turn.", component=None)
CACHE_REQUESTS = _counter(
    "cmo_cache_requests_total",
    "Look-ups in one cache tier. A tier that is absent is not looked up.",
    scenario=None,
    tier=CACHE_TIERS,
    result=CACHE_RESULTS,
)
QUERY_CACHE_RESULTS_TOTAL = _counter(
    "cmo_query_cache_results_total",
    "What the caches as a whole did for a question: one count a question.",
    scenario=None,
    result=QUERY_CACHE_RESULTS,
)
CACHE_ENTRIES = _gauge(
    "cmo_cache_entries",
    "Answers held by a cache tier; of a tier that each worker has by itself, in the fullest worker.",
    over_workers=OverWorkers.LARGEST,
    tier=CACHE_TIERS,
)
CACHE_EVICTIONS = _counter(
    "cmo_cache_evictions_total", "Answers dropped by a cache tier for want of room.", tier=CACHE_TIERS
)
CACHE_EXPIRATIONS = _counter(
    "cmo_cache_expirations_total",
    "Answers dropped by a cache tier because their time was up.",
    tier=CACHE_TIERS,
)
BREAKER_STATE = _gauge(
    "cmo_circuit_breaker_state",
    "1 for the state that the component's circuit breaker is in, in any worker, 0 for the others.",
    over_workers=OverWorkers.LARGEST,
    component=None,
    state=BREAKER_STATES,
)
BREAKER_TRANSITIONS = _counter(
    "cmo_circuit_breaker_transitions_total",
    "Times that the component's circuit breaker went into a state.",
    component=None,
    state=BREAKER_STATES,
)
BREAKER_REJECTIONS = _counter(
    "cmo_circuit_breaker_rejections_total",
    "Calls that the component's circuit breaker refused, by the state it was in.",
    component=None,
    state=BREAKER_STATES,
)
FALLBACKS = _counter(
    "cmo_fallbacks_total",
    "Questions handed on from one source of answers to the next.",
    scenario=None,
    source=FALLBACK_SOURCES,
    target=FALLBACK_TARGETS,
    reason=FALLBACK_REASONS,
)
RETRIES = _counter("cmo_retries_total", "Calls of a component that were made again.", component=None)
LLM_TOKENS = _counter(
    "cmo_llm_tokens_total",
    "Tokens that model calls have used, as the provider reports them.",
    component=None,
    provider=None,
    model=None,
    token_type=TOKEN_TYPES,
)
LLM_COST = _counter(
    "cmo_llm_cost_usd_total",
    "Cost of model calls in US dollars, from the price table in the settings.",
    "usd",
    component=None,
    provider=None,
    model=None,
)
LLM_TIME_TO_FIRST_TOKEN = _histogram(
    "cmo_llm_time_to_first_token_seconds",
    "Time from a streamed model call to the first piece of its answer.",
    COMPONENT_BUCKETS_SECONDS,
    component=None,
    provider=None,
    model=None,
)
MEMORY = _gauge("cmo_memory_bytes", "Memory of a worker process.", "bytes", worker=None, kind=MEMORY_KINDS)
MEMORY_PEAK = _gauge(
    "cmo_memory_peak_bytes",
    "Highest resident memory of a worker since the scenario's first session opened; live: since its start.",
    "bytes",
    worker=None,
    scenario=None,
)
MEMORY_HIGH_WATER = _gauge(
    "cmo_memory_high_water_bytes",
    "Highest memory of a worker process since it started: rss as the kernel keeps it; pss the highest of the "
    "readings, some seconds apart.",
    "bytes",
    worker=None,
    kind=MEMORY_KINDS,
)
CPU_SECONDS = _counter(
    "cmo_process_cpu_seconds_total",
    "Processor time of a worker process since it started.",
    "seconds",
    worker=None,
    mode=CPU_MODES,
)
OPEN_FILES = _gauge(
    "cmo_process_open_files", "File descriptors that a worker process holds, sockets included.", worker=None
)
MAX_FILES = _gauge(
    "cmo_process_max_files", "File descriptors that a worker process may hold (its soft limit).", worker=None
)
THREADS = _gauge("cmo_process_threads", "Threads of a worker process.", worker=None)
GC_PAUSE = _histogram(
    "cmo_gc_pause_seconds",
    "Time for which Python's garbage collector stopped a process, by the generation it collected.",
    GC_PAUSE_BUCKETS_SECONDS,
    generation=GC_GENERATIONS,
)
WORKER_START_TIME = _gauge(
    "cmo_worker_start_time_seconds", "When a worker process started, in Unix time.", "seconds", worker=None
)
WORKER_RESTARTS = _counter(
    "cmo_worker_restarts_total",
    "Workers that were in this worker's place before it and are gone.",
    worker=None,
)
NETWORK = _counter(
    "cmo_network_bytes_total",
    "Bytes of request and response bodies that queries have moved.",
    "bytes",
    direction=NETWORK_DIRECTIONS,
)
EVENT_LOOP_LAG = _histogram(
    "cmo_event_loop_lag_seconds",
    "How late the event loop runs a callback that is due, seen from a thread.",
    COMPONENT_BUCKETS_SECONDS,
)
EVENT_LOOP_BLOCKED = _gauge(
    "cmo_event_loop_blocked_seconds",
    "How long a worker's event loop has been blocked, while it is; 0 when it answers.",
    "seconds",
    worker=None,
)
ASYNCIO_TASKS = _gauge(
    "cmo_asyncio_tasks",
    "Tasks of a worker's event loops that have not finished; the first loop that was seen is 0.",
    worker=None,
    loop=LOOPS,
)
BUILD_INFO = _gauge(
    "cmo_build_info",
    "1, with the version and revision of the service.",
    over_workers=OverWorkers.LARGEST,
    version=None,
    revision=None,
)
HTTP_SERVER_REQUEST_DURATION = Metric(
    "http_server_request_duration_seconds",
    Kind.HISTOGRAM,
    "Duration of HTTP server requests, to the last byte.",
    "seconds",
    {
        "http_request_method": None,
        "http_route": None,
        "http_response_status_code": None,
        "error_type": None,
    },
    COMPONENT_BUCKETS_SECONDS,
)
HTTP_SERVER_TIME_TO_FIRST_BYTE = _histogram(
    "http_server_time_to_first_byte_seconds",
    "Time from a request's arrival to the first byte of its answer's body, or to its end when there is none.",
    COMPONENT_BUCKETS_SECONDS,
    http_route=None,
)
HTTP_SERVER_ACTIVE_REQUESTS = _gauge(
    "http_server_active_requests", "HTTP server requests in flight.", http_request_method=None
)
METRICS_REQUESTS = _counter(
    "cmo_metrics_requests_total",
    "Requests to the metrics port by what became of them; cut off: it kept the port waiting; refused: too "
    "many at once.",
    result=METRICS_REQUEST_RESULTS,
)
INSTRUMENTATION_ERRORS = _counter(
    "cmo_instrumentation_errors_total",
    "Errors inside the instrumentation, which the service never sees.",
    metric=None,
)
QUERY_LOG_LINES = _counter(
    "cmo_query_log_lines_total",
    "Lines of the query log. Dropped: too many waited to be written.",
    result=QUERY_LOG_RESULTS,
)
SERIES_DROPPED = _counter(
    "cmo_series_dropped_total", "Label values outside their closed list, recorded as _other.", metric=None
)
PROBE_RESULTS = _counter(
    "cmo_probe_results_total",
    "Canary questions that `cmo probe` has asked from outside, by what a user would have seen.",
    canary=None,
    result=tuple(str(result) for result in ProbeResult),
)
PROBE_UP = _gauge(
    "cmo_probe_up",
    "1 if the last question of this canary got a good answer, else 0; absent before the first.",
    canary=None,
)
PROBE_DURATION = _histogram(
    "cmo_probe_duration_seconds",
    "Time from opening a connection to the end of the answer, or to the failure.",
    canary=None,
    outcome=PROBE_OUTCOMES,
)
PROBE_TIME_TO_FIRST_BYTE = _histogram(
    "cmo_probe_time_to_first_byte_seconds",
    "Time from opening a connection until the head of the response was there.",
    canary=None,
)
PROBE_TIME_TO_FIRST_TOKEN = _histogram(
    "cmo_probe_time_to_first_token_seconds",
    "Time from opening a connection to the first piece of the answer, where the answer is streamed.",
    canary=None,
)
PROBE_CONNECTION = _histogram(
    "cmo_probe_connection_seconds",
    "Time that a step of opening a connection took, where it succeeded.",
    COMPONENT_BUCKETS_SECONDS,
    step=PROBE_STEPS,
)
PROBE_LAST_SUCCESS = _gauge(
    "cmo_probe_last_success_timestamp_seconds",
    "When this canary last got a good answer, in Unix time; 0 before the first.",
    "seconds",
    canary=None,
)
PROBE_LAST_ASKED = _gauge(
    "cmo_probe_last_asked_timestamp_seconds",
    "When a question of this canary last came to its end, in Unix time; 0 before the first.",
    "seconds",
    canary=None,
)

CATALOGUE: Final[tuple[Metric, ...]] = tuple(
    value for value in globals().values() if isinstance(value, Metric)
)
"""All metrics, in the order of this file."""

BY_NAME: Final[Mapping[str, Metric]] = MappingProxyType({metric.name: metric for metric in CATALOGUE})
"""The metrics by name."""

PROBE_METRICS: Final = frozenset(metric.name for metric in CATALOGUE if metric.name.startswith("cmo_probe_"))
"""The metrics that the prober serves; all others are served by the exporter inside the service."""
