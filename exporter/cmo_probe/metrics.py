"""The prober's metrics: as the catalogue declares them, for the canaries of its file.

They have a registry of their own: the exporter's would bring a thousand series of a service that is not
here.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cmo_exporter import catalogue
from cmo_exporter.catalogue import PROBE_OUTCOMES, PROBE_STEPS, ProbeResult
from cmo_exporter.exposition import registry_renderer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from cmo_probe.errors import StuckError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric as Exposed

    from cmo_probe.asking import Exchange

_Kind = TypeVar("_Kind", bound=MetricWrapperBase)

_SUCCESS, _FAILURE = PROBE_OUTCOMES
_RESULTS: Final = tuple(ProbeResult)


class ProbeMetrics:
    """What the questions came to. ``registry`` holds them."""

    def __init__(self, canaries: Sequence[str]) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._last_news = time.monotonic()
        self._results = _made(catalogue.PROBE_RESULTS, Counter)
        self._up = _made(catalogue.PROBE_UP, Gauge)
        self._duration = _made(catalogue.PROBE_DURATION, Histogram)
        self._first_byte = _made(catalogue.PROBE_TIME_TO_FIRST_BYTE, Histogram)
        self._first_token = _made(catalogue.PROBE_TIME_TO_FIRST_TOKEN, Histogram)
        self._connection = _made(catalogue.PROBE_CONNECTION, Histogram)
        self._last_success = _made(catalogue.PROBE_LAST_SUCCESS, Gauge)
        self._last_asked = _made(catalogue.PROBE_LAST_ASKED, Gauge)
        self._families: tuple[MetricWrapperBase, ...] = (
            self._results, self._up, self._duration, self._first_byte, self._first_token, self._connection,
            self._last_success, self._last_asked,
        )  # fmt: skip
        self._preset(canaries)
        self.registry.register(self)

    def record(self, canary: str, result: ProbeResult, exchange: Exchange) -> None:
        """Count one question; a scrape sees all of it or nothing."""
        succeeded = result is ProbeResult.SUCCESS
        now = time.time()
        with self._lock:
            self._results.labels(canary, result).inc()
            self._duration.labels(canary, _SUCCESS if succeeded else _FAILURE).observe(exchange.seconds)
            if exchange.first_byte_seconds is not None:
                self._first_byte.labels(canary).observe(exchange.first_byte_seconds)
            if exchange.first_token_seconds is not None:
                self._first_token.labels(canary).observe(exchange.first_token_seconds)
            for step, seconds in exchange.connection_seconds.items():
                self._connection.labels(step).observe(seconds)
            self._up.labels(canary).set(succeeded)
            self._last_asked.labels(canary).set(now)
            self._last_news = time.monotonic()
            if succeeded:
                self._last_success.labels(canary).set(now)

    def silent_seconds(self) -> float:
        """How long no question has come to its end, from the start on."""
        return time.monotonic() - self._last_news

    def describe(self) -> list[Exposed]:
        """Nothing: this collector is alone in its registry, so names cannot clash."""
        return []

    def collect(self) -> Iterator[Exposed]:
        """Every metric, at one instant, without the ``_created`` samples of prometheus-client."""
        with self._lock:
            exposed = [family for client in self._families for family in client.collect()]
        for family in exposed:
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        yield from exposed

    def _preset(self, canaries: Sequence[str]) -> None:
        """All but ``cmo_probe_up`` are there at 0: what has not been asked is neither up nor down."""
        for canary, result in itertools.product(canaries, _RESULTS):
            self._results.labels(canary, result)
        for canary, outcome in itertools.product(canaries, PROBE_OUTCOMES):
            self._duration.labels(canary, outcome)
        for step in PROBE_STEPS:
            self._connection.labels(step)
        for canary, family in itertools.product(
            canaries, (self._first_byte, self._first_token, self._last_success, self._last_asked)
        ):
            family.labels(canary)


def renderer(metrics: ProbeMetrics, *, silent_seconds: float) -> Callable[[str], tuple[bytes, str]]:
    """Render them, unless no question has come to its end for so long: then the prober is stuck.

    What it saw last would stand there for ever, and be believed. A scrape that fails takes it out of
    Prometheus instead, and is told.
    """
    render = registry_renderer(metrics.registry)

    def render_unless_stuck(accept: str) -> tuple[bytes, str]:
        silent = metrics.silent_seconds()
        if silent > silent_seconds:
            raise StuckError(
                f"the prober is stuck: no question has come to its end for {silent:.0f} s. Restart it, and "
                "see that what reads its standard error does so."
            )
        return render(accept)

    return render_unless_stuck


def _made(metric: catalogue.Metric, kind: type[_Kind]) -> _Kind:
    keywords: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
    return kind(metric.name, metric.help, tuple(metric.labels), registry=None, **keywords)
