"""The dashboard "CMO components": where the time of a query goes, and which component fails.

Rows follow the data: caches, LightRAG behind its breaker, Perplexity, and what is left when both fail. Shares
of calls that fail are exact, from the events that the rules record for every component. Rates, durations and
waits come from raw counters, which no rule records and no verdict needs: they are estimates, and say so.

Model and embedding calls are made inside LightRAG's, so their seconds are part of its own. They are never
stacked on top of it: one picture divides a query among the components it passes, another LightRAG's own time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo.indicators import RatioIndicator

from cmo_dashboards import expressions as promql
from cmo_dashboards.caches import caches
from cmo_dashboards.colours import NEUTRAL, verdict_steps
from cmo_dashboards.dashboard import Dashboard
from cmo_dashboards.fallback_chain import breaker_panels, fallbacks
from cmo_dashboards.panels import NO_CALLS, OR_NO_DATA, Panel, Query, Row, Shape, Unit, to_dashboard
from cmo_dashboards.promised import find, find_component, runbook_links, target_text
from cmo_dashboards.scrapes import targets_up
from cmo_dashboards.variables import COMPONENT, SCENARIO

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

LIGHTRAG: Final = "lightrag"
WITHIN_LIGHTRAG: Final = ("llm", "embedding")
"""Components whose calls are made inside a call of LightRAG, as the adapter and reference service have it."""

_REST: Final = "the rest"
_REST_OF_LIGHTRAG: Final = "the rest of LightRAG"
_WAITING: Final = "waiting for a turn"
_WAITING_COLOURS: Final = (
    (f"{LIGHTRAG}, {_WAITING}", "#EE99AA"),
    (f"llm, {_WAITING}", "#4B4BD0"),
    (f"embedding, {_WAITING}", "#DDCC77"),
)
"""What waits lies on what works in one picture, so it has colours of its own."""
_RATE: Final = promql.RATE_INTERVAL
_OF_ONE: Final = promql.CHOSEN_COMPONENT
_WITHIN: Final = "|".join(WITHIN_LIGHTRAG)
_DURATION: Final = catalogue.COMPONENT_DURATION.name
_MOST_CALLS: Final = 100_000
_LONGEST_SECONDS: Final = 120
_LAST_EDGE_SECONDS: Final = catalogue.COMPONENT_BUCKETS_SECONDS[-1]


def components(objectives: Objectives) -> Dashboard:
    """The dashboard of the components; their targets and runbooks are those of an objectives file.

    Raises:
        ValueError: the file lacks one of the objectives that the dashboard shows.
    """
    return Dashboard(
        uid="cmo-components",
        title="CMO components",
        description="Where does the time of a query go, and which component fails? In the order of the "
        "data: caches, LightRAG behind its breaker, Perplexity, then a stale or default answer.",
        scenarios=objectives.scenarios,
        service=objectives.service,
        variables=(SCENARIO, COMPONENT),
        rows=(
            Row("Which component fails?", _failing(objectives)),
            Row("Where does the time of a query go?", _time(objectives)),
            Row("Do the caches answer?", caches(objectives)),
            Row("Is a circuit breaker open?", breaker_panels(objectives)),
            Row("What stands in for LightRAG?", fallbacks(objectives)),
            Row(
                "$component: rate, errors, duration", _each(objectives), folded=True, repeated_by="component"
            ),
        ),
    )


def _failing(objectives: Objectives) -> tuple[Panel, ...]:
    return (
        _calls_that_succeed(objectives),
        _calls_that_fail(objectives),
        _calls_a_second(),
        targets_up(objectives.service.job, width=3, height=9),
    )


def _calls_that_succeed(objectives: Objectives) -> Panel:
    healthy, _ = find(objectives, "lightrag_healthy", RatioIndicator)
    find_component(objectives, "success", RatioIndicator)
    of_lightrag, of_others = _component(LIGHTRAG), f'component!="{LIGHTRAG}"'
    slo, fewest = objectives.name, healthy.minimum_events
    return Panel(
        title=f"Calls that succeed (LightRAG: target {target_text(healthy)})",
        shape=Shape.STAT,
        width=7,
        height=9,
        unit=Unit.RATIO,
        answers="Which component fails? Calls that gave an answer, of all finished ones but those that "
        "the user cancelled, over the range; exact. A call that an open breaker refused gave none; a "
        "cache that holds no answer has worked. Only LightRAG has a target, and a colour from "
        f"{healthy.minimum_events} calls on; the prober's do not count.",
        when_red="LightRAG fails more often than its target allows: open its row below and see by which "
        "outcome. Time-outs mean that it is slow, rejections that its breaker is open, errors that it "
        "or its model is broken.",
        queries=(
            Query(_judged_ratio(slo, of_lightrag, promql.enough(fewest)), "{{component}}", 0.0, 1.0),
            Query(_judged_ratio(slo, of_others, promql.ANY_EVENTS), "{{component}}", 0.0, 1.0, judged=False),
            Query(
                _judged_ratio(slo, of_lightrag, promql.too_few(fewest)),
                "{{component}}, too few to judge",
                0.0,
                1.0,
                judged=False,
                may_be_empty=True,
            ),
        ),
        steps=verdict_steps(healthy),
        highest=1.0,
        decimals=2,
        no_value=NO_CALLS,
        links=runbook_links(objectives, "CMOLightRAGFailing"),
    )


def _calls_that_fail(objectives: Objectives) -> Panel:
    return Panel(
        title="Share of calls that fail, by component",
        shape=Shape.TIME_SERIES,
        width=7,
        height=9,
        unit=Unit.RATIO,
        answers="Since when does a component fail? One minus the share beside, over each short "
        "interval; exact. A component without calls has no line.",
        when_red="The component whose line "
        "rises first is nearest to the cause; those behind it in the chain get more calls from then on.",
        queries=(_failures(objectives.name, "component"),),
        highest=1.0,
        no_value=NO_CALLS,
        links=runbook_links(objectives, "CMOComponentTimeouts"),
    )


def _calls_a_second() -> Panel:
    finished = promql.rate(catalogue.COMPONENT_CALLS.name, promql.CHOSEN, _OF_ONE)
    return Panel(
        title="Calls a second, by component",
        shape=Shape.TIME_SERIES,
        width=7,
        height=9,
        unit=Unit.PER_SECOND,
        answers="What passes through each component? Every query looks into the caches; only what they "
        "miss reaches LightRAG, and only what that fails on reaches Perplexity.",
        when_red="A line of Perplexity that rises with a share of failures of "
        "LightRAG is the fallback at work; one of LightRAG that rises alone is a cache that has stopped "
        "to answer.",
        queries=(
            Query(
                f"sum by (component) ({finished})",
                "{{component}}",
                0.0,
                _MOST_CALLS,
            ),
        ),
        no_value=NO_CALLS,
    )


def _time(objectives: Objectives) -> tuple[Panel, ...]:
    return _time_of_a_query(), _time_of_lightrag(objectives), _first_token()


def _time_of_a_query() -> Panel:
    passed = promql.rate(f"{_DURATION}_sum", promql.CHOSEN, f'component!~"{_WITHIN}"')
    finished = f"sum({promql.rate(f'{catalogue.QUERY_DURATION.name}_count', promql.CHOSEN)}) > 0"
    all_of_it = f"sum({promql.rate(f'{catalogue.QUERY_DURATION.name}_sum', promql.CHOSEN)})"
    return Panel(
        title="Where the time of a query goes",
        shape=Shape.STACKED,
        width=8,
        height=9,
        unit=Unit.SECONDS,
        answers="Which component takes the time? Seconds of work of each component for one finished "
        "query, one upon the other: together the mean time of a query. What no component accounts for "
        "is the rest: the service itself, and waiting for its event loop. A mean hides the slow ones; "
        "the P95 is on *CMO overview*. Always all components.",
        when_red="Look at the thickest part: if LightRAG, see beside where its own "
        "time goes; if Perplexity, LightRAG fails first and costs its time-out; if the rest, look at "
        "the event loop on *Resources*.",
        queries=(
            Query(
                f"sum by (component) ({passed}) / on () group_left () ({finished})",
                "{{component}}",
                0.0,
                _LONGEST_SECONDS,
            ),
            Query(
                f"clamp_min({all_of_it} - (sum({passed}) or vector(0)), 0) / ({finished})",
                _REST,
                0.0,
                _LONGEST_SECONDS,
            ),
        ),
        line_colours=((_REST, NEUTRAL),),
        links=(
            to_dashboard("P95 of answers", "cmo-overview"),
            to_dashboard("Event loop", "cmo-resources"),
        ),
    )


def _time_of_lightrag(objectives: Objectives) -> Panel:
    called = f"sum({promql.rate(f'{_DURATION}_count', _component(LIGHTRAG))}) > 0"
    worked = promql.rate(f"{_DURATION}_sum", f'component=~"{_WITHIN}"')
    waited = promql.rate(f"{catalogue.QUEUE_WAIT.name}_sum", f'component=~"{LIGHTRAG}|{_WITHIN}"')
    inside = f"((sum({worked}) or vector(0)) + (sum({waited}) or vector(0)))"
    of_lightrag = f"sum({promql.rate(f'{_DURATION}_sum', _component(LIGHTRAG))})"
    return Panel(
        title="Where the time of a call of LightRAG goes",
        shape=Shape.STACKED,
        width=8,
        height=9,
        unit=Unit.SECONDS,
        answers="Does LightRAG wait or work? Seconds for one call of LightRAG: its calls of models that "
        "wait for their turn, those that are under way, embeddings, and the rest: retrieval, retries, "
        "refusals. Calls side by side count each, so the whole may exceed the time of a call. All "
        "scenarios together, because waits are not counted for each.",
        when_red="Mostly waiting: more calls come than may run at once "
        "(`llm_model_max_async`). Mostly the model: it is slow, ask who runs it. Mostly the rest: look "
        "at the graph's storage and at retries.",
        queries=(
            Query(
                f"sum by (component) ({waited}) / on () group_left () ({called})",
                f"{{{{component}}}}, {_WAITING}",
                0.0,
                _LONGEST_SECONDS,
            ),
            Query(
                f"sum by (component) ({worked}) / on () group_left () ({called})",
                "{{component}}, under way",
                0.0,
                _LONGEST_SECONDS,
            ),
            Query(
                f"clamp_min({of_lightrag} - {inside}, 0) / ({called})",
                _REST_OF_LIGHTRAG,
                0.0,
                _LONGEST_SECONDS,
            ),
        ),
        line_colours=(*_WAITING_COLOURS, (_REST_OF_LIGHTRAG, NEUTRAL)),
        no_value=f"No calls of LightRAG, {OR_NO_DATA}",
        links=runbook_links(objectives, "CMOQueueSaturated"),
    )


def _first_token() -> Panel:
    buckets = promql.rate(f"{catalogue.LLM_TIME_TO_FIRST_TOKEN.name}_bucket")
    by_model = f"sum by (le, component, model) ({buckets})"
    return Panel(
        title="First token of a model (P95, estimated)",
        shape=Shape.TIME_SERIES,
        width=8,
        height=9,
        unit=Unit.SECONDS,
        answers="Does the model let users wait before it says anything? From a streamed call to the first "
        f"piece of its answer; never above {_LAST_EDGE_SECONDS:g} s. All scenarios together, as calls are "
        "counted. Points are single calls, each with the id of its trace.",
        when_red="High: the model or its provider is busy, ask who runs it. Low while its calls take long: "
        "answers are long, ask for shorter ones.",
        queries=(
            Query(
                # A quantile of no calls is NaN, and no comparison with NaN holds.
                f"histogram_quantile(0.95, {by_model}) >= 0",
                "{{component}}, {{model}}",
                0.0,
                _LAST_EDGE_SECONDS,
                may_be_empty=True,
                exemplars=True,
            ),
        ),
        no_value=f"No streamed call, {OR_NO_DATA}",
    )


def _each(objectives: Objectives) -> tuple[Panel, ...]:
    return (*_calls_of_each(objectives), *_waits_of_each(objectives))


def _calls_of_each(objectives: Objectives) -> tuple[Panel, ...]:
    finished = promql.rate(catalogue.COMPONENT_CALLS.name, promql.CHOSEN, _OF_ONE)
    buckets = f"sum by (le) ({promql.rate(f'{_DURATION}_bucket', promql.CHOSEN, _OF_ONE)})"
    return (
        Panel(
            title="Calls of $component a second, by outcome",
            shape=Shape.STACKED,
            width=8,
            height=8,
            unit=Unit.PER_SECOND,
            answers="How many calls does it get, and what becomes of them?",
            when_red="`timeout`: it is slower than it is given. `rejected`: refused "
            "before any work, by a breaker or a rate limit. `cancelled`: the user left.",
            queries=(Query(f"sum by (outcome) ({finished})", "{{outcome}}", 0.0, _MOST_CALLS),),
            no_value=NO_CALLS,
        ),
        Panel(
            title="Share of calls of $component that fail, by scenario",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.RATIO,
            answers="For whom does it fail? One minus good calls of all but the cancelled; exact.",
            when_red="`live`: people are affected now.",
            queries=(_failures(objectives.name, "scenario"),),
            highest=1.0,
            no_value=NO_CALLS,
            links=runbook_links(objectives, "CMOComponentTimeouts"),
        ),
        Panel(
            title="Duration of calls of $component (estimated)",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.SECONDS,
            answers="How long does a call take? A model's begins when its turn has come; the wait for it is "
            "part of LightRAG's. Quantiles are estimated between the edges of the buckets, and are never "
            f"above {_LAST_EDGE_SECONDS:g} s. Points are single calls, each with the id of its trace, where "
            "traces are on (`docs/traces.md`).",
            when_red="P50 high: all calls are slow. P95 alone: some are; open the trace of a point up there.",
            queries=tuple(
                # A quantile of no calls is NaN, and no comparison with NaN holds.
                Query(
                    f"histogram_quantile({quantile}, {buckets}) >= 0",
                    name,
                    0.0,
                    _LAST_EDGE_SECONDS,
                    exemplars=name == "P95",
                )
                for name, quantile in (("P50", 0.5), ("P95", 0.95), ("P99", 0.99))
            ),
            no_value=NO_CALLS,
        ),
    )


def _waits_of_each(objectives: Objectives) -> tuple[Panel, ...]:
    wait = catalogue.QUEUE_WAIT.name
    buckets = f"sum by (le) ({promql.rate(f'{wait}_bucket', _OF_ONE)})"
    return (
        Panel(
            title="Calls of $component in progress and waiting",
            shape=Shape.TIME_SERIES,
            width=12,
            height=7,
            unit=Unit.COUNT,
            answers="How many calls are under way, and how many wait for their turn? All scenarios together.",
            when_red="Many waiting while the number under way stays flat: that is the "
            "limit of how many run at once.",
            queries=(
                Query(
                    f"sum by (instance) ({catalogue.COMPONENT_IN_PROGRESS.name}{{{_OF_ONE}}})",
                    "under way, {{instance}}",
                    0.0,
                    _MOST_CALLS,
                ),
                Query(
                    f"sum by (instance) ({catalogue.QUEUE_DEPTH.name}{{{_OF_ONE}}})",
                    "waiting, {{instance}}",
                    0.0,
                    _MOST_CALLS,
                    dashed=True,
                ),
            ),
            no_value=NO_CALLS,
        ),
        Panel(
            title="Wait of calls of $component for their turn (estimated)",
            shape=Shape.TIME_SERIES,
            width=12,
            height=7,
            unit=Unit.SECONDS,
            answers="How long do calls wait before they begin? Estimated quantiles of the wait alone; all "
            "scenarios together. No line where nothing queues.",
            when_red="Calls that wait longer than they work: let more run at once, or send less.",
            queries=tuple(
                Query(
                    f"histogram_quantile({quantile}, {buckets}) >= 0",
                    name,
                    0.0,
                    _LAST_EDGE_SECONDS,
                    exemplars=name == "P95",
                )
                for name, quantile in (("P50", 0.5), ("P95", 0.95))
            ),
            no_value=f"Nothing waits, {OR_NO_DATA}",
            links=runbook_links(objectives, "CMOQueueSaturated"),
        ),
    )


def _failures(slo: str, by: str) -> Query:
    """Share of calls that fail, by a label."""
    ratio = promql.good_calls_ratio(slo, f"{promql.CHOSEN}, {_OF_ONE}", _RATE, by=by)
    return Query(f"1 - {ratio}", f"{{{{{by}}}}}", 0.0, 1.0)


def _judged_ratio(slo: str, component: str, guard: str) -> str:
    """Over the range, of people and load tests alone: a prober that asks an idle service judges nothing."""
    calls = f"{promql.CHOSEN}, {component}, {promql.NOT_THE_PROBER}, {_OF_ONE}"
    return promql.good_calls_ratio(slo, calls, promql.RANGE, guard)


def _component(name: str) -> str:
    return f'component="{name}"'
