"""What an alert links to is there, and is the page that answers first."""

from __future__ import annotations

import pytest
from cmo_dashboards import shipped_dashboards
from cmo_slo.compile import compile_rules
from cmo_slo.objectives import find_objectives, load_objectives

ALERTS = {
    rule.alert: rule
    for group in compile_rules(load_objectives(find_objectives("cmo-015")))
    for rule in group.rules
    if rule.alert
}


@pytest.mark.parametrize("alert", ALERTS)
def test_the_dashboard_of_an_alert_is_shipped(alert: str) -> None:
    uid = ALERTS[alert].annotations["dashboard_url"].removeprefix("/d/")
    assert uid in {board.uid for board in shipped_dashboards()}


@pytest.mark.parametrize(
    ("alert", "uid"),
    [
        ("CMOLiveQueriesFailing", "cmo-overview"),
        ("CMOErrorBudgetBurning", "cmo-015"),
        ("CMOLightRAGFailing", "cmo-components"),
        ("CMOBreakerOpen", "cmo-components"),
        ("CMOMemoryGrowing", "cmo-resources"),
        ("CMORulesFailing", "cmo-monitor"),
        ("CMOLoadTestRunning", "cmo-load-test"),
    ],
)
def test_it_answers_what_the_alert_asks(alert: str, uid: str) -> None:
    assert ALERTS[alert].annotations["dashboard_url"] == f"/d/{uid}"
