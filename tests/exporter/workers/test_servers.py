"""Several workers of real servers are counted as one service, whatever becomes of them."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from .servers import GONE, WORKERS, Service, exchange, ready, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Eventually = Callable[[Callable[[], object]], None]

QUERIES = 100
SERVERS = ["uvicorn", "gunicorn", "gunicorn --preload"]


@pytest.fixture(params=SERVERS, scope="module")
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, eventually: Eventually
) -> Iterator[Service]:
    """The service under one of the servers, with all of its workers there; the tests of one share it."""
    found = Service()
    with serving(request.param, found, tmp_path_factory.mktemp("service")):
        eventually(lambda: ready(found))
        yield found


def test_the_sums_are_right_whoever_is_scraped(service: Service, eventually: Eventually) -> None:
    before = service.value("cmo_queries_total", scenario="live", outcome="success") or 0
    answered_by = {service.ask() for _ in range(QUERIES)}
    assert len(answered_by) > 1, "more than one worker took part"
    live = frozenset({("scenario", "live")})
    # Each worker posts what it has written down ten times a second.
    eventually(
        lambda: service.value("cmo_queries_total", scenario="live", outcome="success") == before + QUERIES
    )
    for _ in range(20):  # the kernel gives each scrape to one of the workers
        samples = service.samples()
        done = samples["cmo_queries_total", live | {("outcome", "success")}]
        assert done == before + QUERIES
        assert samples["cmo_query_duration_seconds_count", live | {("outcome", "success")}] == done
        assert samples["cmo_queries_started_total", live] == done
        assert samples["cmo_queries_in_progress", live] == 0
        calls = frozenset({("scenario", "live"), ("component", "lightrag"), ("outcome", "success")})
        assert samples["cmo_component_calls_total", calls] == done


def test_a_user_who_reaches_several_workers_is_one_user(service: Service, eventually: Eventually) -> None:
    reached = {service.ask(X_CMO_Session=f"user-{number % 3}", X_CMO_Scenario="rush") for number in range(60)}
    assert len(reached) > 1
    for _ in range(8):
        assert service.value("cmo_active_users", scenario="rush") == 3
    first, second = (
        (samples["cmo_active_user_seconds_total", frozenset({("scenario", "rush")})],
         samples["cmo_active_user_clock_seconds_total", frozenset()])
        for samples in (service.samples(), service.samples())
    )  # fmt: skip
    assert second[0] - first[0] == pytest.approx(3 * (second[1] - first[1]), rel=1e-6)
    for number in range(3):
        service.ask(X_CMO_Session=f"user-{number}", X_CMO_Scenario="rush", X_CMO_Session_End="1")
    # A worker lets a user go after it has sent the last byte.
    eventually(lambda: service.value("cmo_active_users", scenario="rush") == 0)


def test_a_blocked_worker_is_shown_whoever_is_scraped(
    service: Service, eventually: Eventually, tmp_path: Path
) -> None:
    def by_worker(name: str) -> dict[str, float]:
        return {
            dict(labels)["worker"]: value
            for (found, labels), value in service.samples().items()
            if found == name
        }

    def blocked() -> dict[str, float]:
        return {
            worker: value for worker, value in by_worker("cmo_event_loop_blocked_seconds").items() if value
        }

    for name in ("cmo_event_loop_blocked_seconds", "cmo_process_open_files", "cmo_process_threads"):
        assert len(by_worker(name)) == WORKERS, name
    thaw = tmp_path / "thaw"
    frozen = threading.Thread(target=exchange, args=(service.port, "POST", f"/freeze?until={thaw}"))
    frozen.start()
    try:
        eventually(blocked)
        (worker,) = before = blocked()
        for _ in range(12):
            assert set(blocked()) == {worker}
        eventually(lambda: blocked()[worker] > before[worker] + 0.3)
    finally:
        thaw.touch()
        frozen.join(60)
    eventually(lambda: not blocked())


def test_a_worker_that_is_killed_comes_back_and_nothing_that_was_shown_is_lost(
    service: Service, eventually: Eventually
) -> None:
    for _ in range(QUERIES):
        service.ask()
    before = service.samples()
    started = service.workers()
    with contextlib.suppress(*GONE):
        exchange(service.port, "POST", "/die")

    def come_back() -> bool:
        with contextlib.suppress(*GONE):
            found = service.workers()
            return len(found) == WORKERS and found != started
        return False

    eventually(come_back)
    after = service.samples()
    lost = {
        key: (value, after.get(key))
        for key, value in before.items()
        if key[0].endswith(("_total", "_count"))
        and "worker" not in dict(key[1])
        and after.get(key, 0.0) < value
    }
    assert not lost
    assert sum(value for (name, _), value in after.items() if name == "cmo_worker_restarts_total") == 1
    route = {"http_request_method": "POST", "http_route": "/die", "http_response_status_code": "500"}
    died = service.value("http_server_request_duration_seconds_count", error_type="500", **route)
    assert died is None
    assert service.value("http_server_active_requests", http_request_method="POST") == 0, "gauges die"
