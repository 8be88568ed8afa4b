"""The compiler, without a server: windows, names, and rules that only read what exists."""

from __future__ import annotations

import re

import promql_parser
import pytest
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.alerts.page import PageWindows, page_windows
from cmo_slo.compile import CompileError, compile_rules, recorded_names
from cmo_slo.durations import DurationError, duration, parse_duration
from cmo_slo.indicators import LatencyIndicator
from cmo_slo.monitor_series import MONITOR_COUNTERS, UP
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_slo.rule import Rule, RuleGroup, as_document, as_operator_manifest
from hypothesis import given
from hypothesis import strategies as st

SHIPPED = load_objectives(find_objectives("cmo-015"))


def all_rules(groups: tuple[RuleGroup, ...]) -> list[Rule]:
    return [rule for group in groups for rule in group.rules]


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
    with pytest.raises(DurationError, match="is no duration: expected one such as 15s"):
        parse_duration(text)


@pytest.mark.parametrize("interval", ["0s", "99ms", "3m", "1d"])
def test_a_scrape_interval_that_cannot_work_is_refused(interval: str) -> None:
    with pytest.raises(CompileError, match="cannot be compiled: expected 100ms to 2m"):
        compile_rules(SHIPPED, interval)


def windows(limit: float, interval: int, scrapes: float = 4.0, jump: float = 0.5) -> PageWindows:
    return page_windows(limit, interval, scrapes=scrapes, jump=jump)


def test_windows_follow_from_the_limit_the_scrape_interval_and_the_time_allowed() -> None:
    assert windows(0.10, 1000) == PageWindows(short=4_000, long=13_000)
    assert windows(0.10, 15_000) == PageWindows(short=60_000, long=195_000)
    assert windows(0.10, 1000, scrapes=10) == PageWindows(short=14_000, long=43_000)
    assert windows(0.05, 1000) == PageWindows(short=8_000, long=26_000)
    # A high limit would make windows of next to no scrapes, a low one of hours.
    assert windows(0.9, 1000) == PageWindows(short=4000, long=4_000)
    assert windows(0.0, 1000) == PageWindows(short=80_000, long=240_000)


@given(
    limit=st.floats(0.01, 0.45), scrapes=st.floats(2.0, 20.0), interval=st.sampled_from([1000, 5000, 15_000])
)
def test_a_page_comes_in_the_time_allowed(limit: float, scrapes: float, interval: int) -> None:
    """By the formula of the delay that an ANDed window causes: limit * (window - scrape) / jump."""
    found = windows(limit, interval, scrapes=scrapes)
    if found.long > 4 * interval:  # the shortest window there is
        for window in (found.short, found.long):
            assert limit * (window - interval) / 0.5 + 1.5 * interval <= scrapes * interval + 1e-6


def test_the_shipped_pages_come_in_four_seconds_and_in_a_minute() -> None:
    """At scrapes every second and every 15 s; on real servers `make bench-rules` measures it."""
    for objective in SHIPPED.objectives:
        if objective.page is not None:
            for interval, allowed in ((1000, 4000), (15_000, 60_000)):
                long = objective.page.windows(interval).long
                assert objective.page.bad_ratio_above * (long - interval) / 0.5 + 1.5 * interval <= allowed


@pytest.mark.parametrize("interval", ["15s", "5s", "1s", "500ms"])
def test_every_expression_parses(interval: str) -> None:
    for rule in all_rules(compile_rules(SHIPPED, interval)):
        promql_parser.parse(rule.expression)


def test_events_are_copied_before_those_in_time() -> None:
    """A scrape that is written between two copies is in the later one alone: no answer of it is slow."""
    records = [rule.record for rule in all_rules(compile_rules(SHIPPED)) if rule.record]
    indicators = [
        *(objective.indicator for objective in SHIPPED.objectives),
        *(component.indicator for component in SHIPPED.components),
    ]
    of_objectives = {f"{one.metric}_count" for one in indicators if isinstance(one, LatencyIndicator)}
    assert len(of_objectives) == 2
    for counted in of_objectives:
        within = counted.replace("_count", "_bucket")
        assert records.index(recorded.checkpoint(counted)) < records.index(recorded.checkpoint(within))


def selected(expression: str) -> set[str]:
    return set(
        re.findall(
            r"[a-zA-Z_:][\w:]*(?=[{\[])|(?<![\w:\"{,])(?:cmo_|slo:|scenario:|objective:)[\w:]+", expression
        )
    )


def test_rules_read_only_the_catalogue_and_what_rules_record() -> None:
    rules = all_rules(compile_rules(SHIPPED))
    known = {series for metric in catalogue.CATALOGUE for series in metric.series_names}
    known |= {UP, "ALERTS", *MONITOR_COUNTERS}
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


def test_ratios_are_recorded_for_people_alone_and_divided_behind_a_guard() -> None:
    """Ratios cannot be added up, and are NaN when idle."""
    readable = {recorded.BURN_RATE, recorded.BUDGET_REMAINING, recorded.COVERAGE}
    for rule in all_rules(compile_rules(SHIPPED)):
        if rule.record == recorded.COVERAGE:
            assert re.search(r"\) / \d+, 1\)$", rule.expression), "by the length of the window"
        elif rule.record not in readable:
            for denominator in re.findall(r"/ (.{12})", rule.expression):
                assert rule.alert, rule
                assert re.match(r"\(|\d+ ", denominator), denominator
            assert rule.expression.count(" / (") == rule.expression.count(" > 0) >") + rule.expression.count(
                " > 0)) >"
            )


def test_only_live_queries_page_and_fill_long_windows() -> None:
    for rule in all_rules(compile_rules(SHIPPED)):
        if rule.labels.get("severity") == "page" and rule.alert != "CMOServiceDown":
            assert 'scenario="live"' in rule.expression
            # A load test is what pages may leave out, and never what they look at.
            pages_on = re.sub(r"unless on \([^)]*\)\s+\(?\s*sum[^{]*{[^}]*}", "", rule.expression)
            assert not any(scenario in pages_on for scenario in SHIPPED.scenarios)
    for group in compile_rules(SHIPPED):
        if group.name.endswith(("hourly", "long-windows")):
            for rule in group.rules:
                assert 'scenario="live"' in rule.expression or rule.record == recorded.BUDGET_REMAINING


def test_every_alert_carries_what_the_one_who_reads_it_needs() -> None:
    alerts = [rule for rule in all_rules(compile_rules(SHIPPED)) if rule.alert]
    assert len(alerts) == 24
    for rule in alerts:
        assert rule.labels["severity"] in {"page", "ticket", "info", "watchdog"}
        assert rule.labels["role"] in {"symptom", "cause", "monitoring"}
        assert set(rule.annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
        assert "$value" in rule.annotations["description"]
        assert "{{" not in rule.annotations["summary"]
        assert rule.annotations["runbook_url"] == f"docs/runbooks/{rule.alert}.md"
        for word in re.findall(r"\$\w+", rule.annotations["description"]):
            assert word in ("$value", "$labels"), f"{rule.alert} leaves {word} open"
        if rule.labels["severity"] == "page":
            assert rule.labels["role"] == "symptom"


def test_pages_exclude_each_other() -> None:
    """As an inhibition cannot for certain: each asks for those before it, in the group where it sees them."""
    (pages,) = (
        [rule for rule in group.rules if rule.labels.get("severity") == "page"]
        for group in compile_rules(SHIPPED)
        if any(rule.labels.get("severity") == "page" for rule in group.rules)
    )
    asked = re.compile(r'ALERTS\{slo="cmo-015",alertname=~?"([^"]*)",alertstate="firing"\}')
    down, failing, hanging, slow, _ = (rule.alert for rule in pages)
    assert [(rule.alert, "|".join(asked.findall(rule.expression))) for rule in pages] == [
        ("CMOServiceDown", ""),
        # Only once none hangs any more.
        ("CMOLiveQueriesFailing", hanging),
        ("CMOLiveQueriesHanging", f"{down}|{failing}"),
        ("CMOLiveQueriesSlow", f"{down}|{failing}|{hanging}"),
        ("CMONoLiveTraffic", f"{down}|{failing}|{hanging}|{slow}"),
    ]


@pytest.mark.parametrize("interval", ["1s", "15s"])
def test_the_watchdog_is_evaluated_with_the_pages(interval: str) -> None:
    """In a group of a minute it would come two minutes after a start, when the dead-man has paged."""
    ((group, watchdog),) = (
        (group, rule)
        for group in compile_rules(SHIPPED, interval)
        for rule in group.rules
        if rule.labels.get("severity") == "watchdog"
    )
    assert group.interval_milliseconds == parse_duration(interval)
    assert {"page"} <= {rule.labels.get("severity") for rule in group.rules}
    assert watchdog.alert == "CMOWatchdog"


def test_a_link_begins_with_what_the_objectives_say() -> None:
    links = SHIPPED.links.model_copy(
        update={"runbooks": "https://wiki.example/runbooks/", "dashboards": "https://grafana.example"}
    )
    rules = all_rules(compile_rules(SHIPPED.model_copy(update={"links": links})))
    down = next(rule for rule in rules if rule.alert == "CMOServiceDown")
    assert down.annotations["runbook_url"] == "https://wiki.example/runbooks/CMOServiceDown.md"
    assert down.annotations["dashboard_url"] == "https://grafana.example/d/cmo-overview"


def test_the_operator_gets_the_same_groups() -> None:
    groups = compile_rules(SHIPPED)
    manifest = as_operator_manifest("cmo-015", groups)
    assert manifest["kind"] == "PrometheusRule"
    assert manifest["spec"] == as_document(groups)


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
        of_others = {series for one in catalogue.CATALOGUE for series in one.series_names}
        for name in selected(rule.expression) - of_others - {UP, *MONITOR_COUNTERS}:
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
    users = SHIPPED.model_copy(update={"objectives": SHIPPED.objectives[:1], "alerts": ()})
    assert [group.name for group in compile_rules(users)] == ["cmo-015-events", "cmo-015-objectives"]
    assert recorded.TOTAL_EVENTS not in recorded_names(users)


def test_a_rule_records_or_alerts() -> None:
    with pytest.raises(ValueError, match="either records a series or raises an alert"):
        Rule("up")
