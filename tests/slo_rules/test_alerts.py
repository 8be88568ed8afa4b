"""Every alert does what its generated tests say, by every promtool, and the tests notice when it does not."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cmo_slo.compile import compile_rules
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_slo.rule import as_document
from cmo_slo.rule_tests import generate_rule_tests
from cmo_stack import servers

from .rule_slice import rules_of_alert

ROOT = Path(__file__).resolve().parents[2]
RULES = yaml.safe_load((ROOT / "slo_rules/rules/cmo-015.yml").read_text(encoding="utf-8"))
ALERTS = [path.stem for path in sorted((ROOT / "slo_rules/rule_tests").glob("CMO*.yml"))]
OBJECTIVES = load_objectives(find_objectives("cmo-015"))
PROMTOOLS = servers.installed("promtool")
PAGES = [alert for alert in ALERTS if alert.startswith(("CMOLive", "CMOService", "CMONoLive"))]


def run(promtool: servers.Server, rules: dict[str, Any], test: dict[str, Any], directory: Path) -> str:
    """What promtool says against a test of some rules; nothing when all of it holds."""
    (directory / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    (directory / "test.yml").write_text(
        yaml.safe_dump({**test, "rule_files": ["rules.yml"]}), encoding="utf-8"
    )
    done = subprocess.run(
        [str(promtool.path), "test", "rules", "test.yml"],
        cwd=directory,
        env={**os.environ, **promtool.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return "" if done.returncode == 0 else done.stdout + done.stderr


def committed(alert: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(
        (ROOT / f"slo_rules/rule_tests/{alert}.yml").read_text(encoding="utf-8")
    )
    return document


def test_every_alert_has_a_test_and_every_test_an_alert() -> None:
    assert (
        sorted({rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule})
        == ALERTS
    )


@pytest.mark.parametrize("promtool", PROMTOOLS, ids=lambda server: server.label.replace(" ", "-"))
@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_does_what_its_tests_say(alert: str, promtool: servers.Server, tmp_path: Path) -> None:
    assert run(promtool, rules_of_alert(RULES, alert), committed(alert), tmp_path) == ""


@pytest.mark.parametrize("alert", PAGES)
def test_a_page_does_so_at_scrapes_every_second(alert: str, tmp_path: Path) -> None:
    rules = as_document(compile_rules(OBJECTIVES, "1s"))
    test = next(test for test in generate_rule_tests(OBJECTIVES, "1s") if test.alert == alert)
    assert run(PROMTOOLS[-1], rules_of_alert(rules, alert), test.document("rules.yml"), tmp_path) == ""


@pytest.mark.parametrize("promtool", PROMTOOLS, ids=lambda server: server.label.replace(" ", "-"))
def test_what_is_recorded_is_what_happened(promtool: servers.Server, tmp_path: Path) -> None:
    events = yaml.safe_load((ROOT / "slo_rules/rule_tests/events.yml").read_text(encoding="utf-8"))
    recording = {"groups": [group for group in RULES["groups"] if not group["name"].endswith("tickets")]}
    assert run(promtool, recording, events, tmp_path) == ""


# --- the tests notice ------------------------------------------------------------------------------


def broken(rules: dict[str, Any], alert: str, **changes: Any) -> dict[str, Any]:
    """The same rules with one alert's rule changed."""

    def changed(rule: dict[str, Any]) -> dict[str, Any]:
        return {**rule, **changes} if rule.get("alert") == alert else rule

    return {
        "groups": [
            {**group, "rules": [changed(rule) for rule in group["rules"]]} for group in rules["groups"]
        ]
    }


def expression(rules: dict[str, Any], alert: str) -> str:
    (found,) = (
        rule["expr"] for group in rules["groups"] for rule in group["rules"] if rule.get("alert") == alert
    )
    return str(found)


@pytest.mark.parametrize("alert", ALERTS)
def test_they_notice_an_alert_that_never_fires(alert: str, tmp_path: Path) -> None:
    rules = rules_of_alert(RULES, alert)
    never = broken(rules, alert, expr=f"({expression(rules, alert)}) and on () vector(1) > 2")
    assert "FAILED" in run(PROMTOOLS[-1], never, committed(alert), tmp_path)


@pytest.mark.parametrize("alert", [alert for alert in ALERTS if alert != "CMOWatchdog"])
def test_they_notice_an_alert_that_always_fires(alert: str, tmp_path: Path) -> None:
    always = broken(rules_of_alert(RULES, alert), alert, expr="vector(1)")
    assert "FAILED" in run(PROMTOOLS[-1], always, committed(alert), tmp_path)


def waits(field: str) -> list[str]:
    """Alerts whose rule has a time of that name, and whose tests see it to the step."""
    coarse = {"CMOBreakerOpen", "CMOMemoryGrowing", "CMOScrapeFailing", "CMOCostHigh", "CMOSeriesDropped"}
    coarse |= {"CMORulesFailing", "CMONotificationsFailing", "CMORestartingOften"}
    return [
        rule["alert"]
        for group in RULES["groups"]
        for rule in group["rules"]
        if "alert" in rule and field in rule and rule["alert"] not in coarse
    ]


@pytest.mark.parametrize("alert", waits("for"))
def test_they_notice_a_for_that_is_gone(alert: str, tmp_path: Path) -> None:
    hasty = broken(rules_of_alert(RULES, alert), alert, **{"for": "0s"})
    assert "FAILED" in run(PROMTOOLS[-1], hasty, committed(alert), tmp_path)


@pytest.mark.parametrize("alert", waits("keep_firing_for"))
def test_they_notice_a_keep_firing_for_that_is_gone(alert: str, tmp_path: Path) -> None:
    fickle = broken(rules_of_alert(RULES, alert), alert, keep_firing_for="0s")
    assert "FAILED" in run(PROMTOOLS[-1], fickle, committed(alert), tmp_path)


LIMIT = re.compile(r"(?<=[<>=] )(\d+(?:\.\d+)?)(?=\n|$)")


# Where few ask, hours and days are what counts: promtool counts those many times over.
NOT_BY_PROMTOOL = {
    "CMOCacheHitRateLow": {"60"},
    "CMOLightRAGFailing": {"20"},
    "CMOErrorBudgetBurning": {"50"},
    "CMONoLiveTraffic": {"60", "48"},  # below, with a week of its own
}


def limits() -> list[Any]:
    """Every limit of every alert, in its own expression and not in those that it leaves out."""
    found = []
    for alert in ALERTS:
        own = expression(RULES, alert).partition("\nunless on ()")[0]
        of_alert = {limit for limit in LIMIT.findall(own) if float(limit) > 0}
        for limit in sorted(of_alert - NOT_BY_PROMTOOL.get(alert, set())):
            found.append(pytest.param(alert, limit, id=f"{alert}-{limit}"))  # noqa: PERF401 - reads better
    return found


@pytest.mark.parametrize(("alert", "limit"), limits())
def test_they_notice_a_limit_that_is_another(alert: str, limit: str, tmp_path: Path) -> None:
    """Wherever it stands: paths that lead to one alert have their limits in common."""
    # Without what it leaves out, whose limits are others', and whose rules take promtool longer.
    own = expression(RULES, alert).partition("\nunless on ()")[0]
    for factor in (0.5, 2.0):
        another = re.compile(rf"(?<=[<>=] ){re.escape(limit)}(?=\n|$)")
        changed = another.sub(f"{float(limit) * factor:g}", own)
        rules = rules_of_alert(broken(RULES, alert, expr=changed), alert)
        if "FAILED" in run(PROMTOOLS[-1], rules, committed(alert), tmp_path):
            return
    pytest.fail(f"neither half nor twice {limit} is noticed")


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
        "evaluation_interval": "15m",
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


@pytest.mark.parametrize(
    ("fires", "events_an_hour", "recorded", "changes"),
    [
        pytest.param(True, 60, 140, {}, id="as many as expected"),
        pytest.param(False, 59, 140, {}, id="one less"),
        pytest.param(False, 60, 100, {}, id="too little is known of the last quarter of an hour"),
        pytest.param(False, 60, 140, {STARTED: f"_x{STEPS - 140} 0x110 1 0x60"}, id="somebody has asked"),
        pytest.param(False, 60, 140, {'up{job="cmo",instance="a"}': "0x50000"}, id="the service is gone"),
    ],
)
def test_missing_traffic_is_known_from_last_week(
    fires: bool, events_an_hour: int, recorded: int, changes: dict[str, str], tmp_path: Path
) -> None:
    rules, test = last_week(events_an_hour, recorded=recorded, **changes)
    complaint = run(PROMTOOLS[-1], rules, test, tmp_path)
    assert ("FAILED" in complaint) is not fires, complaint
    if not fires:
        assert "got: nil" in complaint, complaint
