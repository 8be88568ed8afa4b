"""A scrape from its own thread never sees the books out of balance."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, cast

from cmo_exporter import Exporter, ExporterSettings, catalogue, components, queries
from cmo_exporter.postponed_ends import catch_up
from cmo_exporter.totals import Total, _Sum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest
    from cmo_exporter.values import Numbers
    from prometheus_client.metrics_core import Metric

WORKERS = 4
QUERIES_PER_WORKER = 150


def balances(families: list[Metric]) -> dict[str, tuple[float, ...]]:
    """For each scenario: started, in progress, finished, timed, cache results, answered, successes."""
    samples = [sample for family in families for sample in family.samples]

    def total(name: str, scenario: str, **labels: str) -> float:
        wanted = {"scenario": scenario, **labels}
        return sum(
            sample.value
            for sample in samples
            if sample.name == name and wanted.items() <= sample.labels.items()
        )

    return {
        scenario: (
            total("cmo_queries_started_total", scenario),
            total("cmo_queries_in_progress", scenario),
            total("cmo_queries_total", scenario),
            total("cmo_query_duration_seconds_count", scenario),
            total("cmo_query_cache_results_total", scenario),
            total("cmo_answers_total", scenario),
            total("cmo_component_calls_total", scenario),
        )
        for scenario in ("live", "clinical_rush")
    }


def ask(exporter: Exporter, scenario: str) -> None:
    for number in range(QUERIES_PER_WORKER):
        with exporter.query(scenario, f"u{number % 3}") as query:
            with query.component("lightrag"):
                query.cache_result("miss")
            query.answered(catalogue.SOURCES[number % len(catalogue.SOURCES)])


def test_every_scrape_is_balanced_while_queries_run(settings: ExporterSettings) -> None:
    exporter = Exporter(settings)
    threads = [
        threading.Thread(target=ask, args=(exporter, ("live", "clinical_rush")[number % 2]))
        for number in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    scrapes = []
    while any(thread.is_alive() for thread in threads):
        scrapes.append(balances(list(exporter.registry.collect())))
    for thread in threads:
        thread.join()
    scrapes.append(balances(list(exporter.registry.collect())))
    for scrape in scrapes:
        for started, in_progress, finished, timed, cached, answered, calls in scrape.values():
            assert started == finished + in_progress
            assert finished == timed == cached == answered
            assert calls >= finished, "what a finished query did is in the same scrape"
    for started, in_progress, *counts in scrapes[-1].values():
        assert in_progress == 0
        assert {started, *counts} == {QUERIES_PER_WORKER * WORKERS / 2}


def test_a_scrape_that_takes_long_holds_up_no_query(
    settings: ExporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a query needs is free while numbers are added up and made into text."""
    exporter = Exporter(settings)
    expected = []
    reading, asked = threading.Event(), threading.Event()

    def wait_for_the_queries(one: _Sum, sources: list[Numbers], now: float, *, with_exemplars: bool) -> Total:
        reading.set()
        assert asked.wait(60), "the queries wait for the scrape"
        return read(one, sources, now, with_exemplars=with_exemplars)

    read = _Sum.read
    monkeypatch.setattr(_Sum, "read", wait_for_the_queries)
    scrape = threading.Thread(target=lambda: expected.append(exporter._exposition.render("text/plain")))
    scrape.start()
    assert reading.wait(60)
    ask(exporter, "live")
    with exporter.session("u1"):
        pass
    asked.set()
    scrape.join()
    assert b'cmo_queries_total{outcome="success",scenario="live"} 0.0' in expected[0][0]


def test_a_query_cannot_end_in_the_middle_of_a_scrape(settings: ExporterSettings) -> None:
    exporter = Exporter(settings)
    ledger = exporter.recorder.ledger
    read = ledger.sessions.read
    asking = threading.Thread(target=ask, args=(exporter, "live"))

    def read_while_somebody_asks(
        now: float, overdue: Sequence[int] | None = None
    ) -> dict[str, tuple[int, float]]:
        # Users are read first: whoever can be counted between them and the queries upsets the balance.
        asking.start()
        asking.join(0.3)
        return read(now, overdue)

    ledger.sessions.read = read_while_somebody_asks  # type: ignore[method-assign]  # between two reads
    families = list(exporter.registry.collect())
    started, in_progress, finished, *_ = balances(families)["live"]
    asking.join()
    assert started == finished + in_progress
    users = next(family for family in families if family.name == "cmo_active_users")
    assert (started == 0) == all(sample.value == 0 for sample in users.samples)


def test_what_the_collector_ends_took_until_then_and_not_until_it_is_counted(
    settings: ExporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = Exporter(settings)
    now = 100.0
    for module in (queries, components):
        monkeypatch.setattr(module, "monotonic", lambda: now)

    def answer() -> Iterator[object]:
        with exporter.query() as query, query.component("lightrag"):
            yield None

    catch_up()
    gc.disable()
    try:
        abandoned: list[object] = [answer()]
        next(cast("Iterator[object]", abandoned[0]))
        abandoned.append(abandoned)  # a cycle, which the collector alone can end
        del abandoned
        now = 103.0
        gc.collect()
    finally:
        gc.enable()
    now = 500.0
    families = list(exporter.registry.collect())
    for name in ("cmo_query_duration_seconds", "cmo_component_duration_seconds"):
        family = next(family for family in families if family.name == name)
        cancelled = [one for one in family.samples if one.labels["outcome"] == "cancelled"]
        assert [one.value for one in cancelled if one.name == f"{name}_sum" and one.value] == [3.0]
