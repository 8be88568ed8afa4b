"""Thresholds that no value can pass, and their neighbours that some value can."""

from __future__ import annotations

import math
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cmo_slo.checks import promql
from cmo_slo.checks.bounds import BoundsFinder
from cmo_slo.checks.series import RecordedSeries
from cmo_stack import servers
from hypothesis import assume, given
from hypothesis import strategies as st

from .checking import ERROR, WARNING, alert, documents, findings, in_rules, record, rule_file, severities
from .generators import kubernetes_mixin, pyrra, sloth

if TYPE_CHECKING:
    from pathlib import Path

FAILED = 'sum(rate(http_requests_total{job="shop",code=~"5.."}[5m]))'
ALL = 'sum(rate(http_requests_total{job="shop"}[5m]))'


@pytest.mark.parametrize(
    "expression",
    [
        f"{FAILED} / {ALL} > 1",
        f"{FAILED} / {ALL} > (14.4 * 0.3)",
        f"{FAILED} / {ALL} > 14.4 * (1 - 0.9)",
        f"14.4 * 0.3 < {FAILED} / {ALL}",
        f"100 * {FAILED} / {ALL} > 100",
        f"1 - {FAILED} / {ALL} < 0",
        f"({ALL} - {FAILED}) / {ALL} > 1",
        f"{FAILED} / ({ALL} > 0) >= 1.01",
        f"{FAILED} / clamp_min({ALL}, 1) > 1",
        f"({FAILED} or vector(0)) / {ALL} > 1",
        f"{ALL} < 0",
        f"{ALL} - {FAILED} < 0",
        'sum by (j, c) (rate(a_total{c="5"}[5m])) / ignoring (c) group_left sum by (j) (rate(a_total[5m]))>1',
        'sum(rate(a_total{outcome="error"}[5m])) / sum(rate(a_total{outcome=~"error|success"}[5m])) > 1',
        'sum(rate(a_total{outcome="error"}[5m])) / sum(rate(a_total{outcome!="cancelled"}[5m])) > 1',
        'sum(rate(t_seconds_bucket{le="2.0"}[5m])) / sum(rate(t_seconds_count[5m])) > 1',
        "avg_over_time(up[5m]) > 1",
        "count(up == 0) / count(up) > 1",
        "sum(up) / count(up) > 1",
        "max(slo:sli_error:ratio_rate1h) > 4.32",
        "http_requests:burnrate5m == 2",
        "quantile(0.9, http_requests:burnrate5m) > 1.5",
        "clamp_max(queue_length, 10) > 10",
        "absent(up) == 0",
        "vector(1) > 2",
        "up == 0 and on () hour() >= 24",
        "up == 0 and on () day_of_week() == 7",
        "up == 0 and on () month(vector(time())) < 1",
    ],
)
def test_a_limit_out_of_reach_is_an_error(expression: str) -> None:
    found = in_rules("attainability", alert(expression))
    assert severities(found) == [ERROR]
    assert "can never be true" in found[0].wrong
    assert "so the alert never fires" in found[0].wrong


@pytest.mark.parametrize(
    "expression",
    [
        f"{FAILED} / {ALL} > 0.999",
        f"{FAILED} / {ALL} >= 1",
        f"{FAILED} / {ALL} == 1",
        f"{FAILED} / {ALL} > 14.4 * (1 - 0.95)",
        f"100 * {FAILED} / {ALL} > 99",
        f"1 - {FAILED} / {ALL} < 0.95",
        # Not a part of the whole, or not known to be one:
        f"{ALL} / {FAILED} > 1",
        "sum(rate(a_total[5m])) / sum(rate(b_total[5m])) > 1",
        'sum(rate(a_total{code="5"}[10m])) / sum(rate(a_total[5m])) > 1',
        'sum(rate(a_total{code="5"}[5m])) / sum(rate(a_total{job="shop"}[5m])) > 1',
        'sum(rate(a_total{code="5"}[5m])) / sum by (pod) (rate(a_total[5m])) > 1',
        'sum(rate(a_total{o=~"error|cancelled"}[5m])) / sum(rate(a_total{o!="cancelled"}[5m])) > 1',
        "sum(rate(t_seconds_bucket[5m])) / sum(rate(t_seconds_count[5m])) > 1",
        'sum(rate(a_total{code="5"}[5m]) + rate(a_total{code="4"}[5m])) / sum(rate(a_total[5m])) > 1',
        'max(rate(a_total{code="5"}[5m])) / avg(rate(a_total[5m])) > 1',
        "max(a) / min(a) > 1",
        "rate(notifications_failed_total[5m]) / rate(requests_total[5m]) > 1",
        "rate(notifications_total[5m]) / rate(notifications_failed_total[5m]) > 1",
        # Ratios by name that are none:
        "instance:node_load1_per_cpu:ratio > 1.5",
        "slo:current_burn_rate:ratio > 14.4",
        "node_memory_overcommit_ratio > 1",
        # Nothing is known:
        "queue_length > 1000",
        "temperature < 0",
        "deriv(free_bytes[1h]) < 0",
        "sum(http_requests:burnrate5m + other) > 2",
        "vector(1)",
        "up == 0",
        "absent(up)",
        "clamp_max(queue_length, 10) >= 10",
        "a_total > bool 5",
        "rate(a_total[5m]) > 0",
        "up == 0 and on () hour() > 22",
        "up == 0 and on () minute() <= 0",
    ],
)
def test_a_limit_within_reach_is_none(expression: str) -> None:
    assert in_rules("attainability", alert(expression)) == []


@pytest.mark.parametrize(
    "expression",
    [
        # Parts by their names: one item may have several errors.
        "scenario:slo_good_events:sum / scenario:slo_total_events:sum > 1",
        "rate(notifications_failed_total[5m]) / rate(notifications_total[5m]) > 1",
        # Members may be negative, and some then add up to more than all.
        'sum(balance{kind="asset"}) / sum(balance) > 1',
        'sum(delta_bytes{kind="in"}) / sum(delta_bytes) > 1',
    ],
)
def test_a_limit_that_may_be_out_of_reach_is_a_warning(expression: str) -> None:
    (found,) = in_rules("attainability", alert(expression))
    assert found.severity is WARNING


def test_the_finding_says_which_series_and_why() -> None:
    (found,) = in_rules("attainability", alert(f"{FAILED} / {ALL} > (14.4 * 0.3)", "ShopFailing"))
    assert str(found).startswith(
        'rules-0.yml:4: ShopFailing: `sum(rate(http_requests_total{code=~"5..",job="shop"}[5m]))… >'
    )
    assert (
        "the value lies from 0 to 1, and the limit is 14.4 * 0.3 = 4.32, so the alert never fires"
        in found.wrong
    )
    assert "factor * (1 - target) < 1" in found.mend


@pytest.mark.parametrize(
    ("page", "burns"),
    [
        (alert(f"{FAILED} / {ALL} > 14.4 * 0.3"), True),
        (alert(f"{FAILED} / {ALL} > 4.32", "ShopBurnsItsBudget"), True),
        (alert("http_requests:burnrate5m > 2"), True),
        (alert("slo:sli_error:ratio_rate1h > 4.32"), True),
        (alert("avg_over_time(up[5m]) > 1"), False),
        (
            alert('sum(rate(cpu_total{mode="user"}[5m])) / sum(rate(cpu_total[5m])) > 2'),
            False,
        ),
    ],
)
def test_burn_rates_are_explained_where_there_is_one(page: dict[str, Any], burns: bool) -> None:
    (found,) = in_rules("attainability", page)
    assert ("burn-rate" in found.mend) is burns
    assert "expected a limit below 1" in found.mend


def test_a_branch_out_of_reach_is_told_apart_from_an_alert_that_never_fires() -> None:
    ratio = f"{FAILED} / {ALL}"
    (branch,) = in_rules("attainability", alert(f"({ratio} > 1.44) or ({ratio} > 0.6)"))
    assert "never fires" not in branch.wrong
    one, other = in_rules("attainability", alert(f"({ratio} > 1.44) or ({ratio} > 1.2)"))
    assert "so the alert never fires" in one.wrong
    assert "so the alert never fires" in other.wrong


def test_an_exclusion_that_cannot_happen_is_a_warning() -> None:
    assert severities(in_rules("attainability", alert(f"up == 0 unless {FAILED} / {ALL} > 1"))) == [WARNING]


def test_what_is_known_by_a_name_alone_is_a_warning_unless_a_generator_gave_it() -> None:
    assert severities(in_rules("attainability", alert("job:http_error_ratio:rate5m > 1.2"))) == [WARNING]
    assert severities(in_rules("attainability", alert("http_requests:burnrate5m > 1.2"))) == [ERROR]


def test_a_recorded_series_is_known_by_the_rule_that_records_it() -> None:
    within = record("job:errors:ratio_rate5m", f"{FAILED} / {ALL}")
    beyond = record("job:errors:ratio_rate5m", f"{FAILED} / sum(rate(other_total[5m]))")
    page = alert("job:errors:ratio_rate5m > 1")
    assert severities(in_rules("attainability", within, page)) == [ERROR]
    (unsure,) = in_rules("attainability", beyond, page)
    assert unsure.severity is WARNING, "then only the name says so"
    renamed = [record("job:load:relative", str(beyond["expr"])), alert("job:load:relative > 1")]
    assert in_rules("attainability", *renamed) == []


def test_of_several_rules_only_those_count_whose_labels_are_asked_for() -> None:
    rules = [
        record("slo:budget:ratio", "vector(0.3)", slo="low"),
        record("slo:budget:ratio", "vector(0.001)", slo="high"),
    ]
    never = alert(f'{FAILED} / {ALL} > on () (14.4 * slo:budget:ratio{{slo="low"}})')
    some = alert(f'{FAILED} / {ALL} > on () (14.4 * slo:budget:ratio{{slo="high"}})')
    either = alert(f"{FAILED} / {ALL} > on () (14.4 * slo:budget:ratio)")
    assert severities(in_rules("attainability", *rules, never)) == [ERROR]
    assert in_rules("attainability", *rules, some) == []
    assert in_rules("attainability", *rules, either) == []


def test_rules_that_record_each_other_in_a_circle_end() -> None:
    circle = [record("a:b:c", "d:e:f / 2"), record("d:e:f", "a:b:c * 2"), alert("a:b:c > 1")]
    assert in_rules("attainability", *circle) == []


@pytest.mark.parametrize(
    ("expression", "wrong", "mend"),
    [
        ("histogram_quantile(99, sum by (le) (rate(a_bucket[5m]))) > 5", "is +Inf", "write 0.99"),
        ("histogram_quantile(99.9, sum(rate(native_seconds[5m]))) > 5", "is +Inf", "write 0.999"),
        ("histogram_quantile(-0.5, sum by (le) (rate(a_bucket[5m]))) > 5", "is -Inf", "correct it"),
        ("histogram_quantile(1000, sum by (le) (rate(a_bucket[5m]))) > 5", "is +Inf", "correct it"),
        ("quantile_over_time(95, queue_length[5m]) > 5", "is +Inf", "write 0.95"),
        ("quantile by (job) (50 + 40, queue_length) > 5", "is +Inf", "write 0.9"),
    ],
)
def test_a_quantile_beyond_0_and_1_is_an_error(expression: str, wrong: str, mend: str) -> None:
    for rule in (alert(expression), record("job:a:p99", expression.removesuffix(" > 5"))):
        (found,) = in_rules("attainability", rule)
        assert found.severity is ERROR
        assert wrong in found.wrong
        assert mend in found.mend


@pytest.mark.parametrize("level", ["0", "1", "0.99", "NaN", "scalar(level)"])
def test_a_quantile_from_0_to_1_is_let_be(level: str) -> None:
    quantiles = [
        f"histogram_quantile({level}, sum by (le) (rate(a_bucket[5m])))",
        f"quantile_over_time({level}, queue_length[5m])",
        f"quantile({level}, queue_length)",
    ]
    for quantile in quantiles:
        assert in_rules("attainability", alert(f"{quantile} > 5")) == []


# --- what generators emit -------------------------------------------------------------------------


@pytest.mark.parametrize("generator", [sloth, pyrra, kubernetes_mixin])
@pytest.mark.parametrize("target", [0.95, 0.99, 0.999])
def test_pages_of_generators_can_fire_at_high_targets(generator: object, target: float) -> None:
    assert callable(generator)
    assert findings("attainability", generator(target)) == []


def test_sloth_at_70_percent_never_pages() -> None:
    found = findings("attainability", sloth(0.7))
    assert severities(found) == [ERROR] * 4, "14.4 * 0.3 = 4.32 and 6 * 0.3 = 1.8, over two windows each"
    assert {finding.rule for finding in found} == {"ShopAvailability"}
    assert all("so the alert never fires" in finding.wrong for finding in found)
    assert any("14.4 * 0.3 = 4.32" in finding.wrong for finding in found)
    assert len({finding.line for finding in found}) == 1, "the page; the ticket, 3 * 0.3 = 0.9, can fire"


def test_sloth_at_90_percent_has_a_branch_that_never_pages() -> None:
    found = findings("attainability", sloth(0.9))
    assert severities(found) == [ERROR] * 2
    assert not any("never fires" in finding.wrong for finding in found)


def test_pyrra_at_70_percent_loses_both_critical_alerts() -> None:
    found = findings("attainability", pyrra(0.7))
    assert severities(found) == [ERROR] * 4
    assert len({finding.line for finding in found}) == 2, (
        "14 and 7 times 0.3; the warnings, 2 and 1, can fire"
    )


def test_kubernetes_mixin_at_70_percent_loses_its_fast_alert() -> None:
    found = findings("attainability", kubernetes_mixin(0.7))
    assert {finding.line for finding in found if "4.32" in finding.wrong} == {found[0].line}
    assert severities(found) == [ERROR] * 2, (
        "read and write add up to 2 at most: 4.32 is out of reach, 1.8 is not"
    )
    assert "by its name, lies from 0 to 2" in found[0].wrong


def test_how_many_ratios_are_added_up_is_not_known_without_the_rules_that_record_them() -> None:
    page = alert("sum by (cluster) (apiserver_request:burnrate1h) > 4.32")
    assert severities(in_rules("attainability", page)) == [WARNING]
    recorded = [record("apiserver_request:burnrate1h", "sum by (cluster, pod) (x)"), page]
    assert in_rules("attainability", *recorded) == [], "many pods a cluster"


def test_alerts_alone_are_judged_by_the_names_of_generators() -> None:
    rules = documents(sloth(0.7))[0].groups[-1].rules
    text = rule_file({"name": "alerts", "rules": [{"alert": one.alert, "expr": one.text} for one in rules]})
    assert severities(findings("attainability", text)) == [ERROR] * 4


@pytest.mark.parametrize(("target", "severities_firing"), [(0.95, ["page", "ticket"]), (0.7, ["ticket"])])
def test_promtool_agrees_when_everything_fails_for_a_day(
    target: float, severities_firing: list[str], tmp_path: Path
) -> None:
    """The page of a 70 % target stays silent for a whole day without a single good answer."""
    shop = {"sloth_id": "shop-availability", "sloth_service": "shop", "sloth_slo": "availability"}
    parts = ("sli-recordings", "meta-recordings", "alerts")
    summary = "shop burns its error budget."
    alerts = [
        {"exp_labels": {**shop, "severity": severity}, "exp_annotations": {"summary": summary}}
        for severity in severities_firing
    ]
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "5m",
        "group_eval_order": [f"sloth-slo-{part}-shop-availability" for part in parts],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": 'http_requests_total{job="shop",code="500"}', "values": "0+60x1440"},
                    {"series": 'http_requests_total{job="shop",code="200"}', "values": "0+0x1440"},
                ],
                "alert_rule_test": [
                    {"eval_time": "1d", "alertname": "ShopAvailability", "exp_alerts": alerts}
                ],
            }
        ],
    }
    (tmp_path / "rules.yml").write_text(sloth(target))
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    promtool = servers.newest("promtool")
    done = subprocess.run(
        [str(promtool.path), "test", "rules", "test.yml"],
        cwd=tmp_path,
        env={**os.environ, **promtool.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- interval arithmetic --------------------------------------------------------------------------

VALUES = {
    "requests_total": st.floats(0, 1e6),
    "http_requests:burnrate5m": st.floats(0, 1),
    "anything": st.floats(-1e6, 1e6),
}


@st.composite
def arithmetic(draw: st.DrawFn) -> tuple[str, float]:
    """An expression, and what it comes to for values that its series can have."""
    values = {name: draw(possible) for name, possible in VALUES.items()}

    def part(depth: int) -> tuple[str, float]:
        if depth == 0 or draw(st.booleans()):
            name = draw(st.sampled_from([*values, ""]))
            number = float(draw(st.integers(-20, 20)))
            return (name, values[name]) if name else (f"({number})", number)
        operator = draw(st.sampled_from("+-*/"))
        (left, x), (right, y) = part(depth - 1), part(depth - 1)
        if operator == "/":
            return (f"({left} / {right})", x / y) if y else (left, x)
        return f"({left} {operator} {right})", {"+": x + y, "-": x - y, "*": x * y}[operator]

    return part(4)


@given(arithmetic())
def test_no_value_lies_outside_its_bounds(drawn: tuple[str, float]) -> None:
    text, value = drawn
    assume(math.isfinite(value))
    bounds = BoundsFinder(RecordedSeries(())).of(promql.parse(text))
    slack = 1e-6 * max(1.0, abs(value))
    assert bounds.low - slack <= value <= bounds.high + slack
