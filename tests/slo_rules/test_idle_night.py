"""A night in which nobody asks a healthy service wakes nobody, and makes nobody read a ticket in the morning.

Eight hours of raw series at 15 s, with a few queries before and after and a deploy at three o'clock, are put
into a real Prometheus, the committed rules are evaluated over them, and every alert is asked for the whole
night. A burst of failures in the same night is the proof that alerts would have been seen.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from cmo_slo.durations import SECOND, parse_duration
from cmo_slo.recorded import TOTAL_EVENTS, TOTAL_EVENTS_IN_WINDOW

from .backfill import Past, Point
from .promtool_runs import read
from .rule_slice import rules_of_alert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmo_stack.servers import Server

RULES: Final[dict[str, Any]] = read("rules/cmo-015.yml")
TARGET: Final = 'job="cmo",instance="127.0.0.1:9464"'
SCRAPE: Final = 15
HOUR: Final = 3600
BEGIN: Final = 1_770_240_000  # a Wednesday, 21:20 UTC
IDLE: Final = BEGIN + HOUR // 2
DEPLOY: Final = IDLE + 5 * HOUR
BURST: Final = IDLE + 4 * HOUR
IDLE_END: Final = IDLE + 8 * HOUR
END: Final = IDLE_END + HOUR // 2


class Night:
    """What a service and its monitor expose, at every scrape of the night."""

    def __init__(self, *, failures: int = 0) -> None:
        self.failures = failures
        self.series: dict[str, list[Point]] = {}
        for at in range(BEGIN, END + 1, SCRAPE):
            for name, value in self._monitor():
                self._add(name, at, value)
            # A deploy: two scrapes find nobody, then there is a new process.
            down = DEPLOY <= at < DEPLOY + 2 * SCRAPE
            self._add(f"up{{{TARGET}}}", at, float(not down))
            if not down:
                for name, labels, value in self._service(at):
                    self._add(f"{name}{{{TARGET}{labels and ','}{labels}}}", at, float(value))

    def _add(self, series: str, at: int, value: float) -> None:
        self.series.setdefault(series, []).append((at, value))

    @staticmethod
    def _monitor() -> Iterator[tuple[str, float]]:
        prometheus = 'job="prometheus",instance="127.0.0.1:9090"'
        alertmanager = 'job="alertmanager",instance="127.0.0.1:9093"'
        for target in (prometheus, alertmanager, 'job="probe",instance="127.0.0.1:9465"'):
            yield f"up{{{target}}}", 1.0
        yield 'cmo_probe_up{job="probe",instance="127.0.0.1:9465"}', 1.0
        for group in RULES["groups"]:
            own = f'{prometheus},rule_group="/rules/cmo-015.yml;{group["name"]}"'
            yield f"prometheus_rule_evaluation_failures_total{{{own}}}", 0.0
            yield f"prometheus_rule_group_iterations_missed_total{{{own}}}", 0.0
        yield f"prometheus_notifications_dropped_total{{{prometheus}}}", 0.0
        yield f'prometheus_notifications_errors_total{{{prometheus},alertmanager="a"}}', 0.0
        yield f'alertmanager_notifications_failed_total{{{alertmanager},integration="webhook"}}', 0.0

    def _service(self, at: int) -> Iterator[tuple[str, str, float]]:
        """Names, labels and values; counters begin at 0 with the process."""
        born = DEPLOY + SCRAPE if at > DEPLOY else BEGIN - 100 * HOUR
        since = max(born, BEGIN)
        asked = self._asked(since, at)
        failed = self._failed(since, at)
        yield "cmo_worker_start_time_seconds", 'worker="0"', born
        yield from _queries(asked, failed)
        yield from _calls(asked)
        # The event loop is looked at ten times a second, whether anybody asks or not.
        looks = 10 * (at - since)
        yield "cmo_event_loop_lag_seconds_count", "", looks
        yield "cmo_event_loop_lag_seconds_bucket", 'le="0.5"', looks
        yield "cmo_event_loop_blocked_seconds", 'worker="0"', 0
        # It warms up for half an hour after the deploy; collections make it go up and down by some megabytes.
        warm = 60e6 * min(1.0, (at - born) / (HOUR / 2))
        yield "cmo_memory_bytes", 'worker="0",kind="rss"', 350e6 + warm + 4e6 * (at // SCRAPE % 7)
        for name in ("cmo_series_dropped_total", "cmo_instrumentation_errors_total"):
            yield name, 'metric="cmo_queries_total"', 0

    @staticmethod
    def _asked(since: int, at: int) -> int:
        """Queries answered: one in 110 s before and after the night, none in it."""

        def until(moment: int) -> int:
            before = min(moment, IDLE) - BEGIN
            after = max(moment, IDLE_END) - IDLE_END
            return before // 110 + after // 110

        return until(at) - until(since)

    def _failed(self, since: int, at: int) -> int:
        """Failures of the burst: one every three seconds."""
        return min(self.failures, max(0, (at - BURST) // 3)) if since < BURST else 0


def last_week(*, queries_an_hour: int) -> dict[str, list[Point]]:
    """What the rules had recorded of the night a week before: a few live queries in every hour."""
    of_hours = 'slo="cmo-015",objective="success",scenario="live",window="1h"'
    week = 7 * 24 * HOUR
    moments = range(BEGIN - week, END - week + HOUR, 60)
    return {f"{TOTAL_EVENTS_IN_WINDOW}{{{of_hours}}}": [(at, float(queries_an_hour)) for at in moments]}


def _queries(asked: int, failed: int) -> Iterator[tuple[str, str, float]]:
    live = 'scenario="live"'
    yield "cmo_queries_started_total", live, asked + failed
    yield "cmo_queries_in_progress", live, 0
    for outcome in ("success", "error", "timeout", "rejected", "cancelled"):
        number = {"success": asked, "error": failed}.get(outcome, 0)
        yield "cmo_queries_total", f'{live},outcome="{outcome}"', number
    for outcome in ("success", "failure", "cancelled"):
        number = {"success": asked, "failure": failed}.get(outcome, 0)
        yield "cmo_query_duration_seconds_count", f'{live},outcome="{outcome}"', number
        for edge in ("1.5", "2.0"):
            yield "cmo_query_duration_seconds_bucket", f'{live},outcome="{outcome}",le="{edge}"', number
    for result in ("hit", "miss", "bypass"):
        number = {"hit": asked - asked // 5, "miss": asked // 5}.get(result, 0)
        yield "cmo_query_cache_results_total", f'{live},result="{result}"', number
    for source in ("cache", "lightrag", "perplexity", "stale", "default"):
        number = {"cache": asked - asked // 5, "lightrag": asked // 5, "default": failed}.get(source, 0)
        yield "cmo_answers_total", f'{live},source="{source}"', number


def _calls(asked: int) -> Iterator[tuple[str, str, float]]:
    """What the components did: LightRAG answers a fifth of the queries, Perplexity none."""
    for component in ("lightrag", "perplexity"):
        calls = asked // 5 if component == "lightrag" else 0
        for outcome in ("success", "error", "timeout", "rejected", "cancelled"):
            number = calls if outcome == "success" else 0
            labels = f'scenario="live",component="{component}",outcome="{outcome}"'
            yield "cmo_component_calls_total", labels, number
        yield "cmo_queue_wait_seconds_count", f'component="{component}"', calls
        yield "cmo_queue_wait_seconds_bucket", f'component="{component}",le="0.5"', calls
        yield "cmo_llm_cost_usd_total", f'component="{component}",provider="p",model="m"', 0.02 * calls
        for state in ("closed", "open", "half_open"):
            labels = f'component="{component}",state="{state}"'
            yield "cmo_circuit_breaker_state", labels, float(state == "closed")


def alerts(wanted: Callable[[dict[str, Any]], bool]) -> list[tuple[str, dict[str, Any]]]:
    """Alerts, each with the interval of its group."""
    return [
        (group["interval"], rule)
        for group in RULES["groups"]
        for rule in group["rules"]
        if "alert" in rule and wanted(rule)
    ]


def what_they_need(names: list[str]) -> dict[str, Any]:
    """The rules that some alerts are built on, in the order of the file."""
    needed = [
        rule for name in names for group in rules_of_alert(RULES, name)["groups"] for rule in group["rules"]
    ]
    groups = [
        {**group, "rules": [rule for rule in group["rules"] if rule in needed]} for group in RULES["groups"]
    ]
    return {"groups": [group for group in groups if group["rules"]]}


def longest(past: Past, interval: str, rule: dict[str, Any]) -> int | None:
    """For how many seconds an alert's expression holds at a stretch at most; None where it never does."""
    step = parse_duration(interval) // SECOND
    stretch = None
    for series in past.query(rule["expr"], BEGIN + 2 * step, END, interval):
        moments = [int(at) for at, _ in series["values"]]
        began = moments[0]
        for before, now in pairwise([moments[0], *moments]):
            if now - before > step:
                began = now
            stretch = max(stretch or 0, now - began)
    return stretch


def test_an_idle_night_wakes_nobody(prometheus_server: Server, tmp_path: Path) -> None:
    watched = alerts(lambda rule: rule["labels"]["severity"] in ("page", "ticket", "watchdog"))
    with Past(prometheus_server, tmp_path / "past") as past:
        past.store(Night().series)
        past.store(last_week(queries_an_hour=12))
        past.evaluate(what_they_need([rule["alert"] for _, rule in watched]), BEGIN, END)
        held = {rule["alert"]: longest(past, interval, rule) for interval, rule in watched}
        seen = {
            series["metric"]["__name__"]
            for series in past.query('{__name__=~".+:.+"}', DEPLOY + HOUR, DEPLOY + HOUR, "15s")
        }

    assert held.pop("CMOWatchdog") == END - BEGIN - 2 * SCRAPE
    # The service is gone while it is deployed, but not for as long as the page waits.
    (waits,) = (rule["for"] for _, rule in watched if rule["alert"] == "CMOServiceDown")
    gone = held.pop("CMOServiceDown")
    assert gone is not None
    assert gone < parse_duration(waits) // SECOND
    assert len(held) == 21
    assert {name for name, seconds in held.items() if seconds is not None} == set()
    # They had something to look at.
    assert seen >= {
        "scenario:slo_total_events:sum",
        "scenario:slo_slow_events:sum",
        "scenario:slo_burn_rate:ratio",
        "instance:slo_started_queries:increase",
        "alert:slo_total_events:increase",
        "instance:slo_memory_floor:min",
    }


def test_a_burst_of_failures_in_the_night_is_seen(prometheus_server: Server, tmp_path: Path) -> None:
    """The same night, but for forty failures in two minutes, by the rules that the page needs."""
    ((interval, page),) = alerts(lambda rule: rule["alert"] == "CMOLiveQueriesFailing")
    with Past(prometheus_server, tmp_path / "past") as past:
        past.store(Night(failures=40).series)
        past.evaluate(what_they_need([page["alert"]]), BEGIN, END)
        (found,) = past.query(page["expr"], BEGIN + HOUR // 4, END, interval)
        live = '{objective="success",scenario="live"}'
        (counted,) = past.query(f"sum_over_time({TOTAL_EVENTS}{live}[10h])", END, END, "15s")

    moments = [int(at) for at, _ in found["values"]]
    assert BURST < moments[0] <= BURST + 120
    assert moments[-1] < BURST + 2 * HOUR
    assert {float(value) for _, value in found["values"]} == {1.0}
    # All that was asked was counted, over the deploy too.
    assert float(counted["values"][0][1]) == 16 + 40 + 16
