"""The dashboard "Resources": what the processes of the service use, and what its model calls cost.

Memory has the only target here, that of the objective on its growth in a test. It is drawn as a limit of the
growth since the lowest point of the range: a limit to watch by, not the verdict, which measures from the last
sample before a run to the peak in it. All else has no target, and so no colour of a verdict.

Everything is read from raw metrics of each process, so that it can be narrowed to one service and instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo.indicators import GrowthIndicator

from cmo_dashboards import expressions as promql
from cmo_dashboards.colours import target_line
from cmo_dashboards.dashboard import Dashboard
from cmo_dashboards.panels import Panel, Query, Row, Shape, Unit
from cmo_dashboards.promised import find, runbook_links, target_text
from cmo_dashboards.scrapes import targets_up
from cmo_dashboards.variables import INSTANCE, JOB

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

_CHOSEN: Final = 'job=~"$job", instance=~"$instance"'
_RATE: Final = promql.RATE_INTERVAL
_MOST_BYTES: Final = 64e9
_MOST: Final = 1e6
_SECONDS_AN_HOUR: Final = 3600
_NOT_SCRAPED: Final = "No instance is scraped"
_NO_LOOP: Final = "No event loop is watched, or no data: see Targets up"
_NO_HTTP: Final = "No HTTP request, or no data: see Targets up"
_NO_COST: Final = "No model has a price, or no data: see Targets up"
_SPENT: Final = f"increase({catalogue.LLM_COST.name}{{{_CHOSEN}}}[{promql.RANGE}])"
_HTTP_RANK: Final = 0.95
_ROUTE: Final = "{{http_route}}"
_WORKER: Final = "{{instance}} worker {{worker}}"
_MODEL: Final = "{{component}}, {{provider}} {{model}}"


def resources(objectives: Objectives) -> Dashboard:
    """The dashboard of what is used; limit and runbooks are those of an objectives file.

    Raises:
        ValueError: the file lacks the objective on the growth of memory.
    """
    return Dashboard(
        uid="cmo-resources",
        title="Resources",
        description="What do the processes of the service use, does any of it run out, and what do its "
        "model calls cost?",
        scenarios=objectives.scenarios,
        service=objectives.service,
        variables=(JOB, INSTANCE),
        rows=(
            Row(
                "Does memory grow?",
                (*_memory(objectives), targets_up(objectives.service.job, width=3, height=9)),
            ),
            Row("Does the event loop keep up?", _event_loop(objectives)),
            Row("Who takes the processor?", _processor()),
            Row(
                "Are the workers there, and what do they hold?", (*_workers(objectives), *_held(), _network())
            ),
            Row("What do model calls cost?", _cost(objectives)),
            Row("Can these numbers be trusted?", _dropped(objectives)),
            Row("HTTP: every request, not only questions", _http(), folded=True),
        ),
    )


def _memory(objectives: Objectives) -> tuple[Panel, ...]:
    objective, indicator = find(objectives, "memory_growth", GrowthIndicator)
    level = (
        f"sum by (job, instance) ({promql.selector(indicator.base.metric, indicator.base.labels, _CHOSEN)})"
    )
    lowest = f"min_over_time(({level})[{promql.RANGE}:{promql.INTERVAL}] @ end())"
    return (
        Panel(
            title=f"Growth of memory (target in a test {target_text(objective)})",
            shape=Shape.TIME_SERIES,
            width=7,
            height=9,
            unit=Unit.BYTES,
            answers="Does memory grow? Resident memory of each instance, its processes added, above its "
            "lowest in the range. The dashed line is what a load test may add. A range that holds a start "
            "of the process holds its loading too.",
            when_red="Above the line outside of a test, for hours: a leak, look at what grows with it "
            "(answers held by the caches, tasks, threads). In a test: the verdict is on "
            f"*{objectives.name.upper()} compliance*, which leaves out what came before.",
            queries=(Query(f"({level}) - on (job, instance) {lowest}", "{{instance}}", 0.0, _MOST_BYTES),),
            steps=target_line(objective),
            no_value=_NOT_SCRAPED,
            links=runbook_links(objectives, "CMOMemoryGrowing"),
        ),
        Panel(
            title="Memory of each worker",
            shape=Shape.TIME_SERIES,
            width=7,
            height=9,
            unit=Unit.BYTES,
            answers="Which process holds the memory? `rss` counts pages that workers share in each of them, "
            "`pss` in parts: add up `pss`, never `rss`.",
            when_red="One worker far above the others: it is the one that leaks, or that has the work.",
            queries=(Query(_of(catalogue.MEMORY), f"{_WORKER}, {{{{kind}}}}", 1e6, _MOST_BYTES),),
            no_value=_NOT_SCRAPED,
        ),
        Panel(
            title="Peaks of memory",
            shape=Shape.TIME_SERIES,
            width=7,
            height=9,
            unit=Unit.BYTES,
            answers="How high was it between scrapes? Highest of each worker since it started, and, dashed, "
            "since the first session of a scenario opened. A peak falls only when the process starts anew, "
            "or another run begins.",
            when_red="Near the memory limit of the container: the kernel ends the process "
            "there, with all queries inside.",
            queries=(
                Query(_of(catalogue.MEMORY_HIGH_WATER), f"{_WORKER}, {{{{kind}}}}", 1e6, _MOST_BYTES),
                Query(
                    f"max by (instance, worker, scenario) ({_of(catalogue.MEMORY_PEAK)}) > 0",
                    f"{_WORKER}, in {{{{scenario}}}}",
                    1e6,
                    _MOST_BYTES,
                    dashed=True,
                ),
            ),
            no_value=_NOT_SCRAPED,
        ),
    )


def _event_loop(objectives: Objectives) -> tuple[Panel, ...]:
    lag = catalogue.EVENT_LOOP_LAG.name
    buckets = f"sum by (instance, le) (rate({lag}_bucket{{{_CHOSEN}}}[{_RATE}]))"
    links = runbook_links(objectives, "CMOEventLoopBlocked")
    return (
        Panel(
            title="Lag of the event loop (estimated)",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.SECONDS,
            answers="How late does the loop run what is due? Seen from a thread, so that a blocked loop "
            "cannot hide. Quantiles are estimated between the edges of the buckets.",
            when_red="P99 above some tenths of a second: something blocks (a synchronous "
            "call in a coroutine) or the processor is full; all queries of the worker stand still meanwhile.",
            queries=tuple(
                # A quantile of nothing is NaN, and no comparison with NaN holds.
                Query(
                    f"histogram_quantile({quantile}, {buckets}) >= 0",
                    f"{name}, {{{{instance}}}}",
                    0.0,
                    catalogue.EVENT_LOOP_LAG.buckets[-1],
                )
                for name, quantile in (("P50", 0.5), ("P95", 0.95), ("P99", 0.99))
            ),
            no_value=_NO_LOOP,
            links=links,
        ),
        Panel(
            title="How long the event loop has been blocked",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.SECONDS,
            answers="Does a loop stand still now? Seconds since a worker's loop last answered, while it "
            "does not; 0 when it does.",
            when_red="Anything but 0: the service's log has the stack of what blocks.",
            queries=(Query(_of(catalogue.EVENT_LOOP_BLOCKED), _WORKER, 0.0, 3_600),),
            no_value=_NO_LOOP,
            links=links,
        ),
        Panel(
            title="Tasks of the event loop",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.COUNT,
            answers="How much is under way at once? Tasks that have not finished, by worker and loop.",
            when_red="A number that rises and never falls: tasks are begun and not awaited.",
            queries=(
                Query(
                    f"sum by (instance, worker, loop) ({_of(catalogue.ASYNCIO_TASKS)})",
                    f"{_WORKER}, loop {{{{loop}}}}",
                    0.0,
                    _MOST,
                ),
            ),
            no_value=_NO_LOOP,
        ),
    )


def _processor() -> tuple[Panel, ...]:
    pause = catalogue.GC_PAUSE.name
    buckets = f"sum by (generation, le) (rate({pause}_bucket{{{_CHOSEN}}}[{_RATE}]))"
    stopped = f"sum by (instance, generation) (rate({pause}_sum{{{_CHOSEN}}}[{_RATE}])) > 0"
    return (
        Panel(
            title="Processors in use, by mode",
            shape=Shape.STACKED,
            width=8,
            height=8,
            unit=Unit.COUNT,
            answers="How many processors does each instance keep busy? Seconds of processor time a second; "
            "1 is one processor. A worker runs Python on one at most.",
            when_red="Near the number of workers or of processors: answers slow down "
            "before anything fails. Much `system`: it talks to disk or network more than it computes.",
            queries=(
                Query(
                    f"sum by (instance, mode) ({_rate(catalogue.CPU_SECONDS)})",
                    "{{instance}}, {{mode}}",
                    0.0,
                    1_000,
                ),
            ),
            no_value=_NOT_SCRAPED,
        ),
        Panel(
            title="Share of time in the garbage collector",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.RATIO,
            answers="How much of the time does the garbage collector stop the processes? By generation; of "
            "several workers the sum.",
            when_red="More than some percent: many objects that hold each other; "
            "generation 2 looks at them all.",
            queries=(
                Query(stopped, "{{instance}}, generation {{generation}}", 0.0, 64.0, may_be_empty=True),
            ),
            no_value="Nothing collected, or no data: see Targets up",
        ),
        Panel(
            title="Pauses of the garbage collector (P99, estimated)",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.SECONDS,
            answers="How long does one collection stop everything? Estimated between the edges of the "
            "buckets.",
            when_red="Tenths of a second are lag of the event loop: compare *Lag of the event loop*.",
            queries=(
                Query(
                    f"histogram_quantile(0.99, {buckets}) >= 0",
                    "generation {{generation}}",
                    0.0,
                    catalogue.GC_PAUSE.buckets[-1],
                    may_be_empty=True,
                ),
            ),
            no_value="Nothing collected, or no data: see Targets up",
        ),
    )


def _workers(objectives: Objectives) -> tuple[Panel, ...]:
    started = _of(catalogue.WORKER_START_TIME)
    restarts = f"{catalogue.WORKER_RESTARTS.name}{{{_CHOSEN}}}[{promql.RANGE}]"
    return (
        Panel(
            title="Workers",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.COUNT,
            answers="Are all worker processes there? Their number in each instance; an instance that is not "
            "scraped has no line.",
            when_red="Fewer than the service was started with: one has died and was not replaced.",
            queries=(Query(f"count by (instance) ({started})", "{{instance}}", 1, 1_000),),
            no_value=_NOT_SCRAPED,
        ),
        Panel(
            title="Age of each worker",
            shape=Shape.STAT,
            width=8,
            height=8,
            unit=Unit.SECONDS,
            answers="Since when does each worker run?",
            when_red="A young worker among old ones: the one before it died. All young: a "
            "deploy, or a crash.",
            queries=(Query(f"time() - {started}", _WORKER, 0, 1e9),),
            decimals=0,
            no_value=_NOT_SCRAPED,
        ),
        Panel(
            title="Restarts of workers in the range",
            shape=Shape.STAT,
            width=8,
            height=8,
            unit=Unit.COUNT,
            answers="Did a worker die and come again? Workers that took the place of one that was gone. A "
            "restart of the whole instance begins at 0 again: see *Age of each worker*.",
            when_red="Anything above 0 without a deploy: look for the end of the process "
            "in its log, memory first.",
            queries=(Query(f"round(increase({restarts}))", _WORKER, 0, 1_000),),
            decimals=0,
            no_value=_NOT_SCRAPED,
            links=runbook_links(objectives, "CMORestartingOften"),
        ),
    )


def _held() -> tuple[Panel, ...]:
    files, limit = _of(catalogue.OPEN_FILES), _of(catalogue.MAX_FILES)
    return (
        Panel(
            title="Open files, of those allowed",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.RATIO,
            answers="Do files and sockets run out? Descriptors that a worker holds, of those that its limit "
            "allows.",
            when_red="At 100 % no connection is accepted any more. Rising without "
            "traffic: connections are opened and not closed.",
            queries=(Query(f"{files} / ({limit} > 0)", _WORKER, 0.0, 1.0),),
            highest=1.0,
            no_value=_NOT_SCRAPED,
        ),
        Panel(
            title="Threads of each worker",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.COUNT,
            answers="How many threads does each worker have?",
            when_red="Rising with the number of sessions and never falling: each session leaves one behind.",
            queries=(Query(_of(catalogue.THREADS), _WORKER, 0, 100_000),),
            no_value=_NOT_SCRAPED,
        ),
    )


def _network() -> Panel:
    return Panel(
        title="Bodies of requests and answers",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.BYTES_A_SECOND,
        answers="How much do queries move? Bytes of the bodies of requests (`receive`) and answers "
        "(`transmit`).",
        when_red="Answers that grow while their number does not: something is repeated in them.",
        queries=(
            Query(
                f"sum by (instance, direction) ({_rate(catalogue.NETWORK)})",
                "{{instance}}, {{direction}}",
                0.0,
                1e12,
            ),
        ),
        no_value=_NOT_SCRAPED,
    )


def _cost(objectives: Objectives) -> tuple[Panel, ...]:
    return _cost_in_the_range(), _cost_of_a_query(), _cost_an_hour(objectives), _tokens()


def _cost_in_the_range() -> Panel:
    return Panel(
        title="Cost in the range, by model",
        shape=Shape.STAT,
        width=6,
        height=8,
        unit=Unit.DOLLARS,
        answers="What did model calls cost? US dollars, from tokens and the price table of the "
        "exporter's settings; a model without a price is missing.",
        when_red="The model that costs most is the one to ask less, or to cache better.",
        queries=(Query(f"sum by (component, provider, model) ({_SPENT})", _MODEL, 0.0, _MOST),),
        no_value=_NO_COST,
    )


def _cost_of_a_query() -> Panel:
    finished = f"sum(increase({_of(catalogue.QUERIES)}[{promql.RANGE}]))"
    return Panel(
        title="Cost of a query in the range",
        shape=Shape.STAT,
        width=4,
        height=8,
        unit=Unit.DOLLARS,
        answers="What does a query cost on average? All cost over all finished queries, those that a "
        "cache answered included.",
        when_red="Rising with a falling cache hit rate: the caches. Rising alone: "
        "longer prompts, or retries.",
        queries=(Query(f"sum({_SPENT}) / ({finished} > 0)", "a query", 0.0, 100.0),),
        decimals=5,
        no_value="No traffic, no price, or no data: see Targets up",
    )


def _cost_an_hour(objectives: Objectives) -> Panel:
    return Panel(
        title="Cost an hour, by model",
        shape=Shape.TIME_SERIES,
        width=7,
        height=8,
        unit=Unit.DOLLARS,
        answers="When is the money spent? US dollars an hour at the rate of each moment.",
        when_red="It has no line for a target, because no objective has one; the alert CMOCostHigh says "
        "what is too much in an hour. A rise without more queries: prompts or retries.",
        queries=(
            Query(
                f"sum by (component, provider, model) ({_rate(catalogue.LLM_COST)}) * {_SECONDS_AN_HOUR}",
                _MODEL,
                0.0,
                _MOST,
            ),
        ),
        no_value=_NO_COST,
        links=runbook_links(objectives, "CMOCostHigh"),
    )


def _tokens() -> Panel:
    return Panel(
        title="Tokens a second, by model and type",
        shape=Shape.TIME_SERIES,
        width=7,
        height=8,
        unit=Unit.COUNT,
        answers="What do models read and write? Tokens as the provider reports them.",
        when_red="Much input to little output: too much context is sent along.",
        queries=(
            Query(
                f"sum by (component, provider, model, token_type) ({_rate(catalogue.LLM_TOKENS)})",
                f"{_MODEL}: {{{{token_type}}}}",
                0.0,
                1e9,
            ),
        ),
        no_value="No model is watched, or no data: see Targets up",
    )


def _dropped(objectives: Objectives) -> tuple[Panel, ...]:
    links = runbook_links(objectives, "CMOSeriesDropped")

    def rising(title: str, metric: catalogue.Metric, answers: str, when_red: str) -> Panel:
        return Panel(
            title=title,
            shape=Shape.TIME_SERIES,
            width=12,
            height=7,
            unit=Unit.PER_SECOND,
            answers=answers,
            when_red=when_red,
            queries=(
                Query(f"sum by (metric) ({_rate(metric)}) > 0", "{{metric}}", 0.0, _MOST, may_be_empty=True),
            ),
            no_value="None counted, or no data: see Targets up",
            links=links,
        )

    return (
        rising(
            "Label values dropped",
            catalogue.SERIES_DROPPED,
            "Does the service use names that the exporter was not told of? Values a second that were "
            "recorded as `_other`.",
            "It has no target, but should be empty: add the name to the settings of the exporter, or mend "
            "who sends it.",
        ),
        rising(
            "Errors of the exporter",
            catalogue.INSTRUMENTATION_ERRORS,
            "Does the exporter fail to count? Errors a second inside the instrumentation, which the service "
            "never sees.",
            "It has no target, but should be empty: what this metric says is incomplete; the service's log "
            "has the first error.",
        ),
    )


def _http() -> tuple[Panel, ...]:
    """What the web server does, the chat page and health checks included."""
    return _http_requests(), _http_durations(), _http_under_way()


def _http_requests() -> Panel:
    def finished(status: str) -> str:
        requests = f"{catalogue.HTTP_SERVER_REQUEST_DURATION.name}_count"
        selected = f'{requests}{{{_CHOSEN}, http_response_status_code=~"{status}"}}'
        return f"sum by (http_route) (rate({selected}[{_RATE}]))"

    return Panel(
        title="HTTP requests a second, by route and class of status",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.PER_SECOND,
        answers="What is asked of the web server, and how does it answer? `/readyz` answers 503 when the "
        "service cannot work; an apology is a 200 here, and an error on every other dashboard.",
        when_red="5xx of `/query`: the service breaks before it can apologise; its log "
        "says how. 4xx: somebody asks wrongly, or (499) leaves before the answer.",
        queries=(
            Query(finished("(1|2|3).."), f"{_ROUTE}, answered", 0.0, _MOST),
            Query(finished("4.."), f"{_ROUTE}, 4xx", 0.0, _MOST, may_be_empty=True, dashed=True),
            Query(finished("5.."), f"{_ROUTE}, 5xx", 0.0, _MOST, may_be_empty=True, dashed=True),
        ),
        no_value=_NO_HTTP,
    )


def _http_durations() -> Panel:
    def slowest(metric: catalogue.Metric) -> str:
        buckets = f"sum by (http_route, le) (rate({metric.name}_bucket{{{_CHOSEN}}}[{_RATE}]))"
        return f"histogram_quantile({_HTTP_RANK:g}, {buckets}) >= 0"

    longest = catalogue.HTTP_SERVER_REQUEST_DURATION.buckets[-1]
    return Panel(
        title=f"Time to the first and to the last byte (P{_HTTP_RANK * 100:g}, estimated)",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.SECONDS,
        answers="How long does a request take, and, dashed, how long until something comes? By route; "
        "estimated between the edges of the buckets, which end at "
        f"{longest:g} s. A streamed answer begins long before it ends. Points are single requests, each "
        "with the id of its trace, where traces are on (`docs/traces.md`).",
        when_red="`/readyz` slow: the event loop is blocked, see above. The first byte "
        "as late as the last: something between holds the stream back.",
        queries=(
            Query(
                slowest(catalogue.HTTP_SERVER_REQUEST_DURATION),
                f"{_ROUTE}, last byte",
                0.0,
                longest,
                exemplars=True,
            ),
            Query(
                slowest(catalogue.HTTP_SERVER_TIME_TO_FIRST_BYTE),
                f"{_ROUTE}, first byte",
                0.0,
                catalogue.HTTP_SERVER_TIME_TO_FIRST_BYTE.buckets[-1],
                dashed=True,
                exemplars=True,
            ),
        ),
        no_value=_NO_HTTP,
    )


def _http_under_way() -> Panel:
    return Panel(
        title="HTTP requests under way",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.COUNT,
        answers="How many requests are being answered? By instance and method.",
        when_red="A number that rises and never falls: requests hang; see *Oldest live "
        "query in progress* on *CMO overview*.",
        queries=(
            Query(
                f"sum by (instance, http_request_method) ({_of(catalogue.HTTP_SERVER_ACTIVE_REQUESTS)})",
                "{{instance}}, {{http_request_method}}",
                0.0,
                _MOST,
            ),
        ),
        no_value=_NO_HTTP,
    )


def _of(metric: catalogue.Metric) -> str:
    return f"{metric.name}{{{_CHOSEN}}}"


def _rate(metric: catalogue.Metric) -> str:
    return f"rate({_of(metric)}[{_RATE}])"
