"""Ranges against the scrape interval, the interval of what records them, and the retention."""

from __future__ import annotations

import pytest
from cmo_slo.durations import parse_duration

from .checking import DAYS_40, ERROR, WARNING, alert, findings, group, in_rules, record, rule_file, severities
from .generators import sloth


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(a_total[15s])", [ERROR]),
        ("rate(a_total[29s])", [ERROR]),
        ("increase(a_total[10s])", [ERROR]),
        ("irate(a_total[20s])", [ERROR]),
        ("deriv(a[15s])", [ERROR]),
        ("rate(a_total[30s])", [WARNING]),
        ("rate(a_total[59s])", [WARNING]),
        ("rate(a_total[1m])", []),
        ("rate(a_total[59s999ms])", []),
        ("max_over_time(a[10s])", [ERROR]),
        ("max_over_time(a[15s])", []),
        ("sum by (job) (rate(a_total[15s]))", [ERROR]),
        ("a + b", []),
    ],
)
def test_a_range_holds_samples_enough(expression: str, expected: list[object]) -> None:
    assert severities(in_rules("windows", alert(expression))) == expected


def test_the_scrape_interval_is_a_setting() -> None:
    assert in_rules("windows", alert("rate(a_total[4s])"), scrape_interval=1000) == []
    assert severities(in_rules("windows", alert("rate(a_total[3m])"), scrape_interval=60_000)) == [WARNING]


@pytest.mark.parametrize(
    "expression",
    [
        "increase(a_total[16d])",
        "increase(a_total[1d] offset 15d)",
        "a offset 15d1s",
        "max_over_time(rate(a_total[1d])[15d:1h])",
        "max_over_time(rate(a_total[1m])[1h:1m] offset 15d)",
    ],
)
def test_what_reaches_back_beyond_the_retention_is_an_error(expression: str) -> None:
    found = in_rules("windows", alert(expression))
    assert severities(found) == [ERROR]
    assert "samples are kept for 15d" in found[0].wrong
    assert in_rules("windows", alert(expression), retention=DAYS_40) == []


@pytest.mark.parametrize(
    "expression", ["increase(a_total[15d])", "a offset 14d", "a offset -20d", "increase(a_total[16d] @ 0)"]
)
def test_what_is_kept_can_be_read(expression: str) -> None:
    assert in_rules("windows", alert(expression)) == []


def hourly(reading: str) -> str:
    return rule_file(
        group(record("job:a:hourly", "sum_over_time(a[1h])"), name="hourly", interval="1h"),
        group(record("job:a:read", reading), name="reading"),
    )


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ("job:a:hourly", [ERROR]),
        ("sum(job:a:hourly) / 3600", [ERROR]),
        ("job:a:hourly offset 1h", [ERROR]),
        ("last_over_time(job:a:hourly[1h])", []),
        ("sum_over_time(job:a:hourly[23h59m59s999ms])", []),
        ("sum_over_time(job:a:hourly[59m59s999ms])", []),
        ("sum_over_time(job:a:hourly[30m])", [ERROR]),
        ("max_over_time(job:a:hourly[5m])", [ERROR]),
        ("rate(job:a:hourly[2h])", [WARNING]),
    ],
)
def test_a_series_recorded_hourly_is_read_over_an_hour_or_more(reading: str, expected: list[object]) -> None:
    assert severities(findings("windows", hourly(reading))) == expected


def test_it_says_how_to_read_it() -> None:
    (found,) = findings("windows", hourly("job:a:hourly"))
    assert "is recorded every 1h and read at an instant, where it is gone after 5m" in found.wrong
    assert "read `last_over_time(job:a:hourly[1h])`" in found.mend


def test_of_series_of_one_name_those_count_whose_labels_are_asked_for() -> None:
    text = rule_file(
        group(record("job:a:sum", "sum(a)", window="short"), name="often", interval="15s"),
        group(record("job:a:sum", "sum(a)", window="1d"), name="hourly", interval="1h"),
        group(
            record("job:a:short", 'job:a:sum{window="short"}'),
            record("job:a:any", "job:a:sum"),
            record("job:a:day", 'job:a:sum{window="1d"}'),
            name="reading",
        ),
    )
    assert [finding.rule for finding in findings("windows", text)] == ["job:a:day"]


def test_a_series_recorded_every_five_minutes_can_still_be_seen() -> None:
    text = rule_file(
        group(record("job:a:sum", "sum(a)"), name="five", interval="5m"),
        group(record("job:a:b", "job:a:sum")),
    )
    assert findings("windows", text) == []


def test_sloth_needs_a_month_of_samples() -> None:
    found = findings("windows", sloth(0.95))
    assert [finding.rule for finding in found] == ["slo:sli_error:ratio_rate30d"]
    assert findings("windows", sloth(0.95), retention=parse_duration("30d")) == []
