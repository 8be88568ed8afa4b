"""The dashboard "CMO-015 compliance": each objective against its target, its budget, what would fail.

Everything that a target decides (expressions, lines, colours, titles) is taken from the objectives, so that
the picture and the verdict cannot disagree about what is asked for. Both count exactly, but not the same
stretch: a verdict that of a run, between two scrapes that enclose it; a picture whatever range it is given,
from the series that the rules record. Memory growth alone is an estimate here, from raw gauges.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo.indicators import GrowthIndicator, HeldLevelIndicator, LatencyIndicator, RatioIndicator

from cmo_dashboards import expressions as promql
from cmo_dashboards.budgets import bad_events_by_hour, budget_left, burn_rates, coverage
from cmo_dashboards.catastrophes import catastrophes
from cmo_dashboards.colours import FAIL, NEUTRAL, Step, target_line, verdict_steps
from cmo_dashboards.dashboard import ALL_TESTS_LEGEND, Dashboard
from cmo_dashboards.firing import alerts_over_time, firing_count, what_fires
from cmo_dashboards.panels import NO_TRAFFIC, Panel, Query, Row, Shape, Unit
from cmo_dashboards.promised import budgeted, find, find_component, target_text
from cmo_dashboards.ratio_tiles import PEOPLE, ratio_tile
from cmo_dashboards.scrapes import NOT_SCRAPED, targets_up
from cmo_dashboards.shortfalls import what_would_fail

if TYPE_CHECKING:
    from cmo_slo.model import Objective, Objectives

_MEGABYTE: Final = 1e6
_MOST_USERS: Final = 1_000
_MOST_GROWTH_BYTES: Final = 4e9
_SCENARIO_LEGEND: Final = "{{scenario}}"

_RECORDED: Final = "Read from what the rules record: without the rules there is no number here."
_CAUSES: Final = (
    "See which scenario it is. `live`: people are affected now; if a page fires below, follow its runbook. "
)
_NO_TEST: Final = "No load test, or no data: see Targets up"
_OPEN: Final = "Open *CMO components*: "


def compliance(objectives: Objectives) -> Dashboard:
    """The compliance dashboard of an objectives file.

    Raises:
        ValueError: the file lacks one of the objectives that the dashboard shows.
    """
    users, success = _users(objectives), _success(objectives)
    within, cache, memory = _within(objectives), _cache(objectives), _memory(objectives)
    pairs = (users, success, within, cache, memory)
    seen = targets_up(objectives.service.job, width=3, height=8)
    return Dashboard(
        uid=objectives.name,
        title=f"{objectives.name.upper()} compliance",
        description=f"Is {objectives.requirement} met, in each scenario and overall, how much error budget "
        "is left, and what would fail? Prometheus must have loaded the rules that are compiled from "
        f"`{objectives.name}`.",
        scenarios=objectives.scenarios,
        service=objectives.service,
        rows=(
            Row("Against the targets, over the whole range", (*(stat for stat, _ in pairs), seen)),
            Row("What would fail", (what_would_fail(objectives, width=24, height=6),)),
            Row("Against the targets, over time", (*(series for _, series in pairs), _resident_memory())),
            Row("Error budget of live traffic", _budget(objectives)),
            Row("LightRAG and the other components", _components(objectives)),
            Row("System health, and catastrophes", _secondary(objectives)),
            Row("Firing alerts", _alerts(objectives)),
        ),
    )


def _users(objectives: Objectives) -> tuple[Panel, Panel]:
    objective, indicator = find(objectives, "concurrent_users", HeldLevelIndicator)
    goal, of = f"target {target_text(objective)}", promql.Recorded(objectives.name, objective.name)
    stat = Panel(
        title=f"Highest users held ({goal})",
        shape=Shape.STAT,
        width=4,
        height=8,
        unit=Unit.COUNT,
        answers="How many users at once did each scenario reach? The highest mean number of users "
        "with an open session over any short interval of the range, thinking time included. Green from "
        f"{indicator.tolerance:.0%} below the target on, as it is judged. Grey below: fewer users came, "
        f"which is no failure by itself, and live traffic has no target. {_RECORDED}",
        when_red="If a load test offered more users than it shows here, sessions are "
        "refused or end: look at *Success rate* and at *Targets up*.",
        queries=(
            Query(promql.highest_mean_level(of, promql.TESTS), _SCENARIO_LEGEND, 0, _MOST_USERS),
            Query(promql.highest_mean_level(of, promql.LIVE), _SCENARIO_LEGEND, 0, _MOST_USERS, judged=False),
        ),
        steps=verdict_steps(objective, missed=NEUTRAL),
        decimals=1,
        no_value=NO_TRAFFIC,
    )
    series = Panel(
        title=f"Mean users at once ({goal})",
        shape=Shape.TIME_SERIES,
        width=12,
        height=8,
        unit=Unit.COUNT,
        answers="How many users have an open session, and is the number held? The exact mean of "
        "each interval, from recorded user-seconds over recorded seconds of the exporter's own clock. With "
        "several instances, a failed scrape of one shows as a dip and a rise. The dashed line is the target. "
        f"{_RECORDED}",
        when_red="A dip during a load test means that users were not served: compare with *Success "
        "rate over time* at the same moment. The verdict wants every interval at the target.",
        queries=(Query(promql.mean_level(of, promql.EACH), _SCENARIO_LEGEND, 0, _MOST_USERS),),
        steps=target_line(objective),
        no_value=NO_TRAFFIC,
    )
    return stat, series


def _success(objectives: Objectives) -> tuple[Panel, Panel]:
    objective, _ = find(objectives, "success", RatioIndicator)
    return _ratio_pair(
        objectives.name,
        objective,
        answers="Do people get real answers? Answers from LightRAG, Perplexity or a cache, of all "
        "finished queries but those that the user cancelled. An apology or a stale answer is a "
        "failure, whatever its HTTP status.",
        when_red=f"{_CAUSES}{_OPEN}*Share of calls that fail, by component* says whether LightRAG or the "
        "fallback fails, *State of each circuit breaker* whether one is open.",
        width=4,
        series_width=12,
    )


def _within(objectives: Objectives) -> tuple[Panel, Panel]:
    objective, indicator = find(objectives, "within_2s", LatencyIndicator)
    stat, series = _ratio_pair(
        objectives.name,
        objective,
        answers=f"Do people get real answers in time? This is the P{indicator.quantile * 100:g} "
        "target without an estimator: the share of queries with a real answer within "
        f"{indicator.threshold_seconds:g} s. A failure counts against it however fast it was; a "
        "user who left earlier than that does not count.",
        when_red=f"{_CAUSES}If *Success rate* is red too, mend that first: failures count here as "
        f"well. If only this one is red, answers are slow. {_OPEN}*Where the time of a query goes* says in "
        "which component, *Where the time of a call of LightRAG goes* whether it waits or works.",
        width=5,
        series_width=12,
    )
    beside = Query(
        promql.within_threshold_of_good(objectives.name, indicator, promql.EACH, promql.RATE_INTERVAL),
        "{{scenario}}, of real answers alone",
        0.0,
        1.0,
        dashed=True,
    )
    return stat, _with_query(series, beside)


def _cache(objectives: Objectives) -> tuple[Panel, Panel]:
    objective, _ = find(objectives, "cache_hits", RatioIndicator)
    return _ratio_pair(
        objectives.name,
        objective,
        answers="How many queries do the caches answer? Queries answered from any tier, of all "
        "that looked there; one count a query, so that a miss in L1 and a hit in L2 is a hit. It "
        "is judged over all test scenarios together; single scenarios are shown in grey.",
        when_red=f"{_OPEN}*Evictions, by tier* in L1 mean that it is too small, *Look-ups that fail, by "
        "tier* in L3 that Redis is away. After a deploy, caches fill first.",
        width=4,
        series_width=12,
    )


def _memory(objectives: Objectives) -> tuple[Panel, Panel]:
    objective, indicator = find(objectives, "memory_growth", GrowthIndicator)
    goal = f"target {target_text(objective)}"
    bounds = (-10 * _MEGABYTE, _MOST_GROWTH_BYTES)
    meaning = (
        "Peak resident memory of each load-test scenario minus the lowest from just before its "
        "first query on, summed over an instance's processes; the instance that grew most is "
        "shown. Live traffic has no target; *Resident memory* shows it. A range with several runs "
        "of one scenario holds them all together: narrow it."
    )
    stat = Panel(
        title=f"Memory growth ({goal})",
        shape=Shape.STAT,
        width=4,
        height=8,
        unit=Unit.BYTES,
        answers=f"How much did memory grow during a test? {meaning}",
        when_red="Narrow the range to one run. If it stays red, look at *Resident memory* after "
        "the run: if it stays up, something keeps answers (*Answers held, by tier* on *CMO components*); "
        "if it falls, it was many queries at once.",
        queries=(Query(promql.growth(indicator, promql.TESTS), _SCENARIO_LEGEND, *bounds),),
        steps=verdict_steps(objective),
        decimals=1,
        no_value=_NO_TEST,
    )
    series = Panel(
        title=f"Memory growth over time ({goal})",
        shape=Shape.TIME_SERIES,
        width=12,
        height=8,
        unit=Unit.BYTES,
        answers=f"When during a test did memory grow? {meaning} A scenario is drawn while it has users. Of "
        "several workers each counts from its first session of that scenario on; until then it is too low.",
        when_red="See which scenario crosses the dashed line, and what else began then: a step is "
        "a load (an index, a cache), a slope is a leak or a queue.",
        queries=(
            Query(
                promql.growth_so_far(indicator, promql.TESTS),
                _SCENARIO_LEGEND,
                -_MOST_GROWTH_BYTES,
                _MOST_GROWTH_BYTES,
            ),
        ),
        steps=target_line(objective),
        no_value=_NO_TEST,
    )
    return stat, series


def _budget(objectives: Objectives) -> tuple[Panel, ...]:
    promised = budgeted(objectives)
    width = 16 // len(promised)
    return (
        *(budget_left(objectives, objective, width=width, height=5) for objective in promised),
        coverage(objectives, width=8, height=5),
        *(burn_rates(objectives, objective, width=width) for objective in promised),
        bad_events_by_hour(objectives, width=8),
    )


def _components(objectives: Objectives) -> tuple[Panel, ...]:
    """LightRAG's success is promised twice: what a release should reach, and where LightRAG counts as ill."""
    reached, _ = find(objectives, "lightrag_success", RatioIndicator)
    healthy, _ = find(objectives, "lightrag_healthy", RatioIndicator)
    goals = f"targets {target_text(reached)}, {target_text(healthy)}"
    share = (
        "Calls that gave an answer, of all finished ones but those that the user cancelled; what its open "
        "breaker refused gave none."
    )
    when_red = (
        f"{_OPEN}its row says by which outcome calls fail; time-outs are the most common. If *State of each "
        "circuit breaker* says that its breaker is open, most of what fails was never asked."
    )
    of = promql.Recorded(objectives.name, healthy.name)
    tiles = (
        (reached, f"Does LightRAG do what a release promises ({target_text(reached)})? {share}"),
        (
            healthy,
            (
                f"Is LightRAG well? The same number as beside, against a lower target: from "
                f"{healthy.target * 100:g} % on it counts as healthy, and a release should reach more."
            ),
        ),
    )
    return (
        *(
            ratio_tile(objectives.name, one, answers=f"{answers} {_judged(one)}", when_red=when_red, width=4)
            for one, answers in tiles
        ),
        Panel(
            title=f"LightRAG success over time ({goals})",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.RATIO,
            answers=f"Since when does LightRAG fail? {share} Over each short interval; the dashed lines are "
            f"the targets. {_RECORDED}",
            when_red=f"Find the moment of the fall. {when_red}",
            queries=_over_time(of),
            steps=(
                Step(None, NEUTRAL),
                *(Step(edge, FAIL) for edge in sorted({reached.target, healthy.target})),
            ),
            highest=1.0,
        ),
        _component_calls(objectives, healthy),
    )


def _component_calls(objectives: Objectives, lightrag: Objective) -> Panel:
    find_component(objectives, "success", RatioIndicator)
    ratio = promql.good_calls_ratio(objectives.name, promql.EACH.matcher, promql.RATE_INTERVAL)
    return Panel(
        title="Calls of each component that succeed",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.RATIO,
        answers="Which component fails? Good calls of all finished ones, for the chosen scenarios "
        f"together. The dashed line is LightRAG's target ({target_text(lightrag)}); the others have none. "
        f"{_RECORDED}",
        when_red="The component that falls first is nearest to the cause: open *CMO components* at that "
        "moment.",
        queries=(Query(ratio, "{{component}}", 0.0, 1.0),),
        steps=target_line(lightrag),
        no_value=NO_TRAFFIC,
        highest=1.0,
    )


def _ratio_pair(
    slo: str,
    objective: Objective,
    *,
    answers: str,
    when_red: str,
    width: int,
    series_width: int,
) -> tuple[Panel, Panel]:
    """A stat over the range and a time series of the same ratio."""
    goal, of = f"target {target_text(objective)}", promql.Recorded(slo, objective.name)
    stat = ratio_tile(
        slo, objective, answers=f"{answers} {_judged(objective)}", when_red=when_red, width=width
    )
    series = Panel(
        title=f"{objective.title} over time ({goal})",
        shape=Shape.TIME_SERIES,
        width=series_width,
        height=8,
        unit=Unit.RATIO,
        answers=f"{answers} Here over each short interval; the dashed line is the target. {_RECORDED}",
        when_red=f"Find the moment of the fall, and compare the other panels at it. {when_red}",
        queries=_over_time(of),
        steps=target_line(objective),
        highest=1.0,
    )
    return stat, series


def _judged(objective: Objective) -> str:
    return (
        f"A colour is a verdict, from {objective.minimum_events} events on; grey is none. *No traffic*: "
        "nobody asked."
    )


def _over_time(of: promql.Recorded) -> tuple[Query, ...]:
    return (
        Query(promql.ratio(of, promql.EACH, promql.RATE_INTERVAL), _SCENARIO_LEGEND, 0.0, 1.0),
        Query(promql.overall_ratio(of, promql.RATE_INTERVAL), ALL_TESTS_LEGEND, 0.0, 1.0),
    )


def _secondary(objectives: Objectives) -> tuple[Panel, ...]:
    """What counts for the score and decides nothing alone, and the P95 in seconds."""
    success, _ = find(objectives, "health_success", RatioIndicator)
    latency, indicator = find(objectives, "health_latency", LatencyIndicator)
    graded = f"the grade that {objectives.requirement} calls B"
    return (
        ratio_tile(
            objectives.name,
            success,
            answers=f"Do enough queries succeed for {graded}? The share that *Success rate* shows, held "
            f"against a lower target. {_judged(success)}",
            when_red="*Success rate* is red too: see there.",
            width=4,
        ),
        ratio_tile(
            objectives.name,
            latency,
            answers=f"Are real answers fast enough for {graded}? The share of real answers within "
            f"{indicator.threshold_seconds:g} s: at {latency.target * 100:g} % or more, their "
            f"P{indicator.quantile * 100:g} is at most that. Failures do not count here. {_judged(latency)}",
            when_red=f"Answers are slow. {_OPEN}*Where the time of a query goes* says in which component.",
            width=4,
        ),
        _quantile(objectives),
        catastrophes(objectives, width=8, height=8),
    )


def _quantile(objectives: Objectives) -> Panel:
    objective, indicator = find(objectives, "within_2s", LatencyIndicator)
    rank = f"P{indicator.quantile * 100:g}"
    within = "between {{above}} and {{up_to}} s"
    longest = catalogue.BY_NAME[indicator.metric].buckets[-1]
    return Panel(
        title=f"{rank} of real answers (estimated), and its bucket",
        shape=Shape.STAT,
        width=8,
        height=8,
        unit=Unit.SECONDS,
        answers=f"How long do people wait for real answers? The {rank} of the range, estimated between the "
        f"edges of its bucket, which stand beside it: the true one lies between them. Above {longest:g} s "
        f"both say {longest:g}. Failures are not in it, the prober is not either; what is judged is "
        f"*{objective.title}*, which is exact.",
        when_red="Open *CMO overview* for how it was over time.",
        queries=(
            Query(
                promql.quantile_in_its_bucket(indicator, PEOPLE),
                f"{_SCENARIO_LEGEND}, {within}",
                0.0,
                longest,
            ),
            Query(
                promql.quantile_in_its_bucket(indicator, replace(promql.TESTS, pooled=True)),
                f"All chosen tests, {within}",
                0.0,
                longest,
            ),
        ),
        decimals=2,
    )


def _alerts(objectives: Objectives) -> tuple[Panel, ...]:
    return (
        firing_count(objectives, "page", width=3, height=6),
        firing_count(objectives, "ticket", width=3, height=6),
        what_fires(objectives, width=9, height=6),
        alerts_over_time(width=9, height=6),
    )


def _resident_memory() -> Panel:
    memory = promql.selector(catalogue.MEMORY.name, {"kind": ("rss",)})
    return Panel(
        title="Resident memory",
        shape=Shape.TIME_SERIES,
        width=12,
        height=8,
        unit=Unit.BYTES,
        answers="How much memory does each instance use, its processes added?",
        when_red="A rise that outlives the traffic that caused it is a leak.",
        queries=(Query(f"sum by (instance) ({memory})", "{{instance}}", _MEGABYTE, 64_000 * _MEGABYTE),),
        no_value=NOT_SCRAPED,
    )


def _with_query(panel: Panel, query: Query) -> Panel:
    return replace(panel, queries=(*panel.queries, query))
