"""Workers that end as planned take nothing with them: gunicorn replaces them while questions come in."""

from __future__ import annotations

import itertools
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from .servers import GONE, WORKERS, Service, exchange, ready, serving, total

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..collector import Collector
    from .servers import Samples

    Eventually = Callable[[Callable[[], object]], None]

CLIENTS = 3
COUNTED = ("_total", "_count", "_bucket", "_sum")


class Clients:
    """Clients who ask, one question after the other, until they are stopped; and what a scraper sees."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.answers: list[int] = []
        self.scrapes: list[Samples] = []
        self._stop = threading.Event()

    def __enter__(self) -> Clients:
        self._threads = ThreadPoolExecutor(CLIENTS + 1)
        self._running = [self._threads.submit(self._ask) for _ in range(CLIENTS)]
        self._running.append(self._threads.submit(self._scrape))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads.shutdown()
        for running in self._running:
            running.result()

    def _ask(self) -> None:
        while not self._stop.is_set():
            # A worker that ends may close a connection that it has accepted, before it reads a question.
            try:
                self.answers.append(json.loads(exchange(self.service.port, "POST", "/query"))["worker"])
            except GONE:
                continue

    def _scrape(self) -> None:
        while not self._stop.is_set():
            try:
                self.scrapes.append(self.service.samples())
            except GONE:
                continue


@pytest.fixture
def server(
    tmp_path: Path, collector: Collector, eventually: Eventually
) -> Iterator[tuple[Service, subprocess.Popen[bytes]]]:
    """Its master process has a place too, so that there is always somebody who goes on with the numbers."""
    service = Service()
    running = serving(
        "gunicorn --preload --max-requests 10 --max-requests-jitter 10",
        service,
        tmp_path,
        START_AT_IMPORT="1",
        QUERY_LOG="1",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="600000",  # so that a worker's spans are sent when it ends, or never
    )
    with running as process:
        eventually(lambda: ready(service, WORKERS + 1))
        yield service, process


def went_back(scrapes: list[Samples]) -> list[object]:
    """What was counted in a scrape and is less, or not there, in the next."""
    return [
        (key, value, later.get(key))
        for earlier, later in itertools.pairwise(scrapes)
        for key, value in earlier.items()
        if key[0].endswith(COUNTED) and "worker" not in dict(key[1]) and later.get(key, 0.0) < value
    ]


def test_workers_are_replaced_under_load_and_every_question_stays_counted(
    server: tuple[Service, subprocess.Popen[bytes]],
    tmp_path: Path,
    collector: Collector,
    eventually: Eventually,
) -> None:
    service, process = server
    with Clients(service) as clients:
        eventually(lambda: len(set(clients.answers)) >= 2 * WORKERS)
        replaced = set(clients.answers)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: len(set(clients.answers) - replaced) >= WORKERS)
    assert not went_back(clients.scrapes)
    asked = len(clients.answers)
    eventually(lambda: service.total("cmo_queries_total") >= asked)
    eventually(lambda: service.total("cmo_query_log_lines_total") >= asked)
    samples = service.samples()
    for name in (
        "cmo_queries_total",
        "cmo_queries_started_total",
        "cmo_query_duration_seconds_count",
        "cmo_component_calls_total",
        "cmo_query_log_lines_total",
        "http_server_request_duration_seconds_count",
    ):
        assert total(samples, name) == asked, name
    for name in (
        "cmo_queries_in_progress",
        "http_server_active_requests",
        "cmo_instrumentation_errors_total",
    ):
        assert total(samples, name) == 0, name
    process.terminate()
    process.wait(60)
    said = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert any("Handling signal: hup" in line for line in said), "all were told to end at once, too"
    lines = [json.loads(line) for line in said if line.startswith("{")]
    assert sorted(line["process"] for line in lines) == sorted(clients.answers)
    assert {line["span_id"] for line in lines} == {
        span.span_id.hex() for span in collector.spans if span.name == "query"
    }
