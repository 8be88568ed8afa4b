"""What `cmo dashboards check` finds on a real stack: before it was asked anything, and under load."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest
import requests
from cmo_dashboards import Macros, queries, shipped_dashboards
from cmo_dashboards.asking import Asker
from cmo_dashboards.live import premises, wrong_under_load
from cmo_dashboards.shipped import shipped_objectives

from .conftest import query, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards import PanelQuery

    from .conftest import RecordedRun

SCRAPES_OF_LIVE_TRAFFIC = 8
SETTLED_SECONDS = 5.0
"""Longer ago than the moment that `cmo dashboards check` asks for."""
MACROS: Final = Macros(range="15m", rate_interval="4s", interval="1s")
PANEL_QUERIES = [one for dashboard in shipped_dashboards() for one in queries(dashboard, MACROS)]


@pytest.fixture(scope="module", autouse=True)
def live_traffic(report_run: RecordedRun) -> None:
    """One live user, who asks until enough scrapes have seen it: some panels are about live users."""
    prometheus_url = report_run.prometheus_urls["1s"]
    headers = {"X-CMO-Session": "live-user"}

    def seen() -> bool:
        question = {"question": "What does citrulline tell about gut mass?"}
        requests.post(f"{report_run.service_url}/query", json=question, headers=headers, timeout=60)
        held = query(prometheus_url, 'count_over_time((cmo_active_users{scenario="live"} > 0)[15m:1s])')
        return bool(held) and float(held[0]["value"][1]) >= SCRAPES_OF_LIVE_TRAFFIC

    wait_until("live traffic in Prometheus", seen)
    events = 'scenario:slo_total_events:sum{scenario="live", objective="success", window="1h"} > 0'
    asked = f"scenario:slo_burn_rate:ratio and {events}"

    def recorded() -> bool:
        return bool(query(prometheus_url, asked, time=time.time() - SETTLED_SECONDS))

    wait_until("live traffic in the long windows", recorded)


@pytest.fixture(scope="module")
def asker(report_run: RecordedRun, live_traffic: None) -> Iterator[Asker]:
    """One that asks all at one moment, as the command does."""
    with Asker(report_run.prometheus_urls["1s"], MACROS) as asker:
        asker.require(premises(shipped_objectives(), MACROS.rate_interval))
        yield asker


def test_nothing_looked_well_before_anybody_asked(report_run: RecordedRun) -> None:
    said = report_run.dashboards_when_idle
    assert (said.stdout, said.status) == ("", 0), said.stderr


@pytest.mark.parametrize("panel_query", PANEL_QUERIES, ids=lambda one: one.place)
def test_a_panel_shows_plausible_values(asker: Asker, panel_query: PanelQuery) -> None:
    assert list(wrong_under_load([panel_query], asker.ask)) == []
