"""A scrape from its own thread never sees the books out of balance."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, cast

import httpx
import pytest
from cmo_exporter import Exporter, ExporterSettings, catalogue, components, instrument_fastapi, queries
from cmo_exporter.exposition import _Family
from cmo_exporter.postponed_ends import catch_up
from cmo_exporter.sessions import Sessions
from cmo_exporter.totals import _Sum
from fastapi import FastAPI

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from prometheus_client.metrics_core import Metric

    Serve = Callable[[object], AbstractContextManager[int]]

WAIT = 60
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


STAGES = {
    "looking for users who have gone": (Sessions, "overdue"),
    "adding up": (_Sum, "read"),
    "writing": (_Family, "text"),
}


def hold_up(stage: str, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Keep scrapes at a stage: one event says that a scrape has come to it, the other lets them go on."""
    reached, go_on = threading.Event(), threading.Event()

    def wait(*arguments: object, **named: object) -> object:
        reached.set()
        assert go_on.wait(WAIT), "who should let it go on waits for the scrape"
        return work(*arguments, **named)

    work = getattr(*STAGES[stage])
    monkeypatch.setattr(*STAGES[stage], wait)
    return reached, go_on


@pytest.mark.parametrize("stage", STAGES)
def test_a_scrape_that_takes_long_holds_up_no_query(
    stage: str, settings: ExporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a query needs is free while users are looked for and numbers added up and made into text."""
    exporter = Exporter(settings)
    texts: list[bytes] = []
    reached, go_on = hold_up(stage, monkeypatch)
    scrape = threading.Thread(target=lambda: texts.append(exporter._exposition.render("text/plain")[0]))
    scrape.start()
    assert reached.wait(WAIT)
    ask(exporter, "live")
    with exporter.session("u1"):
        pass
    go_on.set()
    scrape.join()
    counted = QUERIES_PER_WORKER if stage == "looking for users who have gone" else 0
    assert f'cmo_queries_started_total{{scenario="live"}} {counted}.0' in texts[0].decode()


@pytest.mark.parametrize("stage", STAGES)
def test_a_scrape_that_takes_long_holds_up_no_request(
    stage: str, exporter: Exporter, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = FastAPI()

    @app.post("/query")
    async def answer() -> str:
        query = exporter.current_query()
        with query.component("lightrag"):
            query.cache_result("miss")
        query.answered("lightrag")
        return "answer"

    instrument_fastapi(app, exporter, query_routes=("/query",))
    statuses: list[int] = []
    with serve(app) as port:
        reached, go_on = hold_up(stage, monkeypatch)
        scrape = threading.Thread(
            target=lambda: statuses.append(httpx.get(exporter.metrics_url, timeout=WAIT).status_code)
        )
        scrape.start()
        try:
            assert reached.wait(WAIT)
            for number in range(20):
                session = {"X-CMO-Session": f"u{number % 3}"}
                answered = httpx.post(f"http://127.0.0.1:{port}/query", headers=session, timeout=WAIT / 2)
                assert answered.status_code == 200
            assert not statuses, "the scrape has been under way all the time"
        finally:
            go_on.set()
            scrape.join()
    assert statuses == [200]


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
