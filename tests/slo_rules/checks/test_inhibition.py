"""Inhibitions held against the alerts that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cmo_slo.checks.alertmanager_config import AlertmanagerConfigError, read_alertmanager
from cmo_slo.checks.context import LabelCondition

from .checking import ERROR, WARNING, in_rules, severities

if TYPE_CHECKING:
    from cmo_slo.checks import Finding

TEMPLATE = """\
route: {{receiver: pager}}
receivers: [{{name: pager}}]
inhibit_rules:
  - source_matchers: [{source}]
    target_matchers: [{target}]
    equal: [{equal}]
"""


def configuration(source: str = 'severity="page"', target: str = 'role="cause"', equal: str = "slo") -> str:
    return TEMPLATE.format(source=f"'{source}'", target=f"'{target}'", equal=equal)


def alert(name: str, expression: str, **labels: str) -> dict[str, Any]:
    return {"alert": name, "expr": expression, "labels": labels}


def inhibition(text: str, *rules: dict[str, Any]) -> list[Finding]:
    return in_rules("inhibition", *rules, alertmanager=read_alertmanager(text, "alertmanager.yml"))


PAGE = alert("ShopFailing", "sum(a) > 1", severity="page", slo="shop")
CAUSE = alert("CacheCold", "sum(b) > 1", severity="ticket", role="cause", slo="shop")


def test_labels_on_both_sides_are_well() -> None:
    assert inhibition(configuration(), PAGE, CAUSE) == []
    assert inhibition("route: {receiver: pager}", PAGE, CAUSE) == []
    assert in_rules("inhibition", PAGE, CAUSE) == []


def test_a_label_absent_on_both_sides_silences_everything() -> None:
    (found,) = inhibition(configuration(equal="slo, cluster"), PAGE, CAUSE)
    assert found.severity is ERROR
    assert str(found).startswith(
        "alertmanager.yml:4: inhibit_rules[0]: the label 'cluster' of `equal` is on neither"
    )
    assert "ShopFailing nor CacheCold, which counts as equal" in found.wrong


def test_a_label_absent_on_one_side_silences_nothing() -> None:
    bare = alert("CacheCold", "sum(b) > 1", severity="ticket", role="cause")
    found = inhibition(configuration(), PAGE, bare)
    assert severities(found) == [ERROR]
    assert "is on no CacheCold, so that as a target it is never equal to a source's" in found[0].wrong
    found = inhibition(configuration(), PAGE, CAUSE, {**bare, "alert": "QueueFull"})
    assert severities(found) == [WARNING], "other targets have it"


@pytest.mark.parametrize(
    ("source", "target"), [('severity="pager"', 'role="cause"'), ('severity="page"', "role=x")]
)
def test_matchers_that_match_no_alert_are_errors(source: str, target: str) -> None:
    found = inhibition(configuration(source, target), PAGE, CAUSE)
    assert severities(found) == [ERROR]
    assert "no alert is a" in found[0].wrong


def test_an_inhibition_without_equal_is_warned_of() -> None:
    assert severities(inhibition(configuration(equal=""), PAGE, CAUSE)) == [WARNING]


@pytest.mark.parametrize(
    ("expression", "label", "there"),
    [
        ("a > 1", "cluster", True),  # of somebody's series nothing is known
        ("sum(a) > 1", "cluster", False),
        ("sum by (cluster) (a) > 1", "cluster", True),
        ("sum without (cluster) (a) > 1", "cluster", False),
        ('a{cluster="x"} > 1', "cluster", True),
        ("cmo_queue_depth > 1", "component", True),
        ("cmo_queue_depth > 1", "scenario", False),
        ("cmo_queue_depth > 1", "instance", True),
        ("sum by (component) (cmo_queue_depth) > 1", "component", True),
        ("sum by (scenario) (cmo_queue_depth) > 1", "scenario", False),
        ("topk(1, cmo_queue_depth) > 1", "component", True),
        ("sum(a) > 1 and cmo_queue_depth > 1", "component", False),
        ("cmo_queue_depth > 1 and sum(a) > 1", "component", True),
        ("sum(a) > 1 or cmo_queue_depth > 1", "component", True),
        (
            "cmo_queue_depth * on (component) group_left (cluster) sum by (component, cluster) (a)",
            "cluster",
            True,
        ),
        ("cmo_queue_depth / on (component) cmo_queue_depth", "instance", False),
        ("cmo_queue_depth / ignoring (component) cmo_queue_depth", "component", False),
        ("2 * cmo_queue_depth", "component", True),
        ('absent(up{job="cmo"})', "job", True),
        ('absent(up{job="cmo"})', "instance", False),
        ("up == 0", "instance", True),
        ("up == 0", "cluster", False),
        ("histogram_quantile(0.9, sum by (le, zone) (rate(x_bucket[5m]))) > 1", "zone", True),
        ("histogram_quantile(0.9, sum by (le, zone) (rate(x_bucket[5m]))) > 1", "le", False),
        ('label_replace(sum(a), "zone", "$1", "x", "y") > 1', "zone", True),
        ("vector(1)", "job", False),
        ("a > 1", "alertname", True),
    ],
)
def test_labels_come_from_the_expression_too(expression: str, label: str, there: bool) -> None:
    target = alert("CacheCold", expression, severity="ticket", role="cause")
    source = alert("ShopFailing", "a > 1", severity="page")
    assert (inhibition(configuration(equal=label), source, target) == []) is there


def test_labels_of_recorded_series_are_followed() -> None:
    target = alert("CacheCold", "job:cold:sum > 1", role="cause")
    recorded = {"record": "job:cold:sum", "expr": "sum by (zone) (a)", "labels": {"slo": "shop"}}
    source = alert("ShopFailing", "a > 1", severity="page", role="symptom")
    assert inhibition(configuration(equal="zone, slo"), source, recorded, target) == []
    assert severities(inhibition(configuration(equal="job"), source, recorded, target)) == [ERROR]


def test_an_empty_label_removes_it() -> None:
    target = alert("CacheCold", "a > 1", role="cause", slo="")
    assert severities(inhibition(configuration(), PAGE, target)) == [ERROR]


def test_a_label_that_most_rules_set_is_not_looked_for_on_series() -> None:
    untold = alert("QueueFull", "a > 1", severity="ticket", slo="shop")
    (found,) = inhibition(configuration('severity="pager"'), PAGE, CAUSE, untold)
    assert "no alert is a source" in found.wrong
    found_none = inhibition(configuration('zone="a"'), PAGE, CAUSE, alert("Other", "a > 1", slo="shop"))
    assert found_none == [], "no rule sets the zone, so the series may have it"
    zoned = alert("Zoned", "sum(a) > 1", zone="b", slo="shop")
    other = alert("Other", "a > 1", slo="shop")
    assert inhibition(configuration('zone="a"'), PAGE, CAUSE, zoned, other) == [], (
        "one rule sets it, not most"
    )


def test_labels_from_a_template_may_match_anything() -> None:
    target = alert("CacheCold", "a > 1", role="{{ $labels.role }}", slo="shop")
    assert inhibition(configuration(), PAGE, target) == []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("source_matchers: ['severity=\"page\"']", [("severity", "=", "page")]),
        ("source_matchers: [severity=page, 'role!~a|b']", [("severity", "=", "page"), ("role", "!~", "a|b")]),
        (
            'source_matchers: \'{severity="page", role=~"a,b"}\'',
            [("severity", "=", "page"), ("role", "=~", "a,b")],
        ),
        ("source_match: {severity: page}", [("severity", "=", "page")]),
        ("source_match_re: {severity: page|ticket}", [("severity", "=~", "page|ticket")]),
    ],
)
def test_matchers_are_read_in_every_form(written: str, read: list[tuple[str, str, str]]) -> None:
    rule = read_alertmanager(f"inhibit_rules:\n- {written}\n  equal: [slo]", "a.yml").inhibit_rules[0]
    assert rule.source == tuple(LabelCondition(*one) for one in read)
    assert rule.equal == ("slo",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not YAML"),
        ("inhibit_rules: 3", "a.yml:1: `inhibit_rules` is no list"),
        ("inhibit_rules: [3]", "an inhibition is no mapping"),
        ("inhibit_rules: [{source_matchers: [severity]}]", "'severity' is no matcher"),
        ("[" * 1000, "nested more than 50 deep"),
        ("a: &a [*a, *a]", None),
        ("", None),
    ],
)
def test_a_configuration_that_is_none_is_told(text: str, expected: str | None) -> None:
    if expected is None:
        assert read_alertmanager(text, "a.yml").inhibit_rules == ()
        return
    with pytest.raises(AlertmanagerConfigError, match=expected.replace("[", r"\[")):
        read_alertmanager(text, "a.yml")
