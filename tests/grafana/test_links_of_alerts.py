"""What an alert links to is there, and is the page that answers first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
from cmo_dashboards import shipped_dashboards
from cmo_dashboards.document import panels
from cmo_exporter import catalogue
from cmo_slo.compile import compile_rules
from cmo_slo.objectives import find_objectives, load_objectives

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUPS: Final = compile_rules(load_objectives(find_objectives("cmo-015")))
RULES: Final = [rule for group in GROUPS for rule in group.rules]
ALERTS: Final = {rule.alert: rule for rule in RULES if rule.alert}
BOARDS: Final = {board.uid: board for board in shipped_dashboards()}
NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
METRICS: Final = {
    name: metric.name for metric in catalogue.CATALOGUE for name in (metric.name, *metric.series_names)
}
OF_THE_MONITOR: Final = ("up", "prometheus_", "alertmanager_")
SEEN_AS: Final = {
    "CMOProbeFailing": catalogue.PROBE_UP.name,  # the last result of what it counts
    "CMOWatchdog": "CMOWatchdog",  # nothing but itself
}


def _metrics(expressions: Iterable[str]) -> set[str]:
    """Metrics that expressions read, also by way of what the rules record; and the names of alerts."""
    waiting = list(expressions)
    seen: set[str] = set()
    while waiting:
        for name in set(NAME.findall(waiting.pop())) - seen:
            seen.add(name)
            waiting += [rule.expression for rule in RULES if rule.record == name]
    read = {METRICS[name] for name in seen if name in METRICS}
    return read | {name for name in seen if name.startswith(OF_THE_MONITOR) or name in ALERTS}


SHOWN: Final = {
    uid: _metrics(target["expr"] for panel in panels(board.document) for target in panel["targets"])
    for uid, board in BOARDS.items()
}


def _linked(alert: str) -> str:
    return ALERTS[alert].annotations["dashboard_url"].removeprefix("/d/")


@pytest.mark.parametrize("alert", ALERTS)
def test_the_dashboard_of_an_alert_shows_what_it_is_about(alert: str) -> None:
    asks = {SEEN_AS[alert]} if alert in SEEN_AS else _metrics([ALERTS[alert].expression])
    assert asks
    assert asks & SHOWN[_linked(alert)], f"{alert} links to {_linked(alert)}, which shows none of {asks}"


@pytest.mark.parametrize(
    ("alert", "uid"),
    [
        ("CMOLiveQueriesFailing", "cmo-overview"),
        ("CMOErrorBudgetBurning", "cmo-015"),
        ("CMOQueriesCancelled", "cmo-overview"),
        ("CMOProbeFailing", "cmo-overview"),
        ("CMOLightRAGFailing", "cmo-components"),
        ("CMOBreakerOpen", "cmo-components"),
        ("CMOCostHigh", "cmo-resources"),
        ("CMOMemoryGrowing", "cmo-resources"),
        ("CMORulesFailing", "cmo-monitor"),
        ("CMOLoadTestRunning", "cmo-load-test"),
    ],
)
def test_it_answers_what_the_alert_asks(alert: str, uid: str) -> None:
    assert ALERTS[alert].annotations["dashboard_url"] == f"/d/{uid}"


def test_the_monitor_and_its_alert_look_at_the_same_groups_of_rules() -> None:
    """Others' groups in a shared Prometheus or vmalert are no business of either."""
    asked = [ALERTS["CMORulesFailing"].expression]
    asked += [
        target["expr"] for panel in panels(BOARDS["cmo-monitor"].document) for target in panel["targets"]
    ]
    for metric, ours in (
        (r"prometheus_rule_\w+", 'rule_group=~".*;cmo-015-.+"'),
        (r"vmalert_(?:iteration|recording|alerting)_\w+", 'group=~"cmo-015-.+"'),
    ):
        of_rules = [found for one in asked for found in re.findall(rf"{metric}(\{{[^}}]*\}})?", one)]
        assert len(of_rules) > 6
        assert {selected for selected in of_rules if ours not in selected} == set()
