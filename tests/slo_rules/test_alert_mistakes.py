"""Mistakes in the alerts of an objectives file: each is named with its line, and hides no other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from cmo_slo.objectives import parse_objectives

from .changed_objectives import SHIPPED, changed, mistakes

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


@dataclass(frozen=True)
class LongestWindow:
    """The window of an alert in the shipped file, the longest that may stand there, and one that may not."""

    shipped: str
    field: str
    longest: str
    longer: str
    read_back: str

    def written(self, length: str) -> str:
        return f"{self.shipped.rpartition(': ')[0]}: {length}"

    def case(self) -> AlertCase:
        new = self.written(self.longer)
        wrong = f"{self.longer!r} is too long: {self.read_back} would be read back"
        said = f"{self.field}: {wrong}; expected {self.longest} or less; shorten it"
        return AlertCase(self.shipped, new, new.splitlines()[-1].strip(), said)


LONGEST_WINDOWS = [
    LongestWindow("after: 60s", "alerts[1].after", "6d", "6d1s", "30d5s"),
    LongestWindow("objective: success\n    window: 15m", "alerts[2].window", "30d", "31d", "31d"),
    LongestWindow("probe_window: 5m", "alerts[2].probe_window", "30d", "500y", "182500d"),
    LongestWindow("mean_above: 0.5\n    window: 10m", "alerts[6].window", "30d", "5w", "35d"),
    LongestWindow("minimum_bad_events: 20\n    window: 15m", "alerts[8].window", "5d", "1w", "42d"),
    LongestWindow("gain_above: 25.0\n    window: 1h", "alerts[9].window", "30d", "30d1ms", "30d1ms"),
    LongestWindow(
        "gain_bytes_above: 100.0e+6\n    window: 6h", "alerts[11].window", "30d", "300y", "109500d"
    ),
    LongestWindow("restarts_above: 5\n    window: 1d", "alerts[12].window", "30d", "1y", "365d"),
    LongestWindow("alertmanager]\n    window: 5m", "alerts[14].window", "5d", "30d", "180d"),
    LongestWindow("minimum_bad_events: 10\n    window: 30m", "alerts[19].window", "5d", "6d", "36d"),
]
TREND = "gain_bytes_above: 100.0e+6\n    window: 6h\n    horizon: 24h"
SHORT_TRENDS = [
    AlertCase(
        TREND,
        TREND.replace("6h", "29m"),
        "window: 29m",
        "alerts[11].window: '29m' is too short: its halves would be shorter than memory's floor looks back; "
        "expected 30m or more; lengthen it",
    ),
    AlertCase(
        TREND,
        TREND.replace("6h", "30m"),
        "horizon: 24h",
        "alerts[11].horizon: '24h' is too long: in half a window of 30m such growth is taken for noise; "
        "expected 12h30m or less; shorten it, or lengthen the window",
    ),
]
WINDOW_CASES = [*(window.case() for window in LONGEST_WINDOWS), *SHORT_TRENDS]


@pytest.mark.parametrize("case", [*ALERT_CASES, *WINDOW_CASES], ids=lambda case: f"{case.new.strip()[-50:]}")
def test_a_mistake_in_an_alert_is_all_that_is_said_of_it(case: AlertCase) -> None:
    text = changed(case.old, case.new)
    (found,) = mistakes(text)
    file, line, said = found.split(":", 2)
    assert (file, said.strip()) == ("my.yml", case.said)
    assert text.splitlines()[int(line) - 1].strip().startswith(case.at)


@pytest.mark.parametrize("window", LONGEST_WINDOWS, ids=lambda window: window.field)
def test_a_window_may_be_as_long_as_is_expected(window: LongestWindow) -> None:
    parse_objectives(changed(window.shipped, window.written(window.longest)), "my.yml")


def test_a_trend_may_be_as_short_as_is_expected() -> None:
    parse_objectives(changed(TREND, TREND.replace("6h", "30m").replace("24h", "12h30m")), "my.yml")


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
