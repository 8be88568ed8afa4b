"""How long pages take: by the formula, held against the time allowed."""

from __future__ import annotations

import pytest
from cmo_slo.durations import MINUTE, duration
from hypothesis import given
from hypothesis import strategies as st

from .checking import ERROR, WARNING, alert, findings, in_rules, record, severities
from .generators import kubernetes_mixin, pyrra, sloth


def ratio(window: str, limit: str) -> str:
    return f'sum(rate(a_total{{code="5"}}[{window}])) / sum(rate(a_total[{window}])) {limit}'


@pytest.mark.parametrize(
    ("expression", "fields"),
    [
        (ratio("1h", "> 0.72"), {}),
        (f"{ratio('5m', '> 0.1')} and {ratio('1h', '> 0.1')}", {}),
        (f"{ratio('1h', '> 0.72')} or {ratio('6h', '> 0.1')}", {}),
        (f"max({ratio('1h', '> 0.72')})", {}),
        (f"sort({ratio('1h', '> 0.72')})", {}),
        (f"1 - {ratio('1h', '')} < 0.28", {}),
        (f"100 * {ratio('1h', '> 72')}", {}),
        ("avg_over_time(up[1h]) < 0.28", {}),
        (ratio("5m", "> 0.1"), {"for": "10m"}),
        ("up == 0", {"for": "10m"}),
        ("queue_length > 100", {"for": "6m"}),
    ],
)
def test_a_page_that_takes_longer_than_allowed_is_an_error(expression: str, fields: dict[str, str]) -> None:
    found = in_rules("time_to_reach", alert(expression, **fields))
    assert severities(found) == [ERROR]
    assert "after everything fails" in found[0].wrong


@pytest.mark.parametrize(
    ("expression", "fields"),
    [
        (ratio("5m", "> 0.1"), {}),
        (ratio("1h", "> 0.01"), {}),
        ("avg_over_time(up[10m]) < 0.9", {}),
        (f"{ratio('5m', '> 0.1')} and {ratio('7m30s', '> 0.1')}", {}),
        (f"{ratio('5m', '> 0.1')} or {ratio('6h', '> 0.9')}", {}),
        (f"{ratio('5m', '> 0.1')} unless {ratio('6h', '> 0.9')}", {}),
        (ratio("5m", "> 0.1"), {"for": "2m"}),
        ("up == 0", {"for": "4m"}),
        # Not a ratio: nothing is known of how far it jumps.
        ("rate(errors_total[6h]) > 5", {}),
        # Never at all: `attainability` says so.
        (ratio("1h", "> 1.2"), {}),
    ],
)
def test_a_page_in_time_is_none(expression: str, fields: dict[str, str]) -> None:
    assert in_rules("time_to_reach", alert(expression, **fields)) == []


def test_tickets_may_take_their_time() -> None:
    slow = alert(ratio("3d", "> 0.5"), labels={"severity": "ticket"})
    assert in_rules("time_to_reach", slow) == []
    assert in_rules("time_to_reach", {**slow, "labels": {"severity": "critical"}}) != []


def test_half_of_all_failing_is_looked_at_too() -> None:
    slow = in_rules("time_to_reach", alert(ratio("10m", "> 0.3")))
    assert severities(slow) == [WARNING]
    assert "pages 6m21s after half of all events fail" in slow[0].wrong
    never = in_rules("time_to_reach", alert(ratio("5m", "> 0.72")))
    assert severities(never) == [WARNING]
    assert "never pages while half of all events fail" in never[0].wrong


def test_the_time_allowed_and_the_scrape_interval_are_settings() -> None:
    page = alert(ratio("10m", "> 0.3"))
    assert in_rules("time_to_reach", page, time_to_page=7 * MINUTE) == []
    assert severities(in_rules("time_to_reach", page, time_to_page=MINUTE)) == [ERROR]
    minutely = in_rules("time_to_reach", alert("up == 0", **{"for": "4m"}), scrape_interval=MINUTE)
    assert severities(minutely) == [ERROR], "4m, a scrape and an evaluation"


def test_for_counts_in_whole_evaluations() -> None:
    page = alert("up == 0", **{"for": "61s"})
    (found,) = in_rules("time_to_reach", page, interval="3m")
    assert found.wrong.startswith("pages 6m15s after everything fails, 1m1s of it in `for`")


def test_a_recorded_series_has_the_window_of_the_rule_that_records_it() -> None:
    page = alert("job:errors:share > 0.72")
    slow = record("job:errors:share", ratio("1h", ""))
    quick = record("job:errors:share", ratio("2m", ""))
    assert severities(in_rules("time_to_reach", slow, page)) == [ERROR]
    assert severities(in_rules("time_to_reach", quick, page)) == [WARNING], "half never does"
    on_top = record("job:errors:longer", "avg_over_time(job:errors:share[30m])")
    (found,) = in_rules("time_to_reach", slow, on_top, alert("job:errors:longer > 0.1"))
    assert found.wrong.startswith("pages 9m29s"), "30m and 1h add up"


def test_a_series_recorded_elsewhere_has_the_window_that_its_name_ends_in() -> None:
    assert severities(in_rules("time_to_reach", alert("http_requests:burnrate1h > 0.72"))) == [ERROR]
    assert in_rules("time_to_reach", alert("http_requests:burnrate5m > 0.1")) == []


def test_of_rules_with_one_name_the_quickest_counts() -> None:
    quick, slow = (
        alert(ratio("5m", "> 0.1")),
        alert(ratio("6h", "> 0.1"), labels={"severity": "page", "long": "6h"}),
    )
    assert in_rules("time_to_reach", quick, slow) == []
    assert in_rules("time_to_reach", slow, quick) == []
    assert severities(in_rules("time_to_reach", quick, {**slow, "alert": "Other"})) == [ERROR]


@pytest.mark.parametrize(
    ("generator", "expected"), [(sloth, "43m32s"), (pyrra, "44m35s"), (kubernetes_mixin, "24m1s")]
)
def test_generators_at_95_percent_page_late_when_everything_fails(generator: object, expected: str) -> None:
    assert callable(generator)
    found = findings("time_to_reach", generator(0.95))
    assert severities(found) == [ERROR]
    assert found[0].wrong.startswith(f"pages {expected} after everything fails")


@given(
    window=st.integers(1, 1000).map(lambda minutes: minutes * MINUTE),
    percent=st.integers(1, 99),
    scrape=st.sampled_from([1000, 15_000, 60_000]),
)
def test_the_formula(window: int, percent: int, scrape: int) -> None:
    page = alert(ratio(duration(window), f"> {percent / 100}"))
    expected = percent / 100 * max(window - scrape, 0) + 2 * scrape
    found = in_rules("time_to_reach", page, scrape_interval=scrape, time_to_page=round(expected) + 1)
    assert ERROR not in severities(found)
    found = in_rules("time_to_reach", page, scrape_interval=scrape, time_to_page=round(expected) - 1)
    assert severities(found) == [ERROR]
