"""The variants that are compared. Each is built in a process of its own: several leave traces in globals."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cmo_exporter import Exporter
    from fastapi import FastAPI
    from prometheus_client.metrics_core import Metric

BARE: Final = "bare"
OURS: Final = "cmo"
OURS_HTTP: Final = "cmo-http"
OURS_SHARED: Final = "cmo-shared"
OURS_TRACES: Final = "cmo-traces"
INSTRUMENTATOR: Final = "instrumentator"
INSTRUMENTATOR_SHARED: Final = "instrumentator-shared"
STARLETTE_EXPORTER: Final = "starlette-exporter"
OTEL_METRICS: Final = "otel-metrics"
OTEL: Final = "otel"

TITLES: Final = {
    BARE: "bare FastAPI",
    OURS: "**cmo_exporter**, HTTP and query metrics",
    OURS_HTTP: "cmo_exporter, HTTP metrics alone",
    OURS_SHARED: "**cmo_exporter**, HTTP and query metrics, several workers' shared storage",
    OURS_TRACES: "**cmo_exporter**, HTTP and query metrics, traces and exemplars at 100 %",
    INSTRUMENTATOR: "prometheus-fastapi-instrumentator",
    INSTRUMENTATOR_SHARED: "prometheus-fastapi-instrumentator, prometheus-client's multiprocess mode",
    STARLETTE_EXPORTER: "starlette_exporter",
    OTEL_METRICS: "OpenTelemetry's FastAPI instrumentation, metrics alone",
    OTEL: "OpenTelemetry's FastAPI instrumentation, defaults: metrics, traces, all spans",
}

JUDGED: Final = (BARE, OURS, OURS_SHARED, OURS_TRACES, INSTRUMENTATOR, OTEL)
"""Those that the targets speak of."""

_BUILDERS: Final = {
    BARE: ("bare", "bare"),
    OURS: ("cmo", "http_and_queries"),
    OURS_HTTP: ("cmo", "http_alone"),
    OURS_SHARED: ("cmo", "shared"),
    OURS_TRACES: ("cmo", "traces"),
    INSTRUMENTATOR: ("instrumentator", "one_process"),
    INSTRUMENTATOR_SHARED: ("instrumentator", "multiprocess"),
    STARLETTE_EXPORTER: ("starlette", "defaults"),
    OTEL_METRICS: ("otel", "metrics_alone"),
    OTEL: ("otel", "defaults"),
}


@dataclass(frozen=True)
class Surroundings:
    """What a variant may use of the machine.

    Attributes:
        directory: a folder for its files.
        otlp_endpoint: base URL of a collector that throws away what it gets.
        worker: the number of the worker that it is, where several share their storage.
    """

    directory: Path
    otlp_endpoint: str
    worker: str = "0"


@dataclass(frozen=True)
class Built:
    """A variant, ready to serve.

    Attributes:
        app: the application.
        recorded: how many requests its metrics show; None where only the collector can tell.
        close: sends what is left and stops its threads.
        exporter: the exporter, where it is ours.
        flush: sends the spans that are waiting in a batch.
    """

    app: FastAPI
    recorded: Callable[[], float | None]
    close: Callable[[], None]
    exporter: Exporter | None = None
    flush: Callable[[], object] = lambda: None


class _Builder(Protocol):
    def __call__(self, surroundings: Surroundings) -> Built: ...


def build(name: str, surroundings: Surroundings) -> Built:
    """Build the variant of this name in this process, which must not have built another before."""
    module, function = _BUILDERS[name]
    builder: _Builder = getattr(import_module(f"{__package__}.instrumented.{module}"), function)
    return builder(surroundings)


def total(families: Iterable[Metric], name: str) -> float:
    """The sum of all samples of this name."""
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)
