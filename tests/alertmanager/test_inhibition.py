"""What silences what, and that pages do not wait for each other: on running Alertmanagers.

amtool cannot test inhibition. A source must be known before a ticket's group_wait is over: a minute in the
committed file, in which Prometheus evaluates every rule at least once; two seconds here, with sources first.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import yaml

from .alerts import alert
from .receiving import HttpReceiver, receiving_http
from .running import Alertmanager, over, route_of, running, stack_configuration, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmo_stack import servers

PAGED: Final = "slo-with-a-page"
LOADED: Final = "slo-under-load-test"
CALM: Final = "slo-of-another-service"
CAUSES: Final = ("CMOLightRAGFailing", "CMOMemoryGrowing")
NEVER_SILENCED: Final = ("CMOErrorBudgetBurning", "CMOScrapeFailing")


@contextmanager
def alertmanager(
    server: servers.Server, directory: Path, **ticket_waits: str
) -> Iterator[tuple[Alertmanager, HttpReceiver]]:
    """An Alertmanager that flushes a group of pages once an hour: what comes at once did not wait for it."""
    with receiving_http() as receiver:
        content = stack_configuration(receiver.port)
        content["route"]["group_interval"] = "1h"
        route_of(content, "tickets").update(ticket_waits)
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(content))
        with running(server, directory / "alertmanager.yml", directory) as manager:
            yield manager, receiver


def fired(name: str, slo: str) -> dict[str, Any]:
    return {"labels": alert(name).labels(slo), "annotations": {"summary": name}}


def tickets(receiver: HttpReceiver) -> set[tuple[str, str]]:
    return {
        told
        for path in ("/tickets", "/model-tickets", "/monitoring-tickets")
        for told in receiver.alerts_at(path)
    }


def test_causes_are_silenced_under_a_page_and_in_a_load_test_and_nothing_else_is(
    alertmanager_server: servers.Server, tmp_path: Path
) -> None:
    with alertmanager(alertmanager_server, tmp_path, group_wait="2s", group_interval="1s") as (
        manager,
        receiver,
    ):
        sources = [fired("CMOLiveQueriesFailing", PAGED), fired("CMOLoadTestRunning", LOADED)]
        manager.post(*sources)
        wait_until("the sources being known", lambda: len(manager.alerts()) == 2)
        manager.post(
            *(fired(name, slo) for slo in (PAGED, LOADED) for name in (*CAUSES, *NEVER_SILENCED)),
            fired("CMOLightRAGFailing", CALM),
            fired("CMOServiceDown", PAGED),
            fired("CMOLiveQueriesHanging", LOADED),
        )
        expected = {(name, slo) for slo in (PAGED, LOADED) for name in NEVER_SILENCED}
        expected.add(("CMOLightRAGFailing", CALM))
        wait_until("the tickets that nothing silences", lambda: tickets(receiver) >= expected)
        _another_wait_is_over(manager, receiver)

        causes = {(name, slo) for slo in (PAGED, LOADED) for name in CAUSES}
        assert tickets(receiver) & causes == set()
        assert _silenced(manager) == causes
        paged = {
            ("CMOLiveQueriesFailing", PAGED),
            ("CMOServiceDown", PAGED),
            ("CMOLiveQueriesHanging", LOADED),
        }
        wait_until("every page, load test or not", lambda: set(receiver.alerts_at("/alerts")) == paged)

        manager.post(*(over(source) for source in [*sources, fired("CMOServiceDown", PAGED)]))
        wait_until(
            "the tickets of the causes under the page",
            lambda: tickets(receiver) >= causes - {(name, LOADED) for name in CAUSES},
        )
        assert {told for told in _silenced(manager) if told[1] == PAGED} == set()
        assert _silenced(manager) == {(name, LOADED) for name in CAUSES}, (
            "a page of its own silences it still"
        )
        manager.post(over(fired("CMOLiveQueriesHanging", LOADED)))
        wait_until("the tickets of the causes in the load test", lambda: tickets(receiver) >= causes)
    assert {request.path for request in receiver.requests} == {
        "/alerts",
        "/tickets",
        "/model-tickets",
        "/monitoring-tickets",
    }, "nobody is told of a load test"


def test_pages_of_two_alerts_come_at_once(alertmanager_server: servers.Server, tmp_path: Path) -> None:
    """Each in a group of its own, or the second would wait for the hour of the first one's group_interval."""
    with alertmanager(alertmanager_server, tmp_path) as (manager, receiver):
        manager.post(fired("CMOLiveQueriesFailing", CALM), fired("CMOLiveQueriesSlow", CALM))
        wait_until("both pages", lambda: len(receiver.alerts_at("/alerts")) == 2)
        manager.post(fired("CMOServiceDown", CALM))
        wait_until("a third", lambda: len(receiver.alerts_at("/alerts")) == 3)
    assert [len(notification["alerts"]) for notification in receiver.at("/alerts")] == [1, 1, 1]


def _another_wait_is_over(manager: Alertmanager, receiver: HttpReceiver) -> None:
    """A ticket that is fired now has come, so those before it would have come too."""
    manager.post(fired("CMOCacheHitRateLow", CALM))
    wait_until("a later ticket", lambda: ("CMOCacheHitRateLow", CALM) in tickets(receiver))


def _silenced(manager: Alertmanager) -> set[tuple[str, str]]:
    return {
        (each["labels"]["alertname"], each["labels"]["slo"])
        for each in manager.alerts()
        if each["status"]["inhibitedBy"]
    }
