"""Every alert does what its generated tests say, by every promtool, and the tests notice when it does not."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from cmo_slo.compile import compile_rules
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_slo.rule import as_document
from cmo_slo.rule_tests import generate_rule_tests
from cmo_stack import servers

from .promtool_runs import SLO_RULES, complaints, instead_of, own_expression, read, rule_of, run, unnoticed
from .rule_slice import rules_of_alert

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmo_slo.rule_tests import RuleTestFile

RULES = read("rules/cmo-015.yml")
ALERTS = [path.stem for path in sorted((SLO_RULES / "rule_tests").glob("CMO*.yml"))]
OBJECTIVES = load_objectives(find_objectives("cmo-015"))
PROMTOOLS = servers.installed("promtool")
# Those whose windows follow from scrapes; missing traffic has quarters of an hour, at any interval.
PAGES = [alert for alert in ALERTS if alert.startswith(("CMOLive", "CMOService"))]
# Alerts of one kind are compiled alike and tested alike, so that limits are tried in one of each.
OF_OBJECTIVES = [
    alert
    for objective in OBJECTIVES.objectives
    for alert in (objective.page, objective.ticket)
    if alert is not None
]
ONE_OF_EACH_KIND = {
    alert.alert for alert in {type(alert): alert for alert in (*OF_OBJECTIVES, *OBJECTIVES.alerts)}.values()
}


def committed(alert: str) -> dict[str, Any]:
    return read(f"rule_tests/{alert}.yml")


@cache
def at_every_second() -> tuple[dict[str, Any], dict[str, RuleTestFile]]:
    """The rules for scrapes every second, and their tests."""
    rules = as_document(compile_rules(OBJECTIVES, "1s"))
    return rules, {test.alert: test for test in generate_rule_tests(OBJECTIVES, "1s")}


def test_every_alert_has_a_test_and_every_test_an_alert() -> None:
    assert (
        sorted({rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule})
        == ALERTS
    )


SITUATIONS = {
    "just above its limit": "just (above|more)|more than the limit|as many .* minimum|is down: it fires",
    "just below it": "at the limit|less|below|as many as the limit|half of the scrapes|now and then",
    "it is over": r"\bends?\b|has ended|is over",
    "nothing is known": "no series at all|no target at all|without any series",
    "idle": "idle|nobody asks",
    "counter reset": "counter reset",
    "restart": "restart",
}
# What these look at are gauges, start times and scrapes, which have no resets.
WITHOUT_COUNTERS = {
    "CMOBreakerOpen",
    "CMOMemoryGrowing",
    "CMORestartingOften",
    "CMOScrapeFailing",
    "CMOServiceDown",
}
# It has no limit, is never over, and knows of nothing.
ALWAYS = {"just above its limit", "just below it", "it is over", "idle", "counter reset"}
# It is told of one query, so that just above and just below are one and none.
OF_ONE = {"just above its limit", "just below it"}


@pytest.mark.parametrize("alert", ALERTS)
def test_it_is_tested_in_every_situation(alert: str) -> None:
    names = [case["name"] for case in committed(alert)["tests"]]
    missing = {
        situation
        for situation, words in SITUATIONS.items()
        if not any(re.search(words, name) for name in names)
    }
    without = {"counter reset"} if alert in WITHOUT_COUNTERS else set()
    expected = {"CMOWatchdog": ALWAYS, "CMOLoadTestRunning": OF_ONE}.get(alert, without)
    assert missing == expected


@pytest.mark.parametrize("promtool", PROMTOOLS, ids=lambda server: server.label.replace(" ", "-"))
@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_does_what_its_tests_say(alert: str, promtool: servers.Server, tmp_path: Path) -> None:
    assert complaints(promtool, RULES, alert, committed(alert), tmp_path) == ""


@pytest.mark.parametrize("alert", PAGES)
def test_a_page_does_so_at_scrapes_every_second(alert: str, tmp_path: Path) -> None:
    rules, tests = at_every_second()
    document = tests[alert].document("rules.yml")
    assert complaints(PROMTOOLS[-1], rules, alert, document, tmp_path) == ""


@pytest.mark.parametrize("promtool", PROMTOOLS, ids=lambda server: server.label.replace(" ", "-"))
def test_what_is_recorded_is_what_happened(promtool: servers.Server, tmp_path: Path) -> None:
    events = read("rule_tests/events.yml")
    named = {None, "CMOLiveQueriesFailing"}
    recording = {
        "groups": [
            {**group, "rules": [rule for rule in group["rules"] if rule.get("alert") in named]}
            for group in RULES["groups"]
            if not group["name"].endswith(("hourly", "long-windows", "tickets"))
        ]
    }
    assert run(promtool, recording, events, tmp_path) == ""


# --- the tests notice ------------------------------------------------------------------------------


LIMIT = re.compile(r"(?<=[<>=] )(\d+(?:\.\d+)?)(?=\n|$)")

CONDITION = re.compile(r"\n *and\b.*\n(.*)")

# The lines on last week: below, with a week of its own.
BY_HAND = {"CMONoLiveTraffic": range(3, 8)}


def mistakes(rule: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same alert with a mistake of every kind, but for those of its limits."""
    texts = {**rule["annotations"], "description": rule["annotations"]["description"] + "!"}
    wrong = {
        "never fires": {**rule, "expr": "vector(1) > 2"},
        "always fires": {**rule, "expr": "vector(1)"},
        "says something else": {**rule, "annotations": texts},
        "has another urgency": {**rule, "labels": {**rule["labels"], "severity": "none"}},
    }
    if rule["expr"] == "vector(1)":
        del wrong["always fires"]
    times = {field for field in ("for", "keep_firing_for") if field in rule}
    return wrong | {f"{field} is gone": {**rule, field: "0s"} for field in times}


def places(pattern: re.Pattern[str], rule: dict[str, Any]) -> Iterator[tuple[re.Match[str], int]]:
    """Where the expression of a rule has something, each with its line."""
    for found in pattern.finditer(rule["expr"]):
        line = rule["expr"].count("\n", 0, found.start(1)) + 1
        if line not in BY_HAND.get(rule["alert"], ()):
            yield found, line


def with_instead(rule: dict[str, Any], found: re.Match[str], text: str) -> dict[str, Any]:
    return {**rule, "expr": rule["expr"][: found.start()] + text + rule["expr"][found.end() :]}


def missing_conditions(rule: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same alert without one of the conditions of a line that it has beside others."""
    return {
        f"line {line} is gone": with_instead(rule, found, "")
        for found, line in places(CONDITION, rule)
        if found[1].count("(") == found[1].count(")")
    }


def wrong_limits(rule: dict[str, Any], factor: float) -> dict[str, dict[str, Any]]:
    """Half or twice each limit, one place at a time."""
    return {
        f"{found[0]} in line {line}": with_instead(rule, found, f"{float(found[0]) * factor:g}")
        for found, line in places(LIMIT, rule)
        if float(found[0]) > 0
    }


@pytest.mark.parametrize("alert", ALERTS)
def test_they_notice_every_mistake(alert: str, tmp_path: Path) -> None:
    """But for the conditions of other pages, which are left out here: promtool takes long for their rules."""
    right = {**rule_of(RULES, alert), "expr": own_expression(RULES, alert)}
    rules = rules_of_alert(instead_of(RULES, alert, [right]), alert)

    def left(wrong: dict[str, dict[str, Any]]) -> set[str]:
        return unnoticed(PROMTOOLS[-1], rules, committed(alert), wrong, tmp_path) if wrong else set()

    if alert not in ONE_OF_EACH_KIND:
        assert left(mistakes(right)) == set()
        return
    # Of a limit that is another it is enough that one of two others is noticed.
    doubled = wrong_limits(right, 2.0)
    once = left(mistakes(right) | missing_conditions(right) | wrong_limits(right, 0.5))
    assert once - set(doubled) == set()
    assert left({what: doubled[what] for what in once}) == set()


# --- last week, by an alert alone: a week of all rules would take promtool minutes -------------------


STEPS = 7 * 24 * 240
STARTED = 'instance:slo_started_queries:increase{slo="cmo-015",scenario="live",job="cmo",instance="a"}'


def last_week(events_an_hour: int, *, recorded: int, **changes: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rule of missing traffic by itself, and a week in which the hour around the end had so many queries.

    ``recorded`` is how many of the last evaluations know that nobody has asked.
    """
    alone = {
        "groups": [
            {**group, "rules": [rule for rule in group["rules"] if rule.get("alert") == "CMONoLiveTraffic"]}
            for group in RULES["groups"]
        ]
    }
    live = 'slo="cmo-015",scenario="live"'
    series = {
        f'scenario:slo_total_events:sum{{{live},objective="success",window="1h"}}': f"{events_an_hour}x600",
        STARTED: f"_x{STEPS - recorded} 0x{recorded + 300}",
        'up{job="cmo",instance="a"}': f"_x{STEPS - 400} 1x800",
        **changes,
    }
    test = {
        "evaluation_interval": "30m",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count(ALERTS{alertname="CMONoLiveTraffic",alertstate="firing"})',
                        "eval_time": "7d",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                ],
            }
        ],
    }
    return {"groups": [group for group in alone["groups"] if group["rules"]]}, test


@pytest.mark.parametrize("promtool", PROMTOOLS, ids=lambda server: server.label.replace(" ", "-"))
@pytest.mark.parametrize(
    ("fires", "events_an_hour", "recorded", "changes"),
    [
        pytest.param(True, 60, 200, {}, id="as many as expected"),
        pytest.param(False, 59, 200, {}, id="one less"),
        pytest.param(False, 60, 160, {}, id="too little is known of the last quarter of an hour"),
        pytest.param(False, 60, 200, {STARTED: f"_x{STEPS - 200} 0x170 1 0x60"}, id="somebody has asked"),
        pytest.param(False, 60, 200, {'up{job="cmo",instance="a"}': "0x50000"}, id="the service is gone"),
    ],
)
def test_missing_traffic_is_known_from_last_week(
    fires: bool,
    events_an_hour: int,
    recorded: int,
    changes: dict[str, str],
    promtool: servers.Server,
    tmp_path: Path,
) -> None:
    rules, test = last_week(events_an_hour, recorded=recorded, **changes)
    complaint = run(promtool, rules, test, tmp_path)
    assert ("FAILED" in complaint) is not fires, complaint
    if not fires:
        assert "got: nil" in complaint, complaint


@pytest.mark.parametrize(
    ("limit", "another", "events_an_hour", "recorded", "fires"),
    [
        pytest.param(">= 60", ">= 30", 59, 200, True, id="fewer are expected"),
        pytest.param(">= 60", ">= 120", 60, 200, False, id="more are expected"),
        pytest.param(">= 48", ">= 24", 60, 160, True, id="less is known"),
        pytest.param(">= 48", ">= 96", 60, 200, False, id="more than there is must be known"),
    ],
)
def test_last_week_notices_a_limit_that_is_another(
    limit: str, another: str, events_an_hour: int, recorded: int, fires: bool, tmp_path: Path
) -> None:
    rules, test = last_week(events_an_hour, recorded=recorded)
    right = rule_of(rules, "CMONoLiveTraffic")
    wrong = {**right, "expr": right["expr"].replace(limit, another)}
    assert wrong != right
    complaint = run(PROMTOOLS[-1], instead_of(rules, "CMONoLiveTraffic", [wrong]), test, tmp_path)
    assert ("FAILED" in complaint) is not fires, complaint
