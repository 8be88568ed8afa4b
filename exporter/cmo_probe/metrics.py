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
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
            if succeeded:
                self._last_success.labels(canary).set(now)

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


def _made(metric: catalogue.Metric, kind: type[_Kind]) -> _Kind:
    keywords: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
    return kind(metric.name, metric.help, tuple(metric.labels), registry=None, **keywords)
