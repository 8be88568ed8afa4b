"""The compiler, without a server: windows, names, and rules that only read what exists."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.compile import (
    CompileError,
    PageWindows,
    Rule,
    RuleGroup,
    as_document,
    compile_rules,
    duration,
    page_windows,
    parse_duration,
    recorded_names,
)
from cmo_slo.objectives import find_objectives, load_objectives

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

SHIPPED = load_objectives(find_objectives("cmo-015"))


def all_rules(groups: tuple[RuleGroup, ...]) -> list[Rule]:
    return [rule for group in groups for rule in group.rules]


def with_page(**changes: Any) -> Objectives:
    """The shipped objectives with another page; not validated, as a caller in Python could have it."""
    success = SHIPPED.objectives[1]
    assert success.page is not None
    changed = success.model_copy(update={"page": success.page.model_copy(update=changes)})
    return SHIPPED.model_copy(update={"objectives": (changed,)})


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("15s", 15_000),
        ("1s", 1000),
        ("500ms", 500),
        ("1m30s", 90_000),
        ("7m29s999ms", 449_999),
        ("30d", 2_592_000_000),
    ],
)
def test_durations_are_written_as_they_are_read(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds
    assert duration(milliseconds) == text


@pytest.mark.parametrize("text", ["", "15", "s", "1.5s", "15 s", "-1s", "1w2", "15sec", "x15s"])
def test_what_is_no_duration_is_said_so(text: str) -> None:
    with pytest.raises(CompileError, match="is no duration: expected one such as 15s"):
        parse_duration(text)


@pytest.mark.parametrize("interval", ["0s", "99ms", "3m", "1d"])
def test_a_scrape_interval_that_cannot_work_is_refused(interval: str) -> None:
    with pytest.raises(CompileError, match="cannot be compiled: expected 100ms to 2m"):
        compile_rules(SHIPPED, interval)


def test_windows_follow_from_the_limit_and_the_scrape_interval() -> None:
    assert page_windows(0.10, 1000) == PageWindows(short=10_000, long=30_000)
    assert page_windows(0.10, 15_000) == PageWindows(short=150_000, long=450_000)
    assert page_windows(0.05, 1000) == PageWindows(short=20_000, long=60_000)
    # A high limit would make windows of next to no scrapes, a low one of hours.
    assert page_windows(0.9, 1000) == PageWindows(short=4000, long=12_000)
    assert page_windows(0.0, 1000) == PageWindows(short=80_000, long=240_000)


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.1, 0.2, 0.25])
def test_a_page_comes_three_scrapes_after_everything_fails(limit: float) -> None:
    """By the formula of the delay that an ANDed window causes: limit * (window - scrape) / jump."""
    interval = 1000
    long = page_windows(limit, interval).long
    assert limit * (long - interval) / 1.0 <= 3 * interval


def test_a_page_that_could_never_fire_is_refused() -> None:
    with pytest.raises(CompileError, match=r"CMOLiveQueriesFailing could never fire: .* more than 100% bad"):
        compile_rules(with_page(bad_ratio_above=1.0))
    assert compile_rules(with_page(bad_ratio_above=0.99))


@pytest.mark.parametrize("interval", ["15s", "5s", "1s", "500ms"])
def test_every_expression_parses(interval: str) -> None:
    for rule in all_rules(compile_rules(SHIPPED, interval)):
        promql_parser.parse(rule.expression)


def selected(expression: str) -> set[str]:
    return set(
        re.findall(
            r"[a-zA-Z_:][\w:]*(?=[{\[])|(?<![\w:\"{,])(?:cmo_|slo:|scenario:|objective:)[\w:]+", expression
        )
    )


def test_rules_read_only_the_catalogue_and_what_rules_record() -> None:
    rules = all_rules(compile_rules(SHIPPED))
    known = {series for metric in catalogue.CATALOGUE for series in metric.series_names}
    known |= {rule.record for rule in rules if rule.record}
    for rule in rules:
        assert selected(rule.expression) <= known, rule


def test_a_group_records_before_it_reads() -> None:
    """Within a group rules run in order: one that read a later one would see the evaluation before."""
    for group in compile_rules(SHIPPED):
        own = {rule.record for rule in group.rules if rule.record}
        done: set[str | None] = set()
        for rule in group.rules:
            later = (selected(rule.expression) & own) - done
            assert not later, (rule.record or rule.alert, later)
            done.add(rule.record)


def test_no_rule_records_a_ratio() -> None:
    """Ratios cannot be added up, and are NaN when idle; only the page divides, behind a guard."""
    for rule in all_rules(compile_rules(SHIPPED)):
        if rule.record:
            assert "/" not in rule.expression
        else:
            assert rule.expression.count("/ (") == rule.expression.count("> 0)") == 2


def test_only_live_queries_page_and_fill_long_windows() -> None:
    for group in compile_rules(SHIPPED):
        for rule in group.rules:
            if rule.alert or group.name.endswith(("hourly", "long-windows")):
                assert 'scenario="live"' in rule.expression


def test_every_page_carries_what_the_one_who_is_woken_needs() -> None:
    (page,) = (rule for rule in all_rules(compile_rules(SHIPPED)) if rule.alert)
    assert page.alert == "CMOLiveQueriesFailing"
    assert page.labels["severity"] == "page"
    assert set(page.annotations) == {"summary", "description", "runbook", "dashboard"}
    assert "$value" in page.annotations["description"]


def test_names_do_not_depend_on_the_scrape_interval() -> None:
    def names(interval: str) -> list[tuple[str | None, str | None, dict[str, str]]]:
        rules = all_rules(compile_rules(SHIPPED, interval))
        return [(rule.record, rule.alert, dict(rule.labels)) for rule in rules]

    assert names("15s") == names("1s")
    assert set(recorded.AGGREGATED) <= set(recorded_names(SHIPPED))


def test_every_rule_says_whose_it_is_so_that_two_files_can_be_loaded_together() -> None:
    """Rules of two objectives files read each its own series, and none records what another does."""
    other = SHIPPED.model_copy(update={"name": "cmo-015-revalidation"})
    for rule in all_rules(compile_rules(other)):
        assert rule.labels["slo"] == "cmo-015-revalidation"
        for name in selected(rule.expression) - {
            series for one in catalogue.CATALOGUE for series in one.series_names
        }:
            for selector in re.findall(re.escape(name) + r"(\{[^}]*\})?", rule.expression):
                assert 'slo="cmo-015-revalidation"' in selector


def test_no_two_rules_record_the_same_series() -> None:
    seen = [
        (rule.record, tuple(sorted(rule.labels.items())))
        for rule in all_rules(compile_rules(SHIPPED))
        if rule.record
    ]
    assert len(seen) == len(set(seen))


def test_the_document_is_plain_data() -> None:
    document = as_document(compile_rules(SHIPPED, "1s"))
    first = document["groups"][0]
    assert first["name"] == "cmo-015-events"
    assert first["interval"] == "1s"
    assert {"record", "expr", "labels"} == set(first["rules"][0])


def test_objectives_without_events_compile_to_what_there_is() -> None:
    users = SHIPPED.model_copy(update={"objectives": SHIPPED.objectives[:1]})
    assert [group.name for group in compile_rules(users)] == ["cmo-015-events", "cmo-015-objectives"]
    assert recorded.TOTAL_EVENTS not in recorded_names(users)


def test_a_rule_records_or_alerts() -> None:
    with pytest.raises(ValueError, match="either records a series or raises an alert"):
        Rule("up")
