"""Samples that groups read: the arithmetic, and the budget."""

from __future__ import annotations

import pytest
from cmo_slo.checks import Context, promql
from cmo_slo.checks.cost import CostEstimator
from cmo_slo.checks.series import RecordedSeries
from hypothesis import given
from hypothesis import strategies as st

from .checking import DAYS_40, ERROR, documents, findings, group, in_rules, record, rule_file, severities
from .generators import sloth


def samples(expression: str, *texts: str, evaluation: int = 15_000) -> int:
    """Samples that one evaluation reads, with 10 series a foreign metric and 5 values an open label."""
    context = Context(default_series=10, default_label_values=5)
    estimator = CostEstimator(RecordedSeries(documents(*texts)), context)
    return estimator.samples_per_evaluation(promql.parse(expression), evaluation)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a", 10),
        ("a + b", 20),
        ("a offset 1h", 10),
        ("rate(a[1m])", 40),
        ("rate(a[10s])", 10),
        ("sum(rate(a[1m])) / sum(rate(b[1m]))", 80),
        ("up", 1),
        ("1 + 1", 0),
        ("vector(1)", 0),
        ('a{instance="x"}', 1),
        ("max_over_time(rate(a[1m])[1h:1m])", 2400),
        ("max_over_time(rate(a[1m])[1h:])", 9600),
        # Of our own series the lists are known: 5 outcomes, and as many scenarios as a setting says.
        ("cmo_queries_total", 25),
        ('cmo_queries_total{outcome="error"}', 5),
        ('cmo_queries_total{outcome=~"error|timeout"}', 10),
        ('cmo_queries_total{outcome="error",scenario="live"}', 1),
        ('cmo_queries_total{outcome!="error"}', 25),
        # 21 edges and +Inf, 3 outcomes, 5 scenarios.
        ("cmo_query_duration_seconds_bucket", 330),
        ('cmo_query_duration_seconds_bucket{le="2.0"}', 15),
        ('cmo_query_duration_seconds_bucket{le=~"2|2[.]0"}', 15),
    ],
)
def test_samples_are_series_times_what_is_in_range(expression: str, expected: int) -> None:
    assert samples(expression) == expected


def test_a_recorded_series_counts_by_the_rule_and_the_interval_it_is_recorded_with() -> None:
    text = rule_file(
        group(
            record("job:a:sum", "sum(a)", w="1"),
            record("job:a:sum", "sum by (scenario) (cmo_queries_total)", w="2"),
            name="hourly",
            interval="1h",
        )
    )
    assert samples('sum_over_time(job:a:sum{w="1"}[1d])', text) == 24
    assert samples('sum_over_time(job:a:sum{w="2"}[1d])', text) == 24 * 5
    assert samples("sum_over_time(job:a:sum[1d])", text) == 24 * 6


def test_rules_that_record_each_other_in_a_circle_end() -> None:
    text = rule_file(group(record("a:b:c", "d:e:f"), record("d:e:f", "a:b:c")))
    assert samples("a:b:c", text) > 0


def test_a_group_above_the_budget_is_an_error_that_names_the_dearest_rules() -> None:
    rules = [record(f"job:a:rate{hours}h", f"sum(rate(a[{hours}h]))") for hours in (1, 2, 3, 4)]
    # 100 series, 240 samples an hour, 10 hours, 4 evaluations a minute
    (found,) = in_rules("cost", *rules, interval="15s", budget=959_999)
    assert found.severity is ERROR
    assert found.rule == ""
    assert "reads about 960,000 samples a minute, evaluated every 15s" in found.wrong
    assert (
        "job:a:rate4h in line 11 (40%), job:a:rate3h in line 9 (30%), job:a:rate2h in line 7 (20%)"
        in found.wrong
    )
    assert in_rules("cost", *rules, interval="15s", budget=960_000) == []
    assert in_rules("cost", *rules, interval="30s", budget=480_000) == []


def test_a_month_of_raw_counters_is_above_the_default_budget_and_of_roll_ups_below() -> None:
    month = in_rules("cost", record("job:a:increase30d", "sum(increase(a[30d]))"), retention=DAYS_40)
    assert severities(month) == [ERROR]
    rolled = rule_file(
        group(record("job:a:hourly", "sum_over_time(job:a:increase[1h])"), name="hourly", interval="1h"),
        group(record("job:a:increase", "sum(a)"), record("job:a:month", "sum_over_time(job:a:hourly[30d])")),
    )
    assert findings("cost", rolled) == []


def test_sloth_reads_its_longest_windows_from_raw_counters() -> None:
    (found,) = findings("cost", sloth(0.95))
    assert found.group == "sloth-slo-sli-recordings-shop-availability"
    assert "slo:sli_error:ratio_rate3d" in found.wrong


@given(
    series=st.integers(1, 1000),
    in_range=st.integers(1, 10_000),
    scrape=st.sampled_from([1000, 15_000, 60_000]),
    evaluations=st.sampled_from([1, 2, 4, 60]),
)
def test_the_arithmetic(series: int, in_range: int, scrape: int, evaluations: int) -> None:
    context = Context(scrape_interval=scrape, default_series=series)
    text = rule_file(
        group(record("a:b:c", f"sum(rate(a[{in_range * scrape}ms]))"), interval=f"{60_000 // evaluations}ms")
    )
    (document,) = documents(text)
    (only,) = document.groups
    estimator = CostEstimator(RecordedSeries([document]), context)
    assert estimator.samples_per_minute(only, only.rules[0]) == series * in_range * evaluations
