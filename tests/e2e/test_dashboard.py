"""Every query of every panel, run against the stack that has just been under load."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cmo_dashboards import Macros, queries, shipped_dashboards

from .conftest import query, wait_until

if TYPE_CHECKING:
    from cmo_dashboards import PanelQuery

    from .conftest import RecordedRun

SCRAPES_OF_LIVE_TRAFFIC = 8

PANEL_QUERIES = [
    one
    for dashboard in shipped_dashboards()
    for one in queries(dashboard, Macros(range="15m", rate_interval="4s", interval="1s"))
]


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
    asked = 'scenario:slo_total_events:sum{scenario="live", objective="success", window="1h"} > 0'
    wait_until("live traffic in the long windows", lambda: bool(query(prometheus_url, asked)))


@pytest.mark.parametrize("panel_query", PANEL_QUERIES, ids=lambda one: one.place)
def test_a_panel_shows_plausible_values(report_run: RecordedRun, panel_query: PanelQuery) -> None:
    values = _values(report_run.prometheus_urls["1s"], panel_query)
    if not panel_query.may_be_empty:
        assert values, f"{panel_query.panel}: {panel_query.expression} returns nothing"
    outside = [value for value in values if not panel_query.lowest <= value <= panel_query.highest]
    assert not outside, f"{panel_query.panel} ({panel_query.unit}): {outside[:5]}"


def _values(prometheus_url: str, panel_query: PanelQuery) -> list[float]:
    now = time.time()
    window: dict[str, Any] = (
        {"time": now} if panel_query.instant else {"start": now - 300, "end": now, "step": 1}
    )
    path = "query" if panel_query.instant else "query_range"
    answer = requests.get(
        f"{prometheus_url}/api/v1/{path}", params={"query": panel_query.expression, **window}, timeout=30
    )
    assert answer.ok, f"{panel_query.expression}: {answer.text}"
    result = answer.json()["data"]["result"]
    points = (
        [series["value"] for series in result]
        if panel_query.instant
        else [p for s in result for p in s["values"]]
    )
    return [float(value) for _, value in points if value != "NaN"]
