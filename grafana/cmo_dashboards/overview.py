"""The dashboard "CMO overview": on-call's first page.

It answers in ten seconds: are users suffering, since when, which component, what next. All symptoms fit on
one screen and are those of live traffic, whatever anybody has chosen elsewhere: no variable could hide them.
Detail lies in folded rows, and on the other dashboards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.indicators import LatencyIndicator, RatioIndicator
from cmo_slo.recorded import Window

from cmo_dashboards import breakers, verdicts
from cmo_dashboards import expressions as promql
from cmo_dashboards.budgets import budget_left
from cmo_dashboards.colours import FAIL, NEUTRAL, Step
from cmo_dashboards.dashboard import Dashboard
from cmo_dashboards.firing import alerts_over_time, firing_count, what_fires
from cmo_dashboards.panels import NO_TRAFFIC, Panel, Query, Row, Shape, Unit, to_dashboard
from cmo_dashboards.perceived import perceived, prober
from cmo_dashboards.promised import budgeted, counted, find, find_component, runbook_links, target_text
from cmo_dashboards.scrapes import targets_up, up_over_time

if TYPE_CHECKING:
    from cmo_slo.model import Objective, Objectives

UID: Final = "cmo-overview"
_COLUMNS: Final = 24
_NARROWEST: Final = 3
_LIVE: Final = promql.ON_CALL.matcher
_MOST_A_SECOND: Final = 10_000.0
_MOST_SECONDS: Final = 3_600.0
_MOST_COUNT: Final = 100_000.0
_WORST: Final = 4
"""How many of them a tile can name legibly."""


def overview(objectives: Objectives) -> Dashboard:
    """The overview of an objectives file.

    Raises:
        ValueError: the file lacks one of the objectives that the dashboard shows.
    """
    return Dashboard(
        uid=UID,
        title="CMO overview",
        description="Are users suffering, since when, which component, and what next? Live traffic alone. "
        "Start here when you are called. What only a load test can tell (users held, growth of memory, "
        f"a test without an answer) is judged on *{objectives.name.upper()} compliance*.",
        scenarios=objectives.scenarios,
        service=objectives.service,
        rows=(
            Row("Are users suffering, since when, which component, what next", _symptoms(objectives)),
            Row("Since when: alerts and scrapes", _since_when(objectives), folded=True),
            Row("What users get, and how long they wait", _what_users_get(objectives), folded=True),
            Row("As users perceive it", perceived(), folded=True),
            Row("The verdict on longer windows", _longer_windows(objectives), folded=True),
        ),
        variables=(),
    )


def _symptoms(objectives: Objectives) -> tuple[Panel, ...]:
    """Four lines that fill one screen."""
    return (
        *_verdicts(objectives),
        firing_count(objectives, "page", width=3, height=5),
        firing_count(objectives, "ticket", width=3, height=5),
        what_fires(objectives, width=10, height=5),
        *_budgets(objectives),
        _traffic(),
        _ratios(objectives),
        _latency(objectives),
        *_components(objectives),
        _breakers(objectives),
        _users(),
        prober(objectives, width=3, height=5),
        _versions(),
    )


def _verdicts(objectives: Objectives) -> tuple[Panel, ...]:
    """A tile for each objective that live traffic is held against, and whether the service is seen at all."""
    promised = counted(objectives)
    width = max(_NARROWEST, (_COLUMNS - _NARROWEST) // len(promised))
    left = max(_NARROWEST, _COLUMNS - width * len(promised))
    return (
        *(_verdict(objectives, objective, width) for objective in promised),
        targets_up(objectives.service.job, width=left, height=5),
    )


def _verdict(objectives: Objectives, objective: Objective, width: int) -> Panel:
    windows = {"15 min": Window.QUARTER, "1 h": Window.HOUR}
    alert = objective.page or objective.ticket
    return Panel(
        title=f"{objective.title}: verdict now",
        shape=Shape.STAT,
        width=width,
        height=5,
        unit=Unit.COUNT,
        answers=f"Does live traffic meet the target {target_text(objective)} now, over the last 15 minutes "
        f"and the last hour? {objective.description} *Too few to judge*: fewer than "
        f"{objective.minimum_events} events, of which enough are good; *Few, target missed*: not enough are. "
        "*No data*: nothing is recorded, or the service is not scraped now.",
        when_red="FAIL over 15 minutes alone: it has just begun. Over the hour alone: it is over, or nearly. "
        f"*Few, target missed* of a handful may be chance: see whether a page fires. {_next(objective)}",
        queries=tuple(
            Query(
                verdicts.of_live_window(objectives.name, objective, window),
                legend,
                verdicts.LOWEST,
                verdicts.HIGHEST,
            )
            for legend, window in windows.items()
        ),
        steps=verdicts.STEPS,
        value_texts=verdicts.VALUE_TEXTS,
        value_colours=verdicts.VALUE_COLOURS,
        no_value="Prometheus does not answer",
        lowest=verdicts.LOWEST,
        links=(
            *(runbook_links(objectives, alert.alert) if alert else ()),
            to_dashboard("Every objective and scenario", objectives.name),
        ),
    )


def _next(objective: Objective) -> str:
    """What to do about an objective that is missed, and whom to believe while it is not."""
    if objective.page is None:
        return (
            f"Follow the runbook {objective.ticket.alert}.md."
            if objective.ticket
            else "See below which component fails or is slow."
        )
    few, many = objective.page.low_traffic.minimum_bad_events, objective.page.minimum_bad_events
    return (
        f"Follow the runbook {objective.page.alert}.md. That page looks at minutes and needs {few} to {many} "
        f"bad queries; this tile looks at 15 minutes and needs {objective.minimum_events}. If it fires while "
        "this says PASS or *Too few to judge*, believe the page, and look at *Live success, and answers in "
        "time*."
    )


def _budgets(objectives: Objectives) -> tuple[Panel, ...]:
    promised = budgeted(objectives)
    width = max(_NARROWEST, 8 // len(promised))
    return tuple(budget_left(objectives, objective, width=width, height=5) for objective in promised)


def _traffic() -> Panel:
    return Panel(
        title="Live queries by outcome",
        shape=Shape.STACKED,
        width=8,
        height=7,
        unit=Unit.PER_SECOND,
        answers="How many live queries a second finish, and how? An apology or a stale answer is an error, "
        "whatever its HTTP status. Zero is drawn; a gap means that the service was not scraped.",
        when_red="Errors that begin at a blue mark came with a deploy: take "
        "it back. Traffic that falls to zero without one: can users reach the service? See *Prober*.",
        queries=(
            Query(
                f"sum by (outcome) (rate({catalogue.QUERIES.name}{{{_LIVE}}}[{promql.RATE_INTERVAL}]))",
                "{{outcome}}",
                0.0,
                _MOST_A_SECOND,
            ),
        ),
        no_value="The service is not scraped",
    )


def _ratios(objectives: Objectives) -> Panel:
    success, _ = find(objectives, "success", RatioIndicator)
    within, _ = find(objectives, "within_2s", LatencyIndicator)
    targets = sorted({success.target, within.target})
    return Panel(
        title="Live success, and answers in time",
        shape=Shape.TIME_SERIES,
        width=8,
        height=7,
        unit=Unit.RATIO,
        answers=f"Since when do users suffer? {success.title} ({target_text(success)}) and {within.title} "
        f"({target_text(within)}) of live traffic over each short interval, exact, from what the rules "
        "record. Dashed: the target. No line: nobody asked, or the rules are not loaded.",
        when_red="Both fall: queries fail; see *Calls that fail, worst first*. Only the second falls: they "
        "are slow; see *P95 and P99* and *Calls that are slow, worst first*.",
        queries=tuple(
            Query(
                promql.ratio(
                    promql.Recorded(objectives.name, one.name), promql.ON_CALL, promql.RATE_INTERVAL
                ),
                one.title,
                0.0,
                1.0,
            )
            for one in (success, within)
        ),
        steps=(Step(None, NEUTRAL), *(Step(target, FAIL) for target in targets)),
        no_value=NO_TRAFFIC,
        highest=1.0,
    )


def _latency(objectives: Objectives) -> Panel:
    objective, indicator = find(objectives, "within_2s", LatencyIndicator)
    answered = f'{indicator.metric}_bucket{{{_LIVE}, outcome="success"}}'
    return Panel(
        title="P95 and P99 of live answers (estimated)",
        shape=Shape.TIME_SERIES,
        width=8,
        height=7,
        unit=Unit.SECONDS,
        answers="How long do users wait for real answers? Estimated from histogram buckets, up to a "
        f"bucket's width off; what is judged is *{objective.title}*, which is exact. The dashed line, "
        f"{indicator.threshold_seconds:g} s, is the target of P{indicator.quantile * 100:g} alone. Points "
        "are single queries, each with the id of its trace, where traces are on (`docs/traces.md`).",
        when_red="P95 above the line: one in twenty waits longer. P99 alone: a few wait for a time-out. "
        "Open a trace of a high point, or see on *CMO components* where the time goes.",
        queries=tuple(
            Query(
                promql.quantile(rank, answered, promql.RATE_INTERVAL),
                f"P{rank * 100:g}",
                0.0,
                max(catalogue.DURATION_BUCKETS_SECONDS),
                exemplars=True,
            )
            for rank in (0.95, 0.99)
        ),
        steps=(Step(None, NEUTRAL), Step(indicator.threshold_seconds, FAIL)),
        no_value=NO_TRAFFIC,
        links=(to_dashboard("Where the time goes", "cmo-components", scenario=catalogue.LIVE),),
    )


def _components(objectives: Objectives) -> tuple[Panel, ...]:
    """The worst components, by name and in the order of their trouble: a picture of 16 lines names none."""

    def calls(series: str, indicator: str) -> str:
        return promql.component_calls(series, objectives.name, indicator, _LIVE, promql.RANGE)

    find_component(objectives, "success", RatioIndicator)
    within = find_component(objectives, "within_2s", LatencyIndicator)
    answered, in_time = (calls(recorded.COMPONENT_GOOD_EVENTS, name) for name in ("success", "within_2s"))
    total = f"({calls(recorded.COMPONENT_TOTAL_EVENTS, 'success')} > 0)"
    return (
        _worst_components(
            "Calls that fail, worst first",
            f"1 - {promql.good_calls_ratio(objectives.name, _LIVE, promql.RANGE)}",
            "Which component fails? The worst, by the share of their calls for live queries that gave no "
            "answer: errors, time-outs, refusals of an open breaker.",
            "The first is nearest to the cause, unless it is LightRAG, whose models (`llm`, `embedding`) may "
            "fail inside it. Click on it: *CMO components* says since when and how.",
        ),
        _worst_components(
            "Calls that are slow, worst first",
            # The two are copied one after the other, and a scrape that is written in between is in one alone.
            f"clamp_min({answered} - {in_time}, 0) / {total}",
            "Which component is slow? The worst, by the share of their calls for live queries that gave an "
            f"answer, but later than {within.threshold_seconds:g} s.",
            "Users may wait for the first. Click on it: *CMO components* says whether it works or waits for "
            "its turn.",
        ),
    )


def _worst_components(title: str, share: str, answers: str, what_to_do: str) -> Panel:
    return Panel(
        title=title,
        shape=Shape.STAT,
        width=4,
        height=5,
        unit=Unit.RATIO,
        answers=f"{answers} Over the time that is chosen on top: choose a shorter one, and what has just "
        "begun shows more. A component that nobody called is not here.",
        when_red=what_to_do,
        queries=(Query(f"sort_desc(topk({_WORST}, {share}))", "{{component}}", 0.0, 1.0),),
        value_texts=((0.0, "none"),),
        highest=1.0,
        decimals=1,
        links=(to_dashboard("All components", "cmo-components", scenario=catalogue.LIVE),),
        data_links=(
            to_dashboard(
                "This component",
                "cmo-components",
                scenario=catalogue.LIVE,
                component="${__field.labels.component}",
            ),
        ),
    )


def _breakers(objectives: Objectives) -> Panel:
    return Panel(
        title="Circuit breakers",
        shape=Shape.STATES,
        width=6,
        height=5,
        unit=Unit.COUNT,
        answers="Which breaker is open, and since when? The worst state of any worker. `closed` is the "
        "normal state.",
        when_red="Queries go to the fallback without asking the component. Mend the component: the breaker "
        "closes with the first question after that which no cache answers. Runbook CMOBreakerOpen.md; what "
        "went before is on *CMO components*.",
        queries=(Query(breakers.worst_state("component"), "{{component}}", breakers.BEST, breakers.WORST),),
        value_texts=breakers.VALUE_TEXTS,
        value_colours=breakers.VALUE_COLOURS,
        no_value="No breaker, or no data: see Targets up",
        links=(
            *runbook_links(objectives, "CMOBreakerOpen"),
            to_dashboard("All breakers", "cmo-components", scenario=catalogue.LIVE),
        ),
    )


def _users() -> Panel:
    return Panel(
        title="Live users now",
        shape=Shape.STAT,
        width=3,
        height=5,
        unit=Unit.COUNT,
        answers="How many users are there? Open sessions, thinking time included, all instances together. "
        "0 means that nobody is there.",
        when_red="None at a time when there are some: users cannot reach the service, or it "
        "has just restarted.",
        queries=(Query(f"sum({catalogue.ACTIVE_USERS.name}{{{_LIVE}}})", "users", 0, _MOST_COUNT),),
        no_value="The service is not scraped",
        decimals=0,
    )


def _versions() -> Panel:
    return Panel(
        title="Versions running",
        shape=Shape.STAT,
        width=4,
        height=5,
        unit=Unit.COUNT,
        answers="What runs, on how many instances? Two versions: a deploy is under way, or has stopped "
        "half way. The blue marks on every time series say when deploys were.",
        when_red="If the trouble began with a version, take that version back first and look "
        "for the cause afterwards.",
        queries=(
            Query(
                f"count by (version, revision) ({catalogue.BUILD_INFO.name})",
                "{{version}} {{revision}}",
                1,
                _MOST_COUNT,
            ),
        ),
        no_value="The service is not scraped",
        decimals=0,
    )


def _since_when(objectives: Objectives) -> tuple[Panel, ...]:
    return (
        alerts_over_time(width=10, height=8),
        up_over_time((objectives.service.job, objectives.service.probe_job), width=10, height=8),
        _restarts(),
    )


def _restarts() -> Panel:
    return Panel(
        title="Restarts in this range",
        shape=Shape.STAT,
        width=4,
        height=8,
        unit=Unit.COUNT,
        answers="Did a process start anew, and how often? Queries that it had in hand were lost. An instance "
        "whose name is new is not among them: see *Targets up over time*.",
        when_red="If nobody deployed (no blue mark): look for the end of the process in its log, "
        "memory first (*Peaks of memory* on *Resources*).",
        queries=(Query(promql.restarts(catalogue.WORKER_START_TIME.name), "{{instance}}", 0, _MOST_COUNT),),
        value_texts=((0.0, "none"),),
        no_value="The service is not scraped",
        decimals=0,
        links=(to_dashboard("Memory and workers", "cmo-resources"),),
    )


def _what_users_get(objectives: Objectives) -> tuple[Panel, ...]:
    return (_sources(), _cancelled(objectives), _waiting())


def _sources() -> Panel:
    return Panel(
        title="Live answers by source",
        shape=Shape.STACKED,
        width=8,
        height=8,
        unit=Unit.PER_SECOND,
        answers="Where do answers come from? Perplexity knows nothing of the corpus; `stale` and `default` "
        "are no answers at all.",
        when_red="Many from Perplexity: LightRAG fails or its breaker is "
        "open. `stale` or `default`: the fallbacks fail too, and users get nothing.",
        queries=(
            Query(
                f"sum by (source) (rate({catalogue.ANSWERS.name}{{{_LIVE}}}[{promql.RATE_INTERVAL}]))",
                "{{source}}",
                0.0,
                _MOST_A_SECOND,
            ),
        ),
        no_value="The service is not scraped",
    )


def _cancelled(objectives: Objectives) -> Panel:
    queries = catalogue.QUERIES.name
    left = f'sum(rate({queries}{{{_LIVE}, outcome="cancelled"}}[{promql.RATE_INTERVAL}]))'
    finished = f"sum(rate({queries}{{{_LIVE}}}[{promql.RATE_INTERVAL}]))"
    return Panel(
        title="Live queries that users cancelled",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.RATIO,
        answers="Do users leave before they are answered? Cancelled queries of all that finished; an "
        f"estimate, from rates. Dashed: {objectives.cancelled_limit * 100:g} %, above which no verdict is "
        "conclusive.",
        when_red="They do not wait that long, or a proxy cuts them off: compare *P95 and P99 of live answers "
        "(estimated)* and the proxy's time-out.",
        queries=(Query(f"{left} / ({finished} > 0)", "cancelled", 0.0, 1.0),),
        steps=(Step(None, NEUTRAL), Step(objectives.cancelled_limit, FAIL)),
        no_value=NO_TRAFFIC,
    )


def _waiting() -> Panel:
    age = catalogue.OLDEST_QUERY_AGE.name
    return Panel(
        title="Oldest live query in progress",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.SECONDS,
        answers="Does any live query hang? The age of the oldest that has begun and not finished, in each "
        "instance; 0 when there is none. A query that hangs is in no other number yet.",
        when_red="A line that rises as fast as time passes is a query that "
        "hangs: see the runbook CMOLiveQueriesHanging.md.",
        queries=(Query(f"max by (instance) ({age}{{{_LIVE}}})", "{{instance}}", 0.0, _MOST_SECONDS),),
        no_value="The service is not scraped",
    )


def _longer_windows(objectives: Objectives) -> tuple[Panel, ...]:
    return tuple(
        _verdicts_of(objectives, window, words)
        for window, words in ((Window.DAY, "last day"), (Window.MONTH, "last 30 days"))
    )


def _verdicts_of(objectives: Objectives, window: Window, words: str) -> Panel:
    return Panel(
        title=f"Verdict on the {words}",
        shape=Shape.STAT,
        width=12,
        height=6,
        unit=Unit.COUNT,
        answers=f"Did live traffic meet each target over the {words}? Whole hours, so up to one hour behind.",
        when_red=f"The bad time may be long over: *Bad live events of each hour* on "
        f"*{objectives.name.upper()} compliance* shows when, of success and answers in time.",
        queries=tuple(
            Query(
                verdicts.of_live_window(objectives.name, objective, window),
                objective.title,
                verdicts.LOWEST,
                verdicts.HIGHEST,
            )
            for objective in counted(objectives)
        ),
        steps=verdicts.STEPS,
        value_texts=verdicts.VALUE_TEXTS,
        value_colours=verdicts.VALUE_COLOURS,
        no_value="Prometheus does not answer",
        lowest=verdicts.LOWEST,
        links=(to_dashboard("Every objective and scenario", objectives.name),),
    )
