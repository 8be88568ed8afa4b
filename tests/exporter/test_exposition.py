"""The text of a scrape is what prometheus-client would have written, in both formats."""

from __future__ import annotations

import itertools
import re
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from cmo_exporter import Exporter, ExporterSettings, exposition
from cmo_exporter.catalogue import FALLBACK_REASONS
from cmo_exporter.exposition import Exposition
from cmo_exporter.totals import Totals
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_exporter.instruments import Instruments

FORMATS = ["text/plain", "application/openmetrics-text; version=1.0.0"]
# They move by themselves between two readings.
MOVING = re.compile(r"^cmo_(memory|active_user|process|event_loop|asyncio|gc|oldest)[^ ]* .*$", re.MULTILINE)
ODD_NUMBERS = (7, 1e-5, 999_999.5, 1e6, 1_234_567.5, float("inf"), float("nan"), -3.0)
TRACE = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


def still(text: str) -> list[str]:
    """The lines, without the values that move."""
    return [line.rpartition(" ")[0] if MOVING.match(line) else line for line in text.splitlines()]


def fill(exporter: Exporter) -> None:
    for scenario in ("live", "rush", "unheard of"):
        for source in ("cache", "default", "unheard of"):
            with exporter.query(scenario, "user") as query, query.component("llm"):
                query.cache_result("hit")
                query.answered(source)
    instruments = exporter.recorder.instruments
    for seconds in (0.0, 0.01, 1.999, 2.0, 2.0001, 59.0, 61.0, 1e9):
        instruments.duration.child("live", "success").observe(seconds)
        instruments.http_duration.child("GET", '/odd/{"quoted"}\\back\nline', "200", "").observe(seconds)
    instruments.network.child("receive").inc(1e15 + 0.5)
    instruments.duration.child("rush", "failure").observe(2.5, TRACE)


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("workers", ["alone", "shared"])
def test_the_text_is_that_of_the_library(
    accept: str, workers: str, settings: ExporterSettings, tmp_path: Path
) -> None:
    shared = tmp_path / "shared" if workers == "shared" else None
    exporter = Exporter(ExporterSettings(scenarios=("rush",), components=("llm",), shared_directory=shared))
    with exporter:
        fill(exporter)
        for reason, number in zip(FALLBACK_REASONS, ODD_NUMBERS, strict=False):
            exporter.recorder.instruments.fallbacks.child("live", "lightrag", "default", reason).set(number)
        encode, content_type = choose_encoder(accept)
        for _ in range(2):  # the second time from what was made the first time
            text, said = exporter._exposition.render(accept)
            assert said == content_type
            assert still(text.decode()) == still(encode(exporter.registry).decode())


def test_users_are_floating_point_numbers_like_all_others(settings: ExporterSettings) -> None:
    exporter = Exporter(settings)
    for user in ("one", "two"):
        with exporter.query(session=user) as query:
            query.answered("cache")
    text, _ = exporter._exposition.render("text/plain")
    assert b'\ncmo_active_users{scenario="live"} 2.0\n' in text
    numbers = [line.rpartition(b" ")[2] for line in text.splitlines() if not line.startswith(b"#")]
    assert not [number for number in numbers if number.isdigit()]


def test_exemplars_are_shown_in_openmetrics_alone(settings: ExporterSettings) -> None:
    exporter = Exporter(ExporterSettings(scenarios=("rush",)))
    fill(exporter)
    text = exporter._exposition.render(FORMATS[1])[0].decode()
    (shown,) = (
        sample
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # no types
        for sample in family.samples
        if sample.exemplar is not None
    )
    assert shown.exemplar is not None
    assert (shown.name, shown.labels["le"], shown.labels["scenario"]) == (
        "cmo_query_duration_seconds_bucket",
        "2.5",
        "rush",
    )
    assert (shown.exemplar.labels, shown.exemplar.value) == (TRACE, 2.5)
    assert shown.exemplar.timestamp is not None
    assert TRACE["trace_id"] not in exporter._exposition.render(FORMATS[0])[0].decode()


def test_the_latest_exemplar_of_any_worker_is_shown(tmp_path: Path) -> None:
    first, second = (
        Exporter(ExporterSettings(shared_directory=tmp_path / "shared")) for _ in range(2)
    )  # fmt: skip
    with first, second:
        for number, exporter in enumerate((first, second, first)):
            trace = {**TRACE, "trace_id": f"{number + 1:032x}"}
            exporter.recorder.instruments.duration.child("live", "success").observe(0.3, trace)
            for reader in (first, second):
                text = reader._exposition.render(FORMATS[1])[0].decode()
                assert re.findall(r'trace_id="(\w+)"', text) == [trace["trace_id"]]


def count_a_call(instruments: Instruments) -> None:
    instruments.component_calls.child("live", "llm", "success").inc()


def observe(instruments: Instruments) -> None:
    instruments.duration.child("live", "success").observe(0.3)


def keep_an_exemplar(instruments: Instruments) -> None:
    trace = {**TRACE, "trace_id": f"{time.monotonic_ns():032x}"}
    instruments.duration.child("rush", "failure").remember(2.5, trace)


def ask_a_new_route(instruments: Instruments) -> None:
    instruments.http_duration.child("GET", f"/{len(instruments.values.series)}", "200", "").observe(0.1)


def ask_the_same_route(instruments: Instruments) -> None:
    instruments.http_duration.child("GET", "/same", "200", "").observe(0.1)


def set_a_gauge(instruments: Instruments) -> None:
    instruments.queue_depth.child("llm").set(7)


def set_it_to_nothing(instruments: Instruments) -> None:
    instruments.queue_depth.child("llm").set(float("nan"))


CHANGES = (
    count_a_call,
    observe,
    keep_an_exemplar,
    ask_a_new_route,
    ask_the_same_route,
    set_a_gauge,
    set_it_to_nothing,
)


@pytest.mark.parametrize("workers", ["alone", "shared"])
@hypothesis_settings(max_examples=20)
@given(steps=st.lists(st.tuples(st.integers(0, 1), st.sets(st.sampled_from(CHANGES))), max_size=6))
def test_a_reader_that_remembers_shows_what_one_without_memory_would(
    workers: str, steps: list[tuple[int, set[Callable[[Instruments], None]]]]
) -> None:
    with TemporaryDirectory() as folder, ExitStack() as stack:
        shared = Path(folder) / "shared" if workers == "shared" else None
        settings = ExporterSettings(scenarios=("rush",), components=("llm",), shared_directory=shared)
        service = [stack.enter_context(Exporter(settings)) for _ in range(2 if shared else 1)]
        for who, changes in steps:
            exporter = service[who % len(service)]
            for change in changes:
                change(exporter.recorder.instruments)
            totals = service[0]._exposition._totals
            for accept in FORMATS:
                text, _ = service[0]._exposition.render(accept)
                fresh = Exposition(Totals(totals._ledger, totals._values, totals._directory), lambda: None)
                expected, _ = fresh.render(accept)
                assert still(text.decode()) == still(expected.decode())


@hypothesis_settings(max_examples=50)
@given(st.lists(st.floats(0, 100, allow_subnormal=False), max_size=50))
def test_a_histogram_holds_what_it_was_given(values: list[float]) -> None:
    exporter = Exporter(ExporterSettings())
    child = exporter.recorder.instruments.duration.child("live", "success")
    for value in values:
        child.observe(value)
    samples = {
        (sample.name.rpartition("_")[2], sample.labels.get("le")): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name.startswith("cmo_query_duration_seconds")
        and (sample.labels["scenario"], sample.labels["outcome"]) == ("live", "success")
    }
    for edge in child.edges:
        assert samples["bucket", str(edge)] == sum(value <= edge for value in values)
    assert samples["bucket", "+Inf"] == samples["count", None] == len(values)
    assert samples["sum", None] == pytest.approx(sum(values))


def test_a_long_scrape_lets_others_run_after_each_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Exporter(ExporterSettings())
    clock = itertools.count(0.0, 0.0006)  # as if each metric took so long
    rests: list[float] = []
    monkeypatch.setattr(exposition, "monotonic", lambda: next(clock))
    monkeypatch.setattr(exposition, "sleep", rests.append)
    body, _ = exporter._exposition.render("")
    metrics = body.count(b"# TYPE ")
    assert metrics > 30
    assert metrics // 3 <= len(rests) <= metrics // 2
    assert set(rests) == {exposition._REST_SECONDS}
