"""Divisions by what may be 0, and the idioms that keep it from being so."""

from __future__ import annotations

import pytest

from .checking import ERROR, WARNING, alert, in_rules, record, severities

BAD = 'sum(rate(a_total{code="5"}[5m]))'
ALL = "sum(rate(a_total[5m]))"


@pytest.mark.parametrize(
    "expression",
    [
        f"{BAD} / {ALL}",
        f"1 - {BAD} / {ALL}",
        f"100 * {BAD} / {ALL}",
        "rate(t_seconds_sum[5m]) / rate(t_seconds_count[5m])",
        f"{BAD} / ({ALL} + sum(rate(b_total[5m])))",
        f"{BAD} / ({ALL} >= 0)",
        f"{BAD} / clamp_min({ALL}, 0)",
        f"{BAD} / ({ALL} or vector(0))",
        f"{BAD} / {ALL} and {BAD} > 0",
        f"{BAD} / {ALL} and {ALL} >= 0",
        f"{BAD} / {ALL} and {ALL} > -1",
        f"({BAD} / {ALL}) or ({ALL} > 0)",
        f"{BAD} / {ALL} unless {ALL} > 5",
        "a % queue_length",
        "a / (b - c)",
        "a / sum_over_time(increases[1h])",
        f"{BAD} / ({ALL} and {BAD} > 0)",
        "1 / 0",
    ],
)
def test_an_unguarded_division_in_a_recording_rule_is_an_error(expression: str) -> None:
    found = in_rules("guards", record("job:errors:ratio", expression))
    assert severities(found) == [ERROR]


@pytest.mark.parametrize(
    "expression",
    [
        f"{BAD} / ({ALL} > 0)",
        f"{BAD} / ({ALL} != 0)",
        f"{BAD} / ({ALL} >= 10)",
        f"{BAD} / clamp_min({ALL}, 1)",
        f"{BAD} / clamp_min({ALL}, 0.001)",
        f"{BAD} / {ALL} and {ALL} > 0",
        f"{BAD} / {ALL} and ({ALL} > 0)",
        f"1 - ({BAD} / {ALL} and {ALL} > 0)",
        f"100 * ({BAD} / {ALL}) and on () {ALL} > 0",
        f"{BAD} / {ALL} and up == 1 and {ALL} > 5",
        f"{BAD} / ({ALL} and {ALL} > 0)",
        f"{BAD} / ({ALL} unless {ALL} == 0)",
        f"{BAD} / {ALL} unless {ALL} < 1",
        "a / 60",
        "a / (2 * 30)",
        "a / time()",
        "sum(up) / count(up)",
        "count(up == 0) / count(up)",
        "sum_over_time(a[1h]) / count_over_time(a[1h])",
        f"{BAD} / ({ALL} > 0) / 0.05",
        f"{BAD} / (2 * ({ALL} > 0))",
        "node_filesystem_avail_bytes / node_filesystem_size_bytes",
        "container_memory_usage_bytes / kube_pod_container_resource_limits",
        "process_open_fds / process_max_fds",
    ],
)
def test_a_guard_or_a_denominator_that_is_never_0_is_well(expression: str) -> None:
    assert in_rules("guards", record("job:errors:ratio", expression)) == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # Infinity is above every limit:
        (f"{ALL} / sum(rate(b_total[5m])) > 5", [WARNING]),
        ("rate(t_seconds_sum[5m]) / rate(t_seconds_count[5m]) > 2", [WARNING]),
        # NaN, which these let through:
        (f"{BAD} / {ALL} != 0.5", [WARNING]),
        (f"{BAD} / {ALL}", [WARNING]),
        # A part of nothing is NaN, which a comparison drops:
        (f"{BAD} / {ALL} > 0.1", []),
        (f"100 * ({BAD} / {ALL}) > 10", []),
        (f"max({BAD} / {ALL}) > 0.1", []),
        (f"{BAD} / ({ALL} > 0) > 0.1", []),
    ],
)
def test_in_an_alert_it_is_a_warning_where_it_can_mislead(expression: str, expected: list[object]) -> None:
    assert severities(in_rules("guards", alert(expression))) == expected


def test_a_recorded_denominator_is_known_by_the_rule_that_records_it() -> None:
    ratio = record("job:errors:relative", f"{BAD} / job:budget:share")
    assert severities(in_rules("guards", ratio, record("job:budget:share", ALL))) == [ERROR]
    assert in_rules("guards", ratio, record("job:budget:share", "vector(1 - 0.95)")) == []
    assert in_rules("guards", ratio, record("job:budget:share", f"{ALL} > 0")) == []


def test_it_says_what_becomes_of_it() -> None:
    (part,) = in_rules("guards", record("job:errors:ratio", f"{BAD} / {ALL}"))
    assert f"is NaN while `{ALL}` is 0" in part.wrong
    assert "divide by `(… > 0)`" in part.mend
    (other,) = in_rules("guards", record("job:errors:ratio", f"sum(b) / {ALL}"))
    assert f"is infinite or NaN while `{ALL}` is 0" in other.wrong
