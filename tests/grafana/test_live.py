"""Every query of every panel on a real Prometheus: busy, it says what is true; idle, nothing looks well.

Each has an answer at one moment or another: a query that is normally empty is no less wrong when it asks for
what is never there.
"""

from __future__ import annotations

import math
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from click.testing import CliRunner
from cmo_dashboards import Macros, PanelQuery, queries, shipped_dashboards
from cmo_dashboards.cli import dashboards
from cmo_dashboards.colours import FAIL, NEUTRAL, PASS, WARN, Step, colour_of
from cmo_dashboards.dashboard import ALL_TESTS_LEGEND
from cmo_dashboards.document import defaults_of, panels
from cmo_dashboards.ratio_tiles import NO_TRAFFIC as NO_TRAFFIC_SHARE
from cmo_dashboards.variables import AGAINST
from cmo_dashboards.verdicts import Status
from cmo_exporter import catalogue
from cmo_slo.objectives import load_objectives, shipped_directory

from .conftest import (
    BREAKER_OPENED,
    BREAKER_REFUSED,
    COLLECTIONS,
    DROPPED,
    HTTP_STATUSES,
    LOG_LINES,
    METRICS_REQUESTS,
    MISCOUNTED,
    PAUSE_SECONDS,
    Exposition,
)
from .live_servers import RECORDED_BY_NOW_SECONDS, Asker, Series, Values, watching
from .seen_elsewhere import SEEN_ELSEWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from click.testing import Result
    from cmo_stack.servers import Server

DEADLINE_SECONDS: Final = 120.0
RATE_SECONDS: Final = 3
MACROS: Final = Macros(
    range="5m", rate_interval=f"{RATE_SECONDS}s", interval="500ms", chosen={AGAINST.name: "2"}
)
"""What is compared with is so near that it holds what has just begun."""
QUIET_SCRAPES: Final = 8
"""Scrapes before the load begins: more than a rate interval, so that start-up is over when it does."""
BUSY_SCRAPES: Final = 10
"""Scrapes under load before anything is asked: a whole rate interval of load."""

approx = partial(pytest.approx, rel=1e-6)
DASHBOARDS: Final = shipped_dashboards()
QUERIES: Final = [query for dashboard in DASHBOARDS for query in queries(dashboard, MACROS)]
OBJECTIVES: Final = load_objectives(shipped_directory() / "cmo-015.yml")
TOO_FEW: Final = re.compile(r"> 0 < (\d+)")
RATIOS_OF_FEW: Final = [query for query in QUERIES if TOO_FEW.search(query.expression)]
"""What is shown of fewer events than a verdict needs."""
PLACES: Final = {query.place for query in QUERIES}
OVERVIEW, COMPLIANCE, MONITOR = "cmo-overview", "cmo-015", "cmo-monitor"
COMPONENTS, RESOURCES = "cmo-components", "cmo-resources"
SHARE_WITHOUT_TRAFFIC: Final = (
    "Coverage of the recorded windows",
    "Evaluation time of each rule group",
    "Open files, of those allowed",
)
"""Ratios that are about the monitor or a process, and so are there when nobody asks."""
JOBS: Final = ("cmo", "prometheus", "alertmanager")
NO_TRAFFIC: Final = 0.0


def test_every_query_is_right_when_busy_and_claims_nothing_when_idle(
    prometheus_server: Server, exposition: Exposition, tmp_path: Path
) -> None:
    quiet = exposition.loading_steps + QUIET_SCRAPES
    with watching(prometheus_server, exposition.address, OBJECTIVES, tmp_path) as asker:
        _wait_for(lambda: exposition.scrapes >= quiet, "the quiet scrapes")
        _wait_for(lambda: _no_traffic(asker), "the verdict that nobody asked")
        idle = asker.ask_all(QUERIES)
        _agrees_when_idle(asker.url)
        _asks_for_the_job_of_the_objectives(asker.url, tmp_path / "my.yml")
        exposition.hardly_busy = True
        hardly_busy = _once_settled(asker, RATIOS_OF_FEW)
        exposition.busy = True
        _wait_for(lambda: exposition.steps >= BUSY_SCRAPES, "the scrapes under load")
        seen_before = _seen(idle) | _seen(hardly_busy)
        _once(lambda: _is_right(asker, exposition, seen_before, hardly_busy))
        _agrees_under_load(asker.url)
    _claims_nothing(idle)
    _is_plausible(idle)
    _is_plausible(hardly_busy)


def _is_right(asker: Asker, truth: Exposition, seen_before: set[str], hardly_busy: Values) -> None:
    busy = _once_all_is_there(asker, QUERIES, partial(_gaps, seen_before))
    _is_plausible(busy)
    assert PLACES - seen_before - _seen(busy) == SEEN_ELSEWHERE
    _is_true(busy, truth)
    _overview_is_true(busy)
    _perceived_is_true(busy)
    _mishaps_are_true(busy)
    _notifications_are_true(busy)
    _few_have_the_ratio_of_many(hardly_busy, busy)
    _is_coloured(busy, truth)


def _once(right: Callable[[], None]) -> None:
    """The first moment at which all of it is right; what is wrong at every moment fails.

    Rules copy one metric after the other, and a scrape that is written in between is in some of the copies.
    Until the next evaluation those are a step ahead, so a moment may be one at which nothing adds up, and a
    ratio is a little above 1: bounds too are held at one moment, not at each.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            return right()
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def _no_traffic(asker: Asker) -> bool:
    tiles = [query for query in QUERIES if query.panel.endswith(": verdict now")]
    assert len(tiles) > 4
    return all(asker.ask(tile, time.time())[0][1] == [NO_TRAFFIC] for tile in tiles)


def _once_all_is_there(
    asker: Asker, asked: Sequence[PanelQuery], gaps_in: Callable[[Values], list[str]]
) -> Values:
    """The first answers without a gap: a busy machine misses a scrape now and then, and the tiles say so."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while gaps := gaps_in(found := asker.ask_all(asked)):
        assert time.monotonic() < deadline, f"after {DEADLINE_SECONDS:g} s there is still no {gaps}"
        time.sleep(0.2)
    return found


def _once_settled(asker: Asker, asked: Sequence[PanelQuery]) -> Values:
    """The answers that an evaluation later are the same, so that no copy of a counter is a step behind."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    found: Values = {}
    while (again := _once_all_is_there(asker, asked, _unanswered)) != found:
        assert time.monotonic() < deadline, f"after {DEADLINE_SECONDS:g} s the answers still change"
        found = again
        time.sleep(RECORDED_BY_NOW_SECONDS)
    return found


def _unanswered(found: Values) -> list[str]:
    return [place for place, series in found.items() if not series]


def _gaps(seen_before: set[str], found: Values) -> list[str]:
    """What has no answer now and should, or has had none at all."""
    unseen = PLACES - SEEN_ELSEWHERE - seen_before - _seen(found)
    unscraped = [
        query.place
        for query in QUERIES
        if (query.panel.endswith(": verdict now") and _last_of(found, query) == [Status.NO_DATA])
        or (query.panel == "Scrape jobs up" and _last_of(found, query) != [1.0] * len(JOBS))
    ]
    return sorted({*_missing(found), *unseen, *unscraped})


def _last_of(found: Values, query: PanelQuery) -> list[float]:
    return [values[-1] for _, values in found[query.place]]


def _check(url: str, *options: str) -> Result:
    # Of a short range: a moment at which a busy machine recorded one part of a ratio late is soon out of it.
    asked = ["check", "--prometheus-url", url, "--range", "30s", "--scrape-interval", "1s", *options]
    return CliRunner().invoke(dashboards, asked)


def _agrees_when_idle(url: str) -> None:
    """``cmo dashboards check`` finds nothing green, and that what should be there under load is not."""
    # A scrape that was missed just then is no finding, but leaves a question without an answer.
    _wait_for(lambda: _finds_nothing(url), "`cmo dashboards check --idle` without a finding")
    done = _check(url)
    assert done.exit_code == 1
    assert f"{COMPLIANCE}: Success rate (target > 95 %) (A): returns nothing" in done.stdout


def _finds_nothing(url: str) -> bool:
    done = _check(url, "--idle")
    return (done.exit_code, done.stdout) == (0, "")


def _asks_for_the_job_of_the_objectives(url: str, mine: Path) -> None:
    text = (shipped_directory() / "cmo-015.yml").read_text()
    mine.write_text(text.replace("{job: cmo,", "{job: oracle,"))
    done = _check(url, "--objectives", str(mine))
    assert "no instance of the job 'oracle' is scraped" in str(done.exception)


def _agrees_under_load(url: str) -> None:
    # It asks for a moment somewhat longer ago, which the last series recorded may not have reached.
    _wait_for(lambda: _check(url).exit_code == 0, "an answer to every query, as `cmo dashboards check` asks")
    # Nor is a verdict there at a moment whose scrape was missed.
    _wait_for(lambda: _refuses_a_pass(url), "a PASS that --idle refuses")


def _refuses_a_pass(url: str) -> bool:
    done = _check(url, "--idle")
    assert done.exit_code == 1
    tile = f"{OVERVIEW}: Success rate: verdict now (A)"
    return any(line.startswith(tile) and "coloured PASS" in line for line in done.stdout.splitlines())


def _claims_nothing(idle: Values) -> None:
    coloured = {
        (query.place, value)
        for query in QUERIES
        for _, values in idle[query.place]
        for value in values
        if _colour(query, value) in (PASS, WARN)
    }
    assert not coloured
    ratios = [query for query in QUERIES if query.unit == "percentunit"]
    ratios = [query for query in ratios if not query.panel.startswith(SHARE_WITHOUT_TRAFFIC)]
    assert len(ratios) > 20
    for query in ratios:
        shown = {value for _, values in idle[query.place] for value in values}
        assert shown <= {NO_TRAFFIC_SHARE}, f"{query.place} has values without traffic"
    assert _one(idle, COMPLIANCE, "What would fail in this range", "A"), "nobody asked, and nothing says so"
    assert _last(idle, OVERVIEW, "Pages firing", "A") == {"": 0}, "that none fires is known"
    for dashboard in (OVERVIEW, COMPLIANCE):
        assert _one(idle, dashboard, "Targets up", "A"), (
            "the idle target was not scraped: this showed nothing"
        )


def _is_plausible(found: Values) -> None:
    for query in QUERIES:
        for labels, values in found.get(query.place, []):
            where = f"{query.place} {labels}"
            assert all(math.isfinite(value) for value in values), where
            assert all(query.lowest <= value <= query.highest for value in values), (where, values)


def _is_true(busy: Values, truth: Exposition) -> None:
    passing, failing, barely = truth.passing, truth.failing, truth.barely
    _expect(busy, "Highest users held", "A", {name: truth.users[name] for name in truth.scenarios[1:]})
    overall = (97 + 80 + 381 + 95) / (100 + 100 + 400 + 100)
    each = {passing: 0.97, failing: 0.80, barely: 0.95, "live": 0.98}
    _expect(busy, "Success rate (", "A", {**each, ALL_TESTS_LEGEND: overall})
    _expect(busy, "Answered within 2 s (", "A", {passing: 97 / 102, failing: 0.5, barely: 0.95})
    hits = truth.cache["hit"] / (truth.cache["hit"] + truth.cache["miss"])
    _expect(busy, "Cache hit rate (", "A", {ALL_TESTS_LEGEND: hits})
    _expect(busy, "Memory growth (", "A", dict(truth.growth))
    _expect(busy, "Memory growth over time", "A", dict(truth.growth))
    _expect(busy, "Resident memory", "A", {"": truth.rss_loaded})
    _expect(busy, "LightRAG healthy (", "A", {ALL_TESTS_LEGEND: 0.9})
    for objective in ("Success rate", "Answered within 2 s"):
        _expect(busy, f"Error budget left: {objective}", "A", {"live": (0.98 - 0.95) / 0.05})
        _expect(busy, f"Burn rate: {objective}", "A", {"live": (1 - 0.98) / 0.05})
    failing_now = {
        (labels["objective"], labels["scenario"]): values[-1]
        for labels, values in _one(busy, COMPLIANCE, "What would fail in this range", "A")
    }
    assert failing_now == {
        ("success", failing): Status.FAIL,
        ("success", barely): Status.FAIL,
        ("success", "overall"): Status.FAIL,
        ("within_2s", failing): Status.FAIL,
        ("within_2s", barely): Status.FAIL,
        ("within_2s", "overall"): Status.FAIL,
        ("concurrent_users", barely): Status.TOO_FEW,
        ("memory_growth", failing): Status.FAIL,
        ("lightrag_success", "live"): Status.FAIL,
        ("lightrag_success", "overall"): Status.FAIL,
        ("lightrag_healthy", "live"): Status.FAIL,
        ("lightrag_healthy", "overall"): Status.FAIL,
        ("health_latency", "live"): Status.FAIL,
        ("health_latency", "overall"): Status.FAIL,
    }


def _overview_is_true(busy: Values) -> None:
    verdicts = {
        "Success rate": Status.PASS,
        "Answered within 2 s": Status.PASS,
        "Cache hit rate": Status.PASS,
        "LightRAG healthy": Status.FAIL,
        "System health, latency": Status.FAIL,
    }
    for objective, status in verdicts.items():
        for ref_id in "AB":
            [(_, [value])] = _one(busy, OVERVIEW, f"{objective}: verdict now", ref_id)
            assert value == status, (objective, ref_id)
    for ref_id in "AB":
        assert _last(busy, OVERVIEW, "Live success, and answers in time", ref_id) == {"": approx(0.98)}
    failing = {"lightrag": approx(0.1), "perplexity": approx(0.1), "llm": 0.0}
    assert _last(busy, OVERVIEW, "Calls that fail", "A", "component") == failing
    slow = {"lightrag": approx(0.3), "perplexity": 0.0, "llm": 0.0}
    assert _last(busy, OVERVIEW, "Calls that are slow", "A", "component") == slow
    worst = next(iter(_last(busy, OVERVIEW, "Calls that are slow", "A", "component")))
    assert worst == "lightrag", "the worst is not first"
    # All successes are in the bucket from 1.75 to 2 s, within which the estimate is a straight line.
    for ref_id, rank in (("A", 0.95), ("B", 0.99)):
        estimated = {"": approx(1.75 + rank * 0.25)}
        assert _last(busy, OVERVIEW, "P95 and P99 of live answers", ref_id) == estimated
    shares = _last(busy, OVERVIEW, "Live answers by source", "A", "source")
    assert shares["cache"] / sum(shares.values()) == approx(0.8)
    assert _last(busy, OVERVIEW, "Live users now", "A") == {"": 3}
    assert _last(busy, OVERVIEW, "Circuit breakers", "A", "component") == {"lightrag": 7, "perplexity": 1}
    firing = [labels for labels, _ in _one(busy, OVERVIEW, "What fires, and its runbook", "A")]
    told = {labels["alertname"] for labels in firing}
    assert {"CMOSeededPage", "CMOSeededTicket"} <= told
    assert not told & {"CMOWatchdog", "CMOLoadTestRunning"}, "these are no alarm"
    assert _last(busy, MONITOR, "Watchdog", "A") == {"": 1}
    assert _last(busy, MONITOR, "Scrape jobs up", "A", "job") == dict.fromkeys(JOBS, 1)
    for severity, panel in (("page", "Pages firing"), ("ticket", "Tickets firing")):
        expected = sum(labels["severity"] == severity for labels in firing)
        assert _last(busy, OVERVIEW, panel, "A") == {"": expected}, severity


def _perceived_is_true(busy: Values) -> None:
    estimated = {"": approx(1.75 + 0.95 * 0.25)}
    assert _last(busy, OVERVIEW, "Time to the first token of live answers", "A") == estimated
    for ref_id in "AB":
        assert _last(busy, OVERVIEW, "Latency that the prober sees", ref_id) == estimated
    assert _last(busy, OVERVIEW, "Latency that the prober sees", "C") == {"": 0.0}
    of_models = _last(busy, "cmo-components", "First token of a model", "A", "component")
    assert of_models == dict.fromkeys(("lightrag", "perplexity", "llm"), approx(1.0 + 0.95))
    assert _last(busy, OVERVIEW, "Prober", "A", "canary") == {"popular": 1}
    for ref_id in "AB":
        [(_, ages)] = _one(busy, OVERVIEW, "Since the prober was last answered", ref_id)
        assert all(age < DEADLINE_SECONDS for age in ages)
    assert _last(busy, OVERVIEW, "Live queries in progress", "A") == {"": 3}
    rated = _last(busy, OVERVIEW, "What users say and do", "A", "rating")
    assert rated["up"] == approx(4 * rated["down"])
    assert rated["down"] > 0
    assert _last(busy, OVERVIEW, "What users say and do", "B") == {"": approx(rated["up"])}


def _mishaps_are_true(busy: Values) -> None:
    """What is normally empty, of each step: whatever an exposition counts at each scrape rises alike."""
    answered = _last(busy, RESOURCES, "HTTP requests a second", "A", "http_route")["/query"]
    steps_a_second = answered / HTTP_STATUSES["200"]
    metric = Exposition.closed_by_settings["metric"][0]

    def holds(dashboard: str, start: str, ref_id: str, label: str, expected: dict[str, float]) -> None:
        last = _last(busy, dashboard, start, ref_id, label)
        each_step = {name: value / steps_a_second for name, value in last.items()}
        assert each_step == {name: approx(value) for name, value in expected.items()}, (start, ref_id)

    holds(RESOURCES, "HTTP requests a second", "B", "http_route", {"/query": HTTP_STATUSES["404"]})
    holds(RESOURCES, "HTTP requests a second", "C", "http_route", {"/query": HTTP_STATUSES["503"]})
    stopped = {generation: count * PAUSE_SECONDS for generation, count in COLLECTIONS.items()}
    holds(RESOURCES, "Share of time in the garbage collector", "A", "generation", stopped)
    pauses = _last(busy, RESOURCES, "Pauses of the garbage collector", "A", "generation")
    below, edge = (edge for edge in catalogue.GC_PAUSE.buckets[-2:])
    assert pauses == dict.fromkeys(COLLECTIONS, approx(below + 0.99 * (edge - below)))
    holds(RESOURCES, "Label values dropped", "A", "metric", {metric: DROPPED})
    holds(RESOURCES, "Errors of the exporter", "A", "metric", {metric: MISCOUNTED})
    holds(COMPONENTS, "Changes of state", "A", "state", {"open": BREAKER_OPENED})
    holds(COMPONENTS, "Calls that a breaker refuses", "A", "state", {"open": BREAKER_REFUSED})
    of_exporter, of_port = "Errors of the instrumentation", "Requests of the metrics port"
    holds(MONITOR, of_exporter, "A", "metric", {metric: MISCOUNTED * RATE_SECONDS})
    holds(MONITOR, of_exporter, "B", "metric", {metric: DROPPED * RATE_SECONDS})
    ended_badly = dict.fromkeys(catalogue.METRICS_REQUEST_RESULTS, 0.0) | METRICS_REQUESTS
    del ended_badly["ok"]
    in_window = {result: count * RATE_SECONDS for result, count in ended_badly.items()}
    holds(MONITOR, of_port, "A", "result", in_window)
    holds(MONITOR, of_port, "B", "result", {"dropped": LOG_LINES["dropped"] * RATE_SECONDS})


def _notifications_are_true(busy: Values) -> None:
    """The pager takes what it is sent as a pager, and refuses what is meant for a Slack."""
    to_receivers = "The Alertmanager to receivers"
    assert _last(busy, MONITOR, to_receivers, "A", "integration").keys() == {"webhook", "slack"}
    assert _last(busy, MONITOR, to_receivers, "B", "integration").keys() == {"slack"}
    assert _last(busy, MONITOR, "Alerts about the monitor", "A", "alertname") == {"CMOSeededTicket": 1}


def _few_have_the_ratio_of_many(hardly_busy: Values, busy: Values) -> None:
    assert len(RATIOS_OF_FEW) > 20
    for few in RATIOS_OF_FEW:
        of_enough = TOO_FEW.sub(r">= \1", few.expression)
        beside = [query for query in QUERIES if (query.dashboard, query.panel) == (few.dashboard, few.panel)]
        [judged] = [query for query in beside if query.expression == of_enough]
        shown, expected = (
            {labels.get("scenario", ""): values[-1] for labels, values in found}
            for found in (hardly_busy[few.place], busy[judged.place])
        )
        assert shown == {name: approx(value) for name, value in expected.items()}, few.place


def _is_coloured(busy: Values, truth: Exposition) -> None:
    colours = {
        ("Highest users held", truth.passing): PASS,
        ("Highest users held", truth.barely): NEUTRAL,
        ("Success rate (", truth.passing): PASS,
        ("Success rate (", truth.failing): FAIL,
        ("Success rate (", "cache_effectiveness"): WARN,
        ("Answered within 2 s (", truth.passing): WARN,
        ("Answered within 2 s (", truth.failing): FAIL,
        ("Memory growth (", truth.passing): PASS,
        ("Memory growth (", truth.failing): FAIL,
        ("Error budget left: Success rate", "live"): PASS,
        ("What would fail in this range", truth.failing): FAIL,
    }
    for (start, scenario), colour in colours.items():
        query = _query(COMPLIANCE, start, "A")
        found = [values for labels, values in busy[query.place] if labels["scenario"] == scenario]
        assert {_colour(query, values[-1]) for values in found} == {colour}, (start, scenario, found)
    words = {"Success rate: verdict now": PASS, "LightRAG healthy: verdict now": FAIL}
    words |= {"Circuit breakers": FAIL, "Pages firing": FAIL}
    for start, colour in words.items():
        query = _query(OVERVIEW, start, "A")
        assert _colour(query, busy[query.place][0][1][-1]) == colour, start


def _expect(busy: Values, start: str, ref_id: str, truth: dict[str, float]) -> None:
    last = _last(busy, COMPLIANCE, start, ref_id, "scenario")
    for scenario, expected in truth.items():
        assert last[scenario] == approx(expected), (start, ref_id, scenario)


def _last(busy: Values, dashboard: str, start: str, ref_id: str, label: str = "") -> dict[str, float]:
    """The last value of each series of a query, by one of its labels."""
    series = _one(busy, dashboard, start, ref_id)
    return {labels.get(label, ""): values[-1] for labels, values in series}


def _one(found: Values, dashboard: str, start: str, ref_id: str) -> Series:
    return found[_query(dashboard, start, ref_id).place]


def _query(dashboard: str, start: str, ref_id: str) -> PanelQuery:
    """The query of the panel of this title, or of the only one that begins so."""
    asked = [query for query in QUERIES if query.dashboard == dashboard and query.ref_id == ref_id]
    named = [query for query in asked if query.panel == start]
    [query] = named or [query for query in asked if query.panel.startswith(start)]
    return query


def _seen(found: Values) -> set[str]:
    return {place for place, series in found.items() if series}


def _missing(found: Values) -> list[str]:
    """What has no answer under load, and is not said to be empty then."""
    return [
        query.place
        for query in QUERIES
        if not (found[query.place] or query.may_be_empty or query.place in SEEN_ELSEWHERE)
    ]


def _colour(query: PanelQuery, value: float) -> str:
    """The colour that Grafana gives to a value, from the finished JSON."""
    [document] = [board.document for board in DASHBOARDS if board.uid == query.dashboard]
    [panel] = [panel for panel in panels(document) if panel["title"] == query.panel]
    if panel["type"] not in ("stat", "state-timeline"):
        return NEUTRAL
    for mapping in defaults_of(panel)["mappings"]:
        result = mapping["options"].get(f"{value:g}") if mapping["type"] == "value" else None
        if result and result.get("color"):
            return str(result["color"])
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == query.ref_id:
            return str(override["properties"][0]["value"]["fixedColor"])
    steps = tuple(Step(step["value"], step["color"]) for step in defaults_of(panel)["thresholds"]["steps"])
    return colour_of(value, steps)


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what} within {DEADLINE_SECONDS:g} s"
        time.sleep(0.2)
