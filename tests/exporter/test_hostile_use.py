"""What a service does wrong with the exporter costs it neither an answer nor the metrics."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterError, ExporterSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


def value(exporter: Exporter, name: str, **labels: str) -> float | None:
    return exporter.registry.get_sample_value(name, labels)


@pytest.fixture
def noisy_log() -> Iterator[None]:
    """The service has put a filter on the log that raises."""

    def fail(_record: logging.LogRecord) -> bool:
        raise RuntimeError("no log")

    log = logging.getLogger("cmo_exporter")
    log.addFilter(fail)
    yield
    log.removeFilter(fail)


@pytest.mark.parametrize(
    "began",
    ["a word", object(), float("nan"), float("inf"), -1.0, time.time()],
    ids=["word", "object", "nan", "infinity", "negative", "another clock"],
)
def test_a_beginning_that_cannot_be_true_spoils_nothing(began: Any) -> None:
    exporter = Exporter(ExporterSettings())
    query = exporter.query(began=began)
    query.begin()
    age = value(exporter, "cmo_oldest_query_age_seconds", scenario="live")
    assert age is not None
    assert 0 <= age < 3600
    query.answered("cache")
    query.finish()
    seconds = value(exporter, "cmo_query_duration_seconds_sum", scenario="live", outcome="success")
    assert seconds is not None
    assert 0 <= seconds < 3600
    assert value(exporter, "cmo_queries_in_progress", scenario="live") == 0
    name = "cmo_instrumentation_errors_total"
    assert value(exporter, name, metric="cmo_queries_started_total") == 1


@pytest.mark.usefixtures("noisy_log")
def test_a_log_that_raises_does_not_reach_the_service() -> None:
    exporter = Exporter(ExporterSettings(components=("llm",)))
    exporter.queue_depth("llm", -1)
    name = "cmo_instrumentation_errors_total"
    assert value(exporter, name, metric="cmo_queue_depth") == 1


@pytest.mark.parametrize("route", ["/\ud800", "/" + "a" * 1_000_000, "/a\nb", "/\x00"])
def test_a_route_that_can_be_no_label_is_other(route: str) -> None:
    exporter = Exporter(ExporterSettings())
    durations = exporter.recorder.instruments.http_duration
    for known in (route, "/chats/{chat}"):
        durations.child("GET", known, "200", "").observe(0.1)
    body, _ = exporter._exposition.render("")
    assert len(body) < 100_000
    for shown in ("_other", "/chats/{chat}"):
        labels = {
            "http_request_method": "GET", "http_route": shown, "http_response_status_code": "200",
            "error_type": "",
        }  # fmt: skip
        assert value(exporter, "http_server_request_duration_seconds_count", **labels) == 1
    dropped = "cmo_series_dropped_total"
    assert value(exporter, dropped, metric="http_server_request_duration_seconds") == 1


def test_settings_for_more_series_than_there_is_room_for_say_so() -> None:
    settings = ExporterSettings(
        scenarios=tuple(f"s{number}" for number in range(60)),
        components=tuple(f"c{number}" for number in range(60)),
    )
    with pytest.raises(ExporterError, match="scenarios times components"):
        Exporter(settings)


def test_a_fork_while_another_thread_looks_at_the_sessions_leaves_the_child_free() -> None:
    exporter = Exporter(ExporterSettings())
    holds, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with exporter.recorder.ledger._values.lock, exporter.recorder.ledger.sessions._lock:
            holds.set()
            may_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait()
    child = os.fork()
    if not child:
        signal.alarm(30)
        with exporter.query(session="somebody"):
            os._exit(0)
    may_go.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


class Unbound:
    """What a proxy is of which there is nothing behind it."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("working outside of a request")

    @__class__.setter
    def __class__(self, _: Any) -> None: ...


def test_a_function_may_return_a_proxy_of_nothing() -> None:
    exporter = Exporter(ExporterSettings())
    returned = Unbound()
    assert exporter.observe_query(lambda: returned)() is returned
    assert value(exporter, "cmo_queries_in_progress", scenario="live") == 0
