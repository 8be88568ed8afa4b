"""What alerts must say, and what recorded series must be called."""

from __future__ import annotations

from typing import Any

import pytest
from cmo_slo.checks.context import OWN_SEVERITIES

from .checking import ERROR, WARNING, in_rules, record, severities

GOOD: dict[str, Any] = {
    "alert": "ShopFailing",
    "expr": "up == 1",
    "for": "5m",
    "labels": {"severity": "page"},
    "annotations": {
        "summary": "The shop is failing",
        "description": "{{ $value | humanizePercentage }} of requests fail.",
        "runbook_url": "docs/runbooks/ShopFailing.md",
        "dashboard_url": "/d/shop",
    },
}


def changed(**fields: Any) -> dict[str, Any]:
    return {**GOOD, **fields}


def annotated(**annotations: str | None) -> dict[str, Any]:
    texts = {**GOOD["annotations"], **annotations}
    return changed(expr="a > 1", annotations={name: text for name, text in texts.items() if text is not None})


def test_an_alert_with_everything_passes() -> None:
    assert in_rules("policy", GOOD, annotated()) == []


@pytest.mark.parametrize(
    ("alert", "severity", "wrong"),
    [
        (changed(labels={}), ERROR, "has no severity"),
        (changed(labels={"severity": "urgent"}), ERROR, "the severity 'urgent' is not one of"),
        (changed(alert="shop_failing"), WARNING, "is not in CamelCase"),
        (changed(alert="Shop failing"), WARNING, "is not in CamelCase"),
        (annotated(summary=None), ERROR, "has no summary"),
        (annotated(summary=" "), ERROR, "has no summary"),
        (annotated(description=None), ERROR, "has no description"),
        (annotated(description="Requests fail."), WARNING, "does not tell the value"),
        (annotated(description="{{ $labels.job }} fails."), WARNING, "does not tell the value"),
        (annotated(runbook_url=None), ERROR, "has no runbook"),
        (annotated(dashboard_url=None), WARNING, "has no link to a dashboard"),
        ({name: value for name, value in GOOD.items() if name != "for"}, WARNING, "has neither `for` nor"),
    ],
)
def test_what_is_missing_is_found(alert: dict[str, Any], severity: object, wrong: str) -> None:
    (found,) = in_rules("policy", alert)
    assert found.severity is severity
    assert wrong in found.wrong


@pytest.mark.parametrize(
    "alert",
    [
        changed(labels={"severity": "critical"}),
        changed(labels={"severity": "{{ $labels.severity }}"}),
        annotated(runbook_url=None, runbook="docs/runbooks/ShopFailing.md"),
        annotated(dashboard_url=None, dashboard="/d/shop"),
        annotated(description='{{ printf "%.2f" $value }} of requests fail.'),
        annotated(description='{{ with query "up" }}{{ . | first | value }}{{ end }} are up.'),
        annotated(description=None, message="{{ $value }} fail."),
        # Its value is always the same, so it tells nothing:
        changed(expr="up == 0", annotations={**GOOD["annotations"], "description": "It is down."}),
        changed(expr="absent(up)", annotations={**GOOD["annotations"], "description": "It is gone."}),
        {**{name: value for name, value in GOOD.items() if name != "for"}, "keep_firing_for": "5m"},
        {**{name: value for name, value in GOOD.items() if name != "for"}, "expr": "rate(a_total[5m]) > 1"},
        # Nobody has to act:
        changed(
            labels={"severity": "info"},
            annotations={"summary": "A load test runs", "description": "It runs."},
        ),
        {
            "alert": "Watchdog",
            "expr": "vector(1)",
            "labels": {"severity": "watchdog"},
            "annotations": {"summary": "Always", "description": "Always fires."},
        },
    ],
)
def test_other_ways_to_say_it_pass(alert: dict[str, Any]) -> None:
    assert in_rules("policy", alert) == []


def test_our_own_severities_are_fewer() -> None:
    foreign = changed(labels={"severity": "critical"})
    assert severities(in_rules("policy", foreign, severities=OWN_SEVERITIES)) == [ERROR]
    assert in_rules("policy", GOOD, severities=OWN_SEVERITIES) == []


@pytest.mark.parametrize("name", ["job:http_requests:rate5m", "slo:cmo_queries_total:checkpoint", "a:b:c"])
def test_names_of_levels_metric_and_operations_pass(name: str) -> None:
    assert in_rules("policy", record(name, "sum(a)")) == []


@pytest.mark.parametrize("name", ["errors", "http_requests:burnrate5m", "a:b:", ":b:c", "a:b:c:d"])
def test_other_names_are_warned_of(name: str) -> None:
    assert severities(in_rules("policy", record(name, "sum(a)"))) == [WARNING]
