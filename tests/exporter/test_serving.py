"""The metrics server, the threads, memory, and the promise never to raise."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from cmo_exporter import Exporter, ExporterSettings, MetricsAddressError, Price, SettingsError
from cmo_exporter.memory import MemoryPeaks, process_start_time, resident_bytes
from cmo_stack.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    Eventually = Callable[[Callable[[], object]], None]

MEBIBYTE = 1 << 20


def value(exporter: Exporter, name: str, **labels: str) -> float:
    found = exporter.registry.get_sample_value(name, labels)
    assert found is not None, (name, labels)
    return found


def test_closing_stops_the_threads_and_frees_the_port(settings: ExporterSettings) -> None:
    before = set(threading.enumerate())
    port = free_port()
    for _ in range(2):
        with Exporter(ExporterSettings(port=port)) as exporter:
            exporter.start()
            assert exporter.metrics_url == f"http://127.0.0.1:{port}/metrics"
            assert httpx.get(exporter.metrics_url, timeout=60).status_code == 200
            assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).status_code == 404
        assert exporter.metrics_url == ""
        exporter.close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("cmo-")}
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))


@pytest.mark.parametrize(("host", "is_taken"), [("127.0.0.1", True), ("no.such.host.invalid", False)])
def test_an_address_that_cannot_be_used_is_a_clear_error(host: str, *, is_taken: bool) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        exporter = Exporter(ExporterSettings(host=host, port=port))
        with pytest.raises(MetricsAddressError, match=rf"{host}, port {port}.*another port") as raised:
            exporter.start()
        assert ("another worker of the same service" in str(raised.value)) is is_taken
    assert exporter.metrics_url == ""


def test_two_exporters_live_beside_each_other(settings: ExporterSettings) -> None:
    with Exporter(settings) as one, Exporter(settings) as other:
        with one.query() as query:
            query.answered("cache")
        assert one.metrics_url != other.metrics_url
        assert value(one, "cmo_queries_started_total", scenario="live") == 1
        assert value(other, "cmo_queries_started_total", scenario="live") == 0
        with one.query() as query:
            other.current_query().answered("cache")
            assert not other.current_query().in_progress
            assert one.current_query() is query
        assert value(one, "cmo_queries_total", scenario="live", outcome="error") == 1, "nobody answered it"


def test_a_blocked_event_loop_does_not_hide_itself(exporter: Exporter, eventually: Eventually) -> None:
    release, blocked = threading.Event(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    over = asyncio.Event()

    async def block() -> None:
        loops.append(asyncio.get_running_loop())
        exporter.watch_running_loop()
        with exporter.query() as query:
            query.answered("lightrag")
            blocked.set()
            release.wait(60)  # as a synchronous HTTP call inside a coroutine does
        await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(block()))
    thread.start()
    assert blocked.wait(60)
    for _ in range(2):
        text = httpx.get(exporter.metrics_url, timeout=60).text
        assert 'cmo_queries_in_progress{scenario="live"} 1.0' in text
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + 1)
    release.set()
    eventually(lambda: value(exporter, "cmo_event_loop_lag_seconds_sum") > 0.3)
    loops[0].call_soon_threadsafe(over.set)
    thread.join(60)
    assert not thread.is_alive()


def test_memory_is_read_and_its_peak_is_kept_per_scenario(exporter: Exporter, eventually: Eventually) -> None:
    def peak(scenario: str) -> float:
        return value(exporter, "cmo_memory_peak_bytes", worker="0", scenario=scenario)

    assert peak("clinical_rush") == 0
    assert value(exporter, "cmo_memory_bytes", worker="0", kind="pss") > MEBIBYTE
    with exporter.query("clinical_rush", "u"):
        base = peak("clinical_rush")
        ballast = bytearray(b"x") * (64 * MEBIBYTE)
        eventually(lambda: peak("clinical_rush") >= base + 48 * MEBIBYTE)
        del ballast
    exporter.end_session("u", "clinical_rush")
    frozen = peak("clinical_rush")
    live = peak("live")
    assert live >= frozen
    more = bytearray(b"x") * (96 * MEBIBYTE)
    eventually(lambda: peak("live") >= live + 16 * MEBIBYTE)
    assert peak("clinical_rush") == frozen, "without sessions it is frozen"
    del more
    with exporter.query("clinical_rush", "v"):
        assert peak("clinical_rush") <= peak("live") - 16 * MEBIBYTE, "a new first session begins anew"
    assert peak("academic_research") == 0


def test_a_peak_is_caught_between_scrapes(settings: ExporterSettings, eventually: Eventually) -> None:
    with Exporter(ExporterSettings(memory_sample_interval_seconds=0.005)) as exporter:
        base = resident_bytes()
        assert base is not None
        ballast = bytearray(b"x") * (64 * MEBIBYTE)
        # Not by a scrape, which would sample by itself.
        sampled = exporter.recorder.ledger._peaks.read
        eventually(lambda: sampled()["live"] >= base + 48 * MEBIBYTE)
        del ballast
        assert value(exporter, "cmo_memory_peak_bytes", worker="0", scenario="live") >= base + 48 * MEBIBYTE


def test_peaks_reset_and_rise() -> None:
    peaks = MemoryPeaks(("rush",), "live")
    peaks.raise_to("rush", 5.0)
    peaks.raise_to("rush", 3.0)
    assert peaks.read() == {"live": 0.0, "rush": 5.0}
    peaks.reset("rush", 2.0)
    peaks.raise_to("live", 9.0)
    peaks.reset("live", 1.0)
    assert peaks.read() == {"live": 9.0, "rush": 2.0}


def test_the_start_time_is_that_of_the_process_and_stays(exporter: Exporter) -> None:
    first = value(exporter, "cmo_worker_start_time_seconds", worker="0")
    assert first == process_start_time() == value(exporter, "cmo_worker_start_time_seconds", worker="0")
    assert 0 < time.time() - first < 24 * 3600


def test_breakers_are_in_one_state_at_a_time(exporter: Exporter) -> None:
    for state in ("closed", "open", "open", "half_open", "closed"):
        exporter.breaker_state("lightrag", state)
        labels = {"component": "lightrag"}
        states = {
            sample.labels["state"]: sample.value
            for family in exporter.registry.collect()
            for sample in family.samples
            if sample.name == "cmo_circuit_breaker_state" and sample.labels["component"] == "lightrag"
        }
        assert {name for name, set_ in states.items() if set_} == {state}
    name = "cmo_circuit_breaker_transitions_total"
    assert [value(exporter, name, state=state, **labels) for state in ("open", "half_open", "closed")] == [
        1,
        1,
        1,
    ]
    exporter.breaker_state("perplexity", "open")
    assert value(exporter, name, component="perplexity", state="open") == 1, "breakers begin closed"
    exporter.breaker_rejection("lightrag", "open")
    assert value(exporter, "cmo_circuit_breaker_rejections_total", state="open", **labels) == 1


def test_tokens_cost_what_the_price_table_says(exporter: Exporter) -> None:
    exporter.tokens("lightrag", "stub", "cmo-stub", input_tokens=2_000_000, output_tokens=1_000_000)
    exporter.tokens("embedding", "stub", "cmo-embed", input_tokens=10, output_tokens=0)
    exporter.tokens("lightrag", "stub", "unheard-of", input_tokens=7, output_tokens=0)
    model = {"component": "lightrag", "provider": "stub", "model": "cmo-stub"}
    assert value(exporter, "cmo_llm_cost_usd_total", **model) == pytest.approx(0.90)
    assert value(exporter, "cmo_llm_tokens_total", token_type="input", **model) == 2_000_000
    free = {"component": "embedding", "provider": "stub", "model": "cmo-embed"}
    assert exporter.registry.get_sample_value("cmo_llm_cost_usd_total", free) is None
    other = {"component": "_other", "provider": "_other", "model": "_other"}
    assert value(exporter, "cmo_llm_tokens_total", token_type="input", **other) == 7


def test_every_value_outside_its_list_is_counted(exporter: Exporter) -> None:
    query = exporter.current_query()
    query.cache_request("l1", "hit")
    query.cache_request("l9", "hit")
    query.cache_request("l9", "perhaps")
    other = {"scenario": "live", "tier": "_other", "result": "_other"}
    assert value(exporter, "cmo_cache_requests_total", **other) == 1
    assert value(exporter, "cmo_series_dropped_total", metric="cmo_cache_requests_total") == 3


def test_what_is_none_of_its_list_is_said_once_with_what_it_can_be(
    exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with exporter.query() as query:
            query.answered("does my patient have gout")
            with query.component("openai"):
                pass
    for metric in ("cmo_answers_total", "cmo_component_calls_total"):
        (said,) = [record.getMessage() for record in caplog.records if metric in record.getMessage()]
        assert "gout" not in said
        assert "openai" not in said
    assert "source is one of: cache, lightrag, perplexity, stale, default" in caplog.text
    assert "component is one of: cache_l1, " in caplog.text


def test_the_other_gauges_and_counters_are_written(exporter: Exporter) -> None:
    exporter.retry("lightrag")
    exporter.queue_wait("llm", 0.8)
    exporter.queue_depth("llm", 12)
    exporter.cache_entries("l1", 15_000)
    exporter.cache_eviction("l2", 3)
    exporter.current_query().fallback(source="cache", target="lightrag", reason="api_error")
    assert value(exporter, "cmo_retries_total", component="lightrag") == 1
    assert value(exporter, "cmo_queue_wait_seconds_sum", component="llm") == 0.8
    assert value(exporter, "cmo_queue_depth", component="llm") == 12
    assert value(exporter, "cmo_cache_entries", tier="l1") == 15_000
    assert value(exporter, "cmo_cache_evictions_total", tier="l2") == 3
    fallback = {"scenario": "live", "source": "cache", "target": "lightrag", "reason": "api_error"}
    assert value(exporter, "cmo_fallbacks_total", **fallback) == 1
    assert value(exporter, "cmo_build_info", version="1.2.3", revision="abc1234") == 1


def test_an_error_inside_is_counted_and_said_once(
    exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    secret: Any = "does my patient have gout"
    with caplog.at_level(logging.WARNING, logger="cmo_exporter"):
        for amount in (-1, float("nan"), 1e308, secret):
            exporter.cache_entries("l1", amount)
    assert value(exporter, "cmo_instrumentation_errors_total", metric="cmo_cache_entries") == 4
    assert value(exporter, "cmo_cache_entries", tier="l1") == 0
    assert len(caplog.records) == 1
    assert "gout" not in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExporterSettings(scenarios=("live",)),
        lambda: ExporterSettings(scenarios=("Rush hour",)),
        lambda: ExporterSettings(components=("llm", "llm")),
        lambda: ExporterSettings(port=70_000),
        lambda: ExporterSettings(session_idle_timeout_seconds=0),
        lambda: ExporterSettings(models=(("llm", "stub", "m"),)),
        lambda: ExporterSettings(prices={"m": Price(1, 1)}),
        lambda: Price(-1, 1),
        lambda: Price(1, 1e308),
        lambda: ExporterSettings(loop_lag_interval_seconds=1e-9),
        lambda: ExporterSettings(components=("llm",), models=(cast("tuple[str, str, str]", 5),)),
        lambda: Price(cast("float", "a lot"), 1),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(SettingsError):
        make()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"components": "lightrag"}, "components is 'lightrag'; it must be a tuple of names"),
        ({"version": None}, "version is None; it must be text."),
        ({"version": "\ud800"}, "version is '\\ud800'; it must be text that can be printed."),
        ({"port": "9464"}, "port is '9464'; it must be a whole number."),
        ({"port": True}, "port is True; it must be a whole number."),
        ({"host": 5}, "host is 5; it must be text."),
        ({"components": None}, "components is None; it must be a tuple of names"),
        ({"query_log": "no"}, "query_log is 'no'; it must be True or False."),
        (
            {"session_idle_timeout_seconds": "60"},
            "session_idle_timeout_seconds is '60'; it must be a number.",
        ),
        (
            {"loop_lag_interval_seconds": 1e300},
            "loop_lag_interval_seconds is 1e+300; it must be above 0, and",
        ),
        ({"loop_lag_interval_seconds": float("nan")}, "loop_lag_interval_seconds is nan; it must be above 0"),
        ({"maximum_sessions": 10**12}, "maximum_sessions is 1000000000000; it must be above 0, and at most"),
        (
            {"components": ("llm",), "models": (("llm", "m"),)},
            "models holds ('llm', 'm'); expected the names",
        ),
        (
            {"components": ("llm",), "models": (("llm", None, "m"),)},
            "models holds ('llm', None, 'm'); expected",
        ),
        ({"prices": {"m": 3}}, "prices holds 3 for 'm'; expected a Price(input, output)."),
        ({"prices": None}, "prices is None; it must be a Price by the name of its model."),
        ({"otlp_endpoint": 5}, "otlp_endpoint is 5; it must be text."),
        ({"otlp_endpoint": "localhost:4318"}, "otlp_endpoint has no scheme; it must be the http://"),
    ],
)
def test_what_is_easily_got_wrong_is_said_how_to_mend(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(expected)):
        ExporterSettings(**wrong)


@pytest.mark.parametrize("nth", range(3))
def test_users_stay_right_when_a_signal_comes_in_the_middle_of_counting_them(
    exporter: Exporter, nth: int
) -> None:
    """Its handler runs in the same thread, which the lock does not hold up."""
    sessions, waiting = exporter.recorder.ledger.sessions, exporter.query(session="waiting")
    waiting.begin()
    step, stepped = sessions._step, 0

    def be_interrupted_and_step(*arguments: Any) -> None:
        """In the middle of a change: a session opens, or closes."""
        nonlocal stepped
        stepped += 1
        if stepped == nth + 1:
            with exporter.query(session="new"):
                exporter.end_session("user")
            waiting.finish()
            exporter.end_session("waiting")
            exporter.recorder.ledger.sample_memory()
        step(*arguments)

    sessions._step = be_interrupted_and_step  # type: ignore[method-assign, assignment]  # see above
    with exporter.query(session="user"):
        exporter.end_session("nobody")
    exporter.recorder.ledger.sample_memory()
    exporter.end_session("user")
    waiting.finish()
    for left in ("new", "waiting"):
        exporter.end_session(left)
    assert stepped > nth
    assert value(exporter, "cmo_queries_started_total", scenario="live") == 3
    assert value(exporter, "cmo_queries_in_progress", scenario="live") == 0
    for _ in range(2):  # what was put aside is counted before the first
        assert value(exporter, "cmo_active_users", scenario="live") == 0
    seconds = value(exporter, "cmo_active_user_seconds_total", scenario="live")
    assert seconds is not None
    assert 0 <= seconds < 60
    assert value(exporter, "cmo_instrumentation_errors_total", metric="cmo_active_users") == 0


def test_starting_and_closing_in_many_threads_leaves_nothing_running(settings: ExporterSettings) -> None:
    exporter, before = Exporter(settings), threading.active_count()
    for act in (exporter.start, exporter.close, exporter.start, exporter.close):
        threads = [threading.Thread(target=act) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bool(exporter.metrics_url) == (act == exporter.start)
    assert threading.active_count() == before


def test_a_breaker_s_state_may_be_recorded_in_the_middle_of_another() -> None:
    """By the handler of a signal, in the same thread."""
    exporter = Exporter(ExporterSettings(components=("llm",)))
    transitions = exporter.recorder.instruments.breaker_transitions

    class Interrupted:
        def child(self, *labels: object) -> Any:
            exporter.recorder.instruments.breaker_transitions = transitions
            exporter.breaker_state("llm", "half_open")
            return transitions.child(*labels)

    exporter.breaker_state("llm", "closed")
    exporter.recorder.instruments.breaker_transitions = Interrupted()  # type: ignore[assignment]  # see above
    recording = threading.Thread(target=exporter.breaker_state, args=("llm", "open"), daemon=True)
    recording.start()
    recording.join(60)
    assert not recording.is_alive()


PATHS = [field.name for field in dataclasses.fields(ExporterSettings) if "Path" in str(field.type)]


@pytest.mark.parametrize("kind", [Path, str])
def test_every_file_and_folder_of_the_settings_is_a_path(kind: type) -> None:
    assert len(PATHS) == 5
    given: dict[str, Any] = {name: kind(f"/run/{name}") for name in PATHS}
    settings = ExporterSettings(**given)
    assert [getattr(settings, name) for name in PATHS] == [Path("/run", name) for name in PATHS]


@pytest.mark.parametrize("wrong", [5, b"/run/file", ["/run/file"]], ids=repr)
@pytest.mark.parametrize("name", PATHS)
def test_what_cannot_be_a_path_is_refused_by_name(name: str, wrong: object) -> None:
    given: dict[str, Any] = {"metrics_tls_certificate": "/run/certificate", name: wrong}
    expected = f"{name} is {wrong!r}; it must be a path: a pathlib.Path, or text."
    with pytest.raises(SettingsError, match=re.escape(expected)):
        ExporterSettings(**given)
