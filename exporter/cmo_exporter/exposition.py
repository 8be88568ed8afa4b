"""The exposition: one collector over everything, and the thread that serves it as ``/metrics``.

One collector rather than one for each metric, because order matters: the books are read first and at one
instant, so that whatever else is read later may be newer than they are, but never older.

The server is small on purpose. prometheus-client's own compresses at the highest level for a scraper on the
same machine, resolves host names when it starts, and answers on every path.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from cmo_exporter import catalogue
from cmo_exporter.errors import MetricsAddressError
from cmo_exporter.memory import ProportionalMemory, process_start_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Exposed

    from cmo_exporter.instruments import Family, HttpFamily, Instruments
    from cmo_exporter.ledger import Snapshot
    from cmo_exporter.recorder import Recorder
    from cmo_exporter.settings import ExporterSettings

_METRICS_PATH: Final = "/metrics"
_REQUEST_TIMEOUT_SECONDS: Final = 10.0
_SHUTDOWN_POLL_SECONDS: Final = 0.1


class Exposition:
    """A prometheus-client collector of everything that one exporter measures."""

    def __init__(self, settings: ExporterSettings, recorder: Recorder) -> None:
        self._settings = settings
        self._recorder = recorder
        self._proportional = ProportionalMemory()
        self._start_time = process_start_time()

    def describe(self) -> list[Exposed]:
        """Nothing: the registry holds this collector alone, so names cannot clash."""
        return []

    def collect(self) -> Iterator[Exposed]:
        """Every metric: first the books at one instant, then what may move meanwhile."""
        snapshot = self._recorder.ledger.snapshot()
        yield from snapshot.families
        yield from self._users(snapshot)
        yield from self._memory(snapshot)
        yield from self._process()
        for family in _read_after_the_books(self._recorder.instruments):
            yield family.collect()

    def _users(self, snapshot: Snapshot) -> Iterator[Exposed]:
        users = snapshot.users.items()
        ages = snapshot.oldest_ages.items()
        yield _exposed(catalogue.OLDEST_QUERY_AGE, (((scenario,), age) for scenario, age in ages))
        yield _exposed(catalogue.ACTIVE_USERS, (((scenario,), active) for scenario, (active, _) in users))
        yield _exposed(
            catalogue.ACTIVE_USER_SECONDS, (((scenario,), seconds) for scenario, (_, seconds) in users)
        )
        yield _exposed(catalogue.ACTIVE_USER_CLOCK, [((), snapshot.clock_seconds)])

    def _memory(self, snapshot: Snapshot) -> Iterator[Exposed]:
        worker = self._settings.worker
        kinds = {"rss": snapshot.resident, "pss": self._proportional.read(time.monotonic())}
        yield _exposed(
            catalogue.MEMORY,
            (((worker, kind), value) for kind, value in kinds.items() if value is not None),
        )
        peaks = snapshot.peaks.items() if snapshot.resident is not None else ()
        yield _exposed(catalogue.MEMORY_PEAK, (((worker, scenario), peak) for scenario, peak in peaks))

    def _process(self) -> Iterator[Exposed]:
        settings = self._settings
        yield _exposed(catalogue.WORKER_START_TIME, [((settings.worker,), self._start_time)])
        yield _exposed(catalogue.BUILD_INFO, [((settings.version, settings.revision), 1.0)])


def _read_after_the_books(instruments: Instruments) -> Iterator[Family[Any] | HttpFamily[Any]]:
    # Gauges of what is in progress come before the counters that move when it ends, so that nothing can
    # be neither in progress nor counted.
    yield instruments.component_in_progress
    yield instruments.component_calls
    yield instruments.component_duration
    yield instruments.queue_wait
    yield instruments.queue_depth
    yield instruments.retries
    yield instruments.cache_requests
    yield instruments.cache_entries
    yield instruments.cache_evictions
    yield instruments.breaker_state
    yield instruments.breaker_transitions
    yield instruments.breaker_rejections
    yield instruments.fallbacks
    yield instruments.tokens
    yield instruments.cost
    yield instruments.network
    yield instruments.event_loop_lag
    yield instruments.http_active
    yield instruments.http_duration
    yield instruments.instrumentation_errors
    yield instruments.series_dropped


def _exposed(metric: catalogue.Metric, values: Iterable[tuple[tuple[str, ...], float]]) -> Exposed:
    kind = CounterMetricFamily if metric.kind is catalogue.Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=tuple(metric.labels))
    for labels, value in values:
        family.add_metric(labels, value)
    return family


class _Handler(BaseHTTPRequestHandler):
    """Answers ``GET /metrics`` and nothing else, and writes no log."""

    registry: ClassVar[CollectorRegistry]
    timeout = _REQUEST_TIMEOUT_SECONDS
    server_version = "cmo-exporter"
    sys_version = ""

    def do_GET(self) -> None:
        """Render the registry in the format that the scraper asks for."""
        if self.path.partition("?")[0] != _METRICS_PATH:
            self._answer(404, "text/plain; charset=utf-8", b"The metrics are at /metrics.\n")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept") or "")
        self._answer(200, content_type, encode(self.registry))

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape each second is no news."""

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 16

    def handle_error(self, *_: object) -> None:
        """A scraper that hangs up is no error of ours; any other failed scrape Prometheus reports itself."""


class MetricsServer:
    """Serves one registry from its own thread, so that a blocked event loop cannot hide itself.

    Raises:
        MetricsAddressError: nothing can listen at this host and port.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server = _listen(registry, host, port)
        self.host = host
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_SHUTDOWN_POLL_SECONDS,), name="cmo-metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where Prometheus finds the metrics."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{_METRICS_PATH}"

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _listen(registry: CollectorRegistry, host: str, port: int) -> _Server:
    handler = type("_BoundHandler", (_Handler,), {"registry": registry})
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server_type = type("_BoundServer", (_Server,), {"address_family": family})
        server: _Server = server_type(address[:2], handler)
    except (OSError, OverflowError, UnicodeError) as error:
        raise MetricsAddressError(
            f"/metrics cannot be served at {host}, port {port}: {getattr(error, 'strerror', None) or error}. "
            "Stop what listens there, or set another port (0 takes a free one) or another host."
        ) from error
    return server
