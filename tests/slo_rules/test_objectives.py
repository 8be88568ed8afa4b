"""Reading objectives files: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cmo_slo.indicators import GrowthIndicator, LatencyIndicator, RatioIndicator
from cmo_slo.model import Objective, Objectives, Operator
from cmo_slo.objectives import (
    ObjectivesError,
    find_objectives,
    json_schema,
    load_objectives,
    objectives_hash,
    parse_objectives,
    shipped_directory,
    shipped_names,
)

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = find_objectives("cmo-015").read_text(encoding="utf-8")


def mistakes(text: str) -> list[str]:
    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(text, "my.yml")
    return str(caught.value).splitlines()


def changed(old: str, new: str) -> str:
    assert old in SHIPPED
    return SHIPPED.replace(old, new, 1)


def test_the_shipped_objectives_say_what_cmo_lightrag_015_requires() -> None:
    objectives = load_objectives(find_objectives("cmo-015"))
    by_name = {objective.name: objective for objective in objectives.objectives}

    assert objectives.requirement == "CMO-LIGHTRAG-015"
    assert [name for name, objective in by_name.items() if objective.key] == [
        "concurrent_users",
        "success",
        "within_2s",
        "memory_growth",
        "cache_hits",
    ]
    targets = {name: (objective.operator, objective.target) for name, objective in by_name.items()}
    assert targets == {
        "concurrent_users": (Operator.AT_LEAST, 50),
        "success": (Operator.ABOVE, 0.95),
        "within_2s": (Operator.ABOVE, 0.95),
        "memory_growth": (Operator.BELOW, 100e6),
        "cache_hits": (Operator.ABOVE, 0.70),
        "no_catastrophic_failure": (Operator.AT_MOST, 0),
        "lightrag_success": (Operator.ABOVE, 0.96),
        "lightrag_healthy": (Operator.AT_LEAST, 0.95),
        "health_success": (Operator.AT_LEAST, 0.90),
        "health_latency": (Operator.AT_LEAST, 0.95),
    }
    assert isinstance(by_name["success"].indicator, RatioIndicator)
    assert isinstance(by_name["memory_growth"].indicator, GrowthIndicator)
    latency = by_name["within_2s"].indicator
    assert isinstance(latency, LatencyIndicator)
    assert latency.threshold_seconds == 2.0


@dataclass(frozen=True)
class Case:
    """One mistake: what is written instead of what, the field it is reported for, and the answer."""

    old: str
    new: str
    field: str
    wrong: str
    mend: str


OF_LATENCY = """    unit: ratio
    judged: [scenario, overall]
    key: true
    weight: 1
    warning_band: 0.005
    minimum_events: 100
    page:
      alert: CMOLiveQueriesSlow
"""

CASES = [
    Case("target: 50", "traget: 50", "objectives[0].traget", "unknown field", "did you mean target?"),
    Case("target: 50", "target: fifty", "objectives[0].target", '"fifty" does not fit', "write that instead"),
    Case("target: 50", "target: yes", "objectives[0].target", "true is no number", "write a number"),
    Case("target: 50", "target: .nan", "objectives[0].target", "NaN does not fit", "write that instead"),
    Case(
        "target: 50",
        "target: 50\n    target: 5",
        "objectives[0].target",
        "stands there twice, first in line 20",
        "delete one of them",
    ),
    Case(
        "metric: cmo_queries_total",
        "metric: cmo_query_total",
        "objectives[1].indicator.good.metric",
        "unknown metric 'cmo_query_total'",
        "did you mean cmo_queries_total?",
    ),
    Case(
        "outcome: [success]",
        "outcome: [sucess]",
        "objectives[1].indicator.good.labels.outcome[0]",
        "'sucess' is no value of label 'outcome'",
        "name one of these",
    ),
    Case(
        "outcome: [success]",
        "outcomes: [success]",
        "objectives[1].indicator.good.labels.outcomes",
        "cmo_queries_total has no label 'outcomes'",
        "name one of its labels",
    ),
    Case(
        "outcome: [success]",
        "outcome: success",
        "objectives[1].indicator.good.labels.outcome",
        '"success" does not fit',
        "write that instead",
    ),
    Case(
        "outcome: [success]",
        "outcome: [success, cancelled]",
        "objectives[1].indicator.good",
        "the total leaves out good events with outcome cancelled",
        "add these values to total, or take them from good",
    ),
    Case(
        "bad_ratio_above: 0.10",
        "bad_ratio_above: 1.0",
        "objectives[1].page.bad_ratio_above",
        "1.0 does not fit",
        "write that instead",
    ),
    Case(
        "threshold_seconds: 2.0",
        "threshold_seconds: 2.1",
        "objectives[2].indicator.threshold_seconds",
        "cmo_query_duration_seconds has no bucket edge at 2.1 s",
        "choose an edge, or add this one to the catalogue",
    ),
    Case(
        f"target: 0.95\n{OF_LATENCY}",
        f"target: 0.9\n{OF_LATENCY}",
        "objectives[2].target",
        "target 0.9 and quantile 0.95 differ",
        "make them equal",
    ),
    Case(
        "excluded_within_threshold: {outcome: [cancelled]}",
        "excluded_within_threshold: {outcome: [success]}",
        "objectives[2].indicator.excluded_within_threshold",
        "an event can be good and excluded at once",
        "name a label value in one of them only",
    ),
    Case(
        "kind: growth",
        "kind: grwth",
        "objectives[3].indicator.kind",
        '"grwth" is unknown',
        "did you mean growth?",
    ),
    Case(
        'operator: "<="',
        'operator: ">="',
        "objectives[5].operator",
        'a continuity is not held by ">="',
        "write one",
    ),
    Case(
        "name: within_2s", "name: success", "objectives[2].name", "'success' stands there twice", "rename one"
    ),
    Case(
        "name: within_2s\n    indicator",
        "name: success\n    indicator",
        "components[1].name",
        "'success' stands there twice",
        "rename one",
    ),
    Case(
        "metric: cmo_component_duration_seconds",
        "metric: cmo_query_duration_seconds",
        "components[1].indicator.metric",
        "cmo_query_duration_seconds has no label component",
        "count by one of these",
    ),
    Case(
        "scenarios: [",
        "scenarios: [live, ",
        "scenarios[0]",
        "'live' is no scenario of a run",
        "take it out or rename it",
    ),
    Case("cmo-slo/v1", "cmo-slo/v2", "version", '"cmo-slo/v2" is unknown', "did you mean cmo-slo/v1?"),
    Case(
        "outcome: [success, error, timeout, rejected]",
        "outcome: [success, error, error]",
        "objectives[1].indicator.total.labels.outcome[2]",
        "'error' stands there twice",
        "delete one",
    ),
    Case(
        "target: 50\n    unit: users\n    judged: [scenario]",
        "target: 50\n    unit: users\n    judged: [overall]",
        "objectives[0].judged[0]",
        "a held is not judged overall",
        "take it out",
    ),
    Case("unit: users", "unit: bytes", "objectives[0].unit", "a held has no unit bytes", "write users"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.field}-{case.new.splitlines()[-1].strip()}")
def test_a_mistake_is_named_with_its_line_and_its_mend(case: Case) -> None:
    text = changed(case.old, case.new)
    changed_lines = {
        number
        for number, (now, before) in enumerate(zip_longest(text.splitlines(), SHIPPED.splitlines()), 1)
        if now != before
    }

    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(text, "my.yml")

    found = {(problem.field, problem.wrong, problem.mend): problem for problem in caught.value.problems}
    problem = found[case.field, case.wrong, case.mend]
    assert problem.line in changed_lines
    assert str(problem) == (
        f"my.yml:{problem.line}: {case.field}: {case.wrong}; expected {problem.expected}; {case.mend}"
    )


# --- alerts ----------------------------------------------------------------------------------------

COUNTED = "success, within_2s, cache_hits, lightrag_success, lightrag_healthy, health_success, health_latency"
KINDS = (
    "down, hanging, no_traffic, budget, share, slow_share, level, rise, trend, restarts, scrape, "
    "load_test, watchdog"
)
CANCELLED = "bad: {metric: cmo_queries_total, labels: {scenario: [live], outcome: [cancelled]}}"
QUEUE = "metric: cmo_queue_wait_seconds\n    above_seconds: 0.5"
PAGE_ON_USERS = """weight: 1
    page:
      alert: CMOUsersGone
      bad_ratio_above: 0.1
      minimum_bad_events: 10
      low_traffic: {bad_ratio_above: 0.5, minimum_bad_events: 5}
      summary: Users are gone
      description: "{{ $value }} of the users are gone."

  - name: success
"""


@dataclass(frozen=True)
class AlertCase:
    """One mistake in an alert: what is written instead of what, the line it is in, and all that is said."""

    old: str
    new: str
    at: str
    said: str


ALERT_CASES = [
    AlertCase(
        "kind: hanging",
        "kind: hangin",
        "- kind: hangin",
        f'alerts[1].kind: "hangin" is unknown; expected {KINDS}; did you mean hanging?',
    ),
    AlertCase(
        "  - kind: hanging\n    alert",
        "  - alert",
        "- alert: CMOLiveQueriesHanging",
        f"alerts[1].kind: is missing; expected one of {KINDS}; add `kind: …`",
    ),
    AlertCase(
        "kind: watchdog\n",
        "kind: watchdog\n    sumary: yes\n",
        "sumary: yes",
        "alerts[18].sumary: unknown field; expected one of alert, summary, description, kind; "
        "did you mean summary?",
    ),
    AlertCase(
        "minimum_queries: 5\n    ",
        "",
        "- kind: hanging",
        "alerts[1].minimum_queries: is missing; expected every required field; add `minimum_queries: …`",
    ),
    AlertCase(
        "share_above: 0.02",
        "share_above: 1",
        "share_above: 1",
        "alerts[4].share_above: 1 does not fit; expected a number below 1; write that instead",
    ),
    AlertCase(
        "gain_bytes_above: 100.0e+6",
        "gain_bytes_above: 0",
        "gain_bytes_above: 0",
        "alerts[11].gain_bytes_above: 0 does not fit; expected a number above 0; write that instead",
    ),
    AlertCase(
        "after: 60s",
        "after: a minute",
        "after: a minute",
        "alerts[1].after: 'a minute' is no duration; expected one such as 15s, 5m or 1h30m; "
        "write number and unit",
    ),
    AlertCase(
        "after: 60s",
        "after: 60",
        "after: 60",
        "alerts[1].after: 60 is no duration; expected one such as 15s, 5m or 1h30m; write number and unit",
    ),
    AlertCase(
        "probe_window: 5m",
        "probe_window: 0m",
        "probe_window: 0m",
        "alerts[2].probe_window: '0m' is no time at all; expected one such as 15s, 5m or 1h30m; "
        "write number and unit",
    ),
    AlertCase(
        "Always fires (value {{ $value }})",
        "Always fires",
        "description: Always fires",
        "alerts[18].description: the value is not in the text; expected {{ $value }}, formatted; "
        "say how bad it is",
    ),
    AlertCase(
        "{{ $value | humanizePercentage }} of live queries fail",
        "Live queries fail",
        "description: >-",
        "objectives[1].page.description: the value is not in the text; expected {{ $value }}, formatted; "
        "say how bad it is",
    ),
    AlertCase(
        CANCELLED,
        CANCELLED.replace("cmo_queries", "cmo_querys"),
        "bad: {metric: cmo_querys_total",
        "alerts[4].bad.metric: unknown metric 'cmo_querys_total'; expected a metric of the catalogue; "
        "did you mean cmo_queries_total?",
    ),
    AlertCase(
        CANCELLED,
        CANCELLED.replace("outcome:", "outcom:"),
        "bad: {metric: cmo_queries_total, labels: {scenario: [live], outcom:",
        "alerts[4].bad.labels.outcom: cmo_queries_total has no label 'outcom'; expected scenario, outcome; "
        "name one of its labels",
    ),
    AlertCase(
        CANCELLED,
        CANCELLED.replace("cancelled", "canceled"),
        "bad: {metric: cmo_queries_total, labels: {scenario: [live], outcome: [canceled]}}",
        "alerts[4].bad.labels.outcome[0]: 'canceled' is no value of label 'outcome'; "
        "expected one of success, error, timeout, rejected, cancelled; name one of these",
    ),
    AlertCase(
        CANCELLED,
        "bad: {metric: cmo_active_users}",
        "bad: {metric: cmo_active_users}",
        "alerts[4].bad.metric: cmo_active_users is a gauge; expected a counter; "
        "name a counter of the catalogue",
    ),
    AlertCase(
        CANCELLED,
        "bad: {metric: cmo_queries_started_total, labels: {scenario: [live]}}",
        "total: {metric: cmo_queries_total, labels: {scenario: [live]}}",
        "alerts[4].total: bad events count cmo_queries_started_total, total events cmo_queries_total; "
        "expected one metric for both; tell bad from total by labels",
    ),
    AlertCase(
        CANCELLED,
        CANCELLED.replace("scenario: [live], ", ""),
        "total: {metric: cmo_queries_total, labels: {scenario: [live]}}",
        "alerts[4].total: leaves out bad events with any scenario; expected a total that holds all bad "
        "events; add these values, or take them from bad",
    ),
    AlertCase(
        "total: {metric: cmo_queries_total, labels: {scenario: [live]}}",
        "total: {metric: cmo_queries_total, labels: {scenario: [live], outcome: [success, error]}}",
        "total: {metric: cmo_queries_total, labels: {scenario: [live], outcome: [success, error]}}",
        "alerts[4].total: leaves out bad events with outcome cancelled; expected a total that holds all bad "
        "events; add these values, or take them from bad",
    ),
    AlertCase(
        CANCELLED,
        CANCELLED.replace(", outcome: [cancelled]", ""),
        "total: {metric: cmo_queries_total, labels: {scenario: [live]}}",
        "alerts[4].total: every event of it is bad; expected a total of which some are not; "
        "name the label values that are bad",
    ),
    AlertCase(
        "    by: [component]\n    bad",
        "    by: [componet]\n    bad",
        "by: [componet]",
        "alerts[5].by[0]: cmo_component_calls_total has no label 'componet'; "
        "expected scenario, component, outcome; did you mean component?",
    ),
    AlertCase(
        "    by: [component]\n    bad",
        "    by: [component, component]\n    bad",
        "by: [component, component]",
        "alerts[5].by[1]: 'component' stands there twice; expected each label once; delete one",
    ),
    AlertCase(
        "gauge: {metric: cmo_circuit_breaker_state",
        "gauge: {metric: cmo_circuit_braker_state",
        "gauge: {metric: cmo_circuit_braker_state",
        "alerts[6].gauge.metric: unknown metric 'cmo_circuit_braker_state'; expected a metric of the "
        "catalogue; did you mean cmo_circuit_breaker_state?",
    ),
    AlertCase(
        "{metric: cmo_circuit_breaker_state, labels: {state: [open, half_open]}}",
        "{metric: cmo_queries_total}",
        "gauge: {metric: cmo_queries_total}",
        "alerts[6].gauge.metric: cmo_queries_total is a counter; expected a gauge; "
        "name a gauge of the catalogue",
    ),
    AlertCase(
        "labels: {state: [open, half_open]}",
        "labels: {state: [shut]}",
        "gauge: {metric: cmo_circuit_breaker_state, labels: {state: [shut]}}",
        "alerts[6].gauge.labels.state[0]: 'shut' is no value of label 'state'; expected one of closed, open, "
        "half_open, degraded, rate_limited, budget_limited, maintenance; name one of these",
    ),
    AlertCase(
        "by: [component]\n    mean_above",
        "by: [breaker]\n    mean_above",
        "by: [breaker]",
        "alerts[6].by[0]: cmo_circuit_breaker_state has no label 'breaker'; "
        "expected component, state, job, instance; name one of its labels",
    ),
    AlertCase(
        QUEUE,
        QUEUE.replace("wait", "wat"),
        "metric: cmo_queue_wat_seconds",
        "alerts[8].metric: unknown metric 'cmo_queue_wat_seconds'; expected a metric of the catalogue; "
        "did you mean cmo_queue_wait_seconds?",
    ),
    AlertCase(
        QUEUE,
        QUEUE.replace("cmo_queue_wait_seconds", "cmo_queries_total"),
        "metric: cmo_queries_total",
        "alerts[8].metric: cmo_queries_total is a counter; expected a histogram; "
        "name a histogram of the catalogue",
    ),
    AlertCase(
        QUEUE,
        QUEUE.replace("0.5", "0.6"),
        "above_seconds: 0.6",
        "alerts[8].above_seconds: cmo_queue_wait_seconds has no bucket edge at 0.6 s; "
        "expected one of its edges: 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 4.0, 10.0, 30.0; choose an edge",
    ),
    AlertCase(
        QUEUE,
        f"{QUEUE}\n    labels: {{componet: [lightrag]}}",
        "labels: {componet: [lightrag]}",
        "alerts[8].labels.componet: cmo_queue_wait_seconds has no label 'componet'; expected component; "
        "name one of its labels",
    ),
    AlertCase(
        f"by: [component]\n    {QUEUE}",
        f"by: [job]\n    {QUEUE}",
        "by: [job]",
        "alerts[8].by[0]: cmo_queue_wait_seconds has no label 'job'; expected component; "
        "name one of its labels",
    ),
    AlertCase(
        "counters: [cmo_llm_cost_usd_total]",
        "counters: [cmo_llm_cost_total]",
        "counters: [cmo_llm_cost_total]",
        "alerts[9].counters[0]: unknown counter 'cmo_llm_cost_total'; expected a counter of the catalogue, "
        "or of the monitor's own; did you mean cmo_llm_cost_usd_total?",
    ),
    AlertCase(
        "by: [job, instance, rule_group]",
        "by: [job, instance, rule_grup]",
        "by: [job, instance, rule_grup]",
        "alerts[15].by[2]: prometheus_rule_evaluation_failures_total has no label 'rule_grup'; "
        "expected rule_group, job, instance; did you mean rule_group?",
    ),
    AlertCase(
        "objective: success\n",
        "objective: sucess\n",
        "objective: sucess",
        f"alerts[2].objective: 'sucess' is no objective that counts events; expected {COUNTED}; "
        f"did you mean success?",
    ),
    AlertCase(
        "objectives: [success, within_2s]",
        "objectives: [success, concurrent_users]",
        "objectives: [success, concurrent_users]",
        f"alerts[3].objectives[1]: 'concurrent_users' is no objective that counts events; "
        f"expected {COUNTED}; name one of these",
    ),
    AlertCase(
        "burn_rate_above: 1.0",
        "burn_rate_above: 20",
        "burn_rate_above: 20",
        "alerts[3].burn_rate_above: could never fire: at a target of 0.95 a burn rate above 20 takes more "
        "than 100 % bad events; expected a number below 20; lower it, or page on the share itself",
    ),
    AlertCase(
        "burn_rate_above: 1.0",
        "burn_rate_above: .nan",
        "burn_rate_above: .nan",
        "alerts[3].burn_rate_above: NaN does not fit; expected a finite number; write that instead",
    ),
    AlertCase(
        "alert: CMOCacheHitRateLow",
        "alert: CMOLiveQueriesFailing",
        "alert: CMOLiveQueriesFailing",
        "objectives[4].ticket.alert: 'CMOLiveQueriesFailing' stands there twice; expected each name once; "
        "rename one",
    ),
    AlertCase(
        "alert: CMOServiceDown",
        "alert: CMOLiveQueriesFailing",
        "alert: CMOLiveQueriesFailing",
        "alerts[0].alert: 'CMOLiveQueriesFailing' stands there twice; expected each name once; rename one",
    ),
    AlertCase(
        "alert: CMOWatchdog",
        "alert: CMOServiceDown",
        "alert: CMOServiceDown",
        "alerts[18].alert: 'CMOServiceDown' stands there twice; expected each name once; rename one",
    ),
    AlertCase(
        "weight: 1\n\n  - name: success\n",
        PAGE_ON_USERS,
        "page:",
        "objectives[0].page: a held has no bad events; expected a page on a ratio or a latency; remove it",
    ),
    AlertCase(
        "restart_seconds: 60",
        "restart_seconds: 0",
        "service: {job: cmo, restart_seconds: 0}",
        "service.restart_seconds: 0 does not fit; expected a number of at least 1; write that instead",
    ),
]


@pytest.mark.parametrize("case", ALERT_CASES, ids=lambda case: f"{case.new.strip()[-50:]}")
def test_a_mistake_in_an_alert_is_all_that_is_said_of_it(case: AlertCase) -> None:
    text = changed(case.old, case.new)
    (found,) = mistakes(text)
    file, line, said = found.split(":", 2)
    assert (file, said.strip()) == ("my.yml", case.said)
    assert text.splitlines()[int(line) - 1].strip().startswith(case.at)


def test_mistakes_in_alerts_are_reported_at_once_whatever_else_is_wrong() -> None:
    """A mistake hides no other: neither in the same alert, nor in the objective or the file around it."""
    changes = {
        "restart_seconds: 60": "restart_seconds: 0",
        "target: 50": "target: fifty",
        'operator: ">"\n    target: 0.95': 'operator: "<"\n    target: 0.95',
        "bad_ratio_above: 0.10": "bad_ratio_above: 1.5",
        "name: within_2s": "name: success",
        "alert: CMOCacheHitRateLow": "alert: CMOLiveQueriesSlow",
        "alert: CMOLightRAGFailing": "alert: CMOWatchdog",
        "after: 60s": "after: 60",
        "objective: success\n": "objective: memory_growth\n",
        "burn_rate_above: 1.0": "burn_rate_above: 20",
        "share_above: 0.02": "share_above: 1",
        CANCELLED: CANCELLED.replace("cancelled", "canceled"),
        "by: [component]\n    bad": "by: [componet]\n    bad",
        "share_above: 0.03": "share_above: -1",
        "by: [component]\n    mean_above: 0.5": "by: [breaker]\n    mean_above: low",
        f"by: [component]\n    {QUEUE}": f"by: [component, x]\n    {QUEUE.replace('0.5', '0.6')}",
        "gain_above: 25.0\n    window: 1h": "gain_above: 25.0\n    window: 1 h",
        "kind: trend": "kind: trent",
    }
    text = SHIPPED
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)

    found = mistakes(text)

    assert [line.split(": ")[1] for line in found] == [
        "service.restart_seconds",
        "objectives[0].target",
        "objectives[1].operator",
        "objectives[1].page.bad_ratio_above",
        "objectives[2].name",
        "objectives[4].ticket.alert",
        "alerts[1].after",
        "alerts[2].objective",
        "alerts[3].objectives[1]",
        "alerts[3].burn_rate_above",
        "alerts[4].bad.labels.outcome[0]",
        "alerts[4].share_above",
        "alerts[5].by[0]",
        "alerts[5].share_above",
        "alerts[6].by[0]",
        "alerts[6].mean_above",
        "alerts[8].by[1]",
        "alerts[8].above_seconds",
        "alerts[9].window",
        "alerts[11].kind",
        "alerts[18].alert",
    ]


def test_a_missing_field_is_named() -> None:
    found = mistakes(changed("requirement: CMO-LIGHTRAG-015\n", ""))
    assert found == ["my.yml:2: requirement: is missing; expected every required field; add `requirement: …`"]


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = changed("target: 50", "target: fifty")
    text = text.replace("name: within_2s", "name: success").replace("kind: growth", "kind: grwth")
    text = text.replace("scenarios: [", "scenarios: [overall, ")

    found = mistakes(text)

    assert [line.split(": ")[1] for line in found] == [
        "scenarios[0]",
        "objectives[0].target",
        "objectives[2].name",
        "objectives[3].indicator.kind",
        "components[1].name",
        "alerts[3].objectives[1]",
    ]
    lines = [int(line.split(":")[1]) for line in found]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "my.yml:1: is empty; expected the fields version, name, requirement"),
        ("# nothing\n", "my.yml:1: is empty; expected the fields version"),
        ("- 1\n", "my.yml:1: holds [1] and no fields; expected the fields version"),
        ("version: cmo-slo/v1\n\tname: a\n", "my.yml:2: a tab; expected spaces, two a level"),
        ("name: [\n", "my.yml:2: not YAML: while parsing a flow node"),
        ("a: 1\n---\na: 2\n", "my.yml:2: a second document; expected one document a file"),
        ("a: &x 1\nb: *x\n", "my.yml:1: anchor or alias 'x'; expected every value written out"),
        ("a: !!python/object:os.system 1\n", "my.yml:1: the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("a: !!bool maybe\n", "my.yml:1: 'maybe' is no bool; expected a value of that type"),
        ('a: !!int ""\n', "my.yml:1: '' is no int; expected a value of that type"),
        (f"a: {'{a: ' * 3000}{'}' * 3000}", "my.yml:1: nested more than 50 deep; expected a few levels"),
        ("\n" + "[" * 100_000, "my.yml:2: nested more than 50 deep; expected a few levels"),
        ("- " * 100_000, "my.yml:1: nested more than 50 deep; expected a few levels"),
        ("a: !!int one\n", "my.yml:1: 'one' is no int; expected a value of that type"),
        ("a: \0\n", "my.yml:1: the character"),
        ("? [a]\n: 1\n", "my.yml:1: a list or mapping as a key"),
    ],
)
def test_what_is_no_objectives_file_is_said_so(text: str, expected: str) -> None:
    assert mistakes(text)[0].startswith(expected)


def test_files_that_cannot_be_read_are_said_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "zero.yml").symlink_to("/dev/zero")
    with (tmp_path / "large.yml").open("wb") as large:
        large.truncate(10**12)  # a hole, which takes no room on the disk
    no_file = "is no regular file; expected an objectives file in YAML; save it as a file, and name that"
    latin = tmp_path / "latin.yml"
    latin.write_bytes("name: Größe".encode("latin-1"))
    cases = {
        tmp_path
        / "none.yml": "no such file; expected an objectives file in YAML; check the path, or name one of",
        tmp_path: "is a directory; expected an objectives file in YAML; name a file in it",
        tmp_path / "pipe.yml": no_file,
        tmp_path / "zero.yml": no_file,
        tmp_path
        / "large.yml": "is larger than 1 MB; expected an objectives file in YAML; check that it is the",
        latin: "byte 8 is not UTF-8; expected an objectives file in YAML; save the file as UTF-8",
    }
    for path, expected in cases.items():
        with pytest.raises(ObjectivesError) as caught:
            load_objectives(path)
        assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_byte_order_mark_and_numbers_without_a_dot_are_read() -> None:
    text = "\ufeff" + changed("target: 100.0e+6", "target: 1e8")
    assert parse_objectives(text.encode().decode("utf-8-sig"), "my.yml").objectives[3].target == 1e8


def test_the_hash_follows_meaning_and_not_layout() -> None:
    same = parse_objectives("# another comment\n" + SHIPPED, "a.yml")
    other = parse_objectives(changed("target: 50", "target: 51"), "b.yml")
    shipped = load_objectives(find_objectives("cmo-015"))

    assert objectives_hash(same) == objectives_hash(shipped)
    assert objectives_hash(other) != objectives_hash(shipped)
    assert len(objectives_hash(shipped)) == 16
    assert int(objectives_hash(shipped), 16) >= 0


def test_objectives_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    own = tmp_path / "own.yml"
    own.write_text(SHIPPED, encoding="utf-8")

    assert "cmo-015" in shipped_names()
    assert find_objectives("cmo-015") == shipped_directory() / "cmo-015.yml"
    assert find_objectives(own) == own
    with pytest.raises(ObjectivesError, match=r"cmo-15: no such objectives; .*; did you mean cmo-015\?"):
        find_objectives("cmo-15")


def test_the_schema_accepts_what_ships_and_refuses_a_typo() -> None:
    schema: dict[str, Any] = json.loads((shipped_directory() / "schema.json").read_text(encoding="utf-8"))
    document = yaml.safe_load(SHIPPED)
    # Imported by name because it has no types.
    jsonschema = importlib.import_module("jsonschema")
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(document)

    document["objectives"][0]["traget"] = document["objectives"][0].pop("target")
    assert not validator.is_valid(document)
    assert schema == json_schema()


DAMAGE: list[Any] = [None, 0, "x", [], {}, [[]], [{"indicator": {"kind": []}}], {"kind": "ratio", "good": []}]


def outcome_of(document: Any) -> str:
    """Objectives, or mistakes in words: anything else is a fault of ours, and raises."""
    try:
        parse_objectives(json.dumps(document), "my.yml")
    except ObjectivesError as error:
        return "mistakes" if error.problems else "an error without a mistake"
    return "objectives"


@pytest.mark.parametrize("field", list(Objectives.model_fields))
def test_no_damaged_file_ends_in_a_traceback(field: str) -> None:
    document = yaml.safe_load(SHIPPED)
    document["objectives"] = document["objectives"][1:2]
    for value in DAMAGE:
        assert outcome_of({**document, field: value}) in ("mistakes", "objectives")


@pytest.mark.parametrize("field", list(Objective.model_fields))
def test_no_damaged_objective_ends_in_a_traceback(field: str) -> None:
    document = yaml.safe_load(SHIPPED)
    for value in DAMAGE:
        objective = {**document["objectives"][1], field: value}
        assert outcome_of({**document, "objectives": [objective]}) in ("mistakes", "objectives")


# One of each kind: what is read of the others is the same.
ONE_OF_EACH_KIND = {alert["kind"]: number for number, alert in enumerate(yaml.safe_load(SHIPPED)["alerts"])}


@pytest.mark.parametrize("number", ONE_OF_EACH_KIND.values(), ids=ONE_OF_EACH_KIND)
def test_no_damaged_alert_ends_in_a_traceback(number: int) -> None:
    document = yaml.safe_load(SHIPPED)
    alert = document["alerts"][number]
    for field in alert:
        for value in DAMAGE:
            damaged = {
                **document,
                "objectives": document["objectives"][1:3],
                "alerts": [{**alert, field: value}],
            }
            assert outcome_of(damaged) in ("mistakes", "objectives")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"compliant_score": 0}, "compliant_score"),
        ({"objectives.0.target": 0}, "objectives[0].target"),
        ({"objectives.0.target": -1}, "objectives[0].target"),
        ({"objectives.0.indicator.tolerance": 1}, "objectives[0].indicator.tolerance"),
        ({"objectives.1.indicator.total.labels": {"outcome": ["success"]}}, "objectives[1].indicator.good"),
        (
            {
                "objectives.1.indicator.good.labels": {},
                "objectives.1.indicator.total.labels": {},
            },
            "objectives[1].indicator.good",
        ),
    ],
    ids=str,
)
def test_what_every_run_would_pass_is_no_objective(change: dict[str, Any], field: str) -> None:
    document = yaml.safe_load(SHIPPED)
    for path, value in change.items():
        place: Any = document
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
        for step in steps:
            place = place[step]
        place[last] = value
    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(yaml.safe_dump(document), "my.yml")
    assert field in [problem.field for problem in caught.value.problems]


def test_objectives_at_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ObjectivesError, match="cannot be looked for"):
        find_objectives(tmp_path / ("x" * 5000))
