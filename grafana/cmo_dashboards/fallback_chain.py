"""Of the dashboard "CMO components" what follows when LightRAG fails: its breaker, and who stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_dashboards import breakers
from cmo_dashboards import expressions as promql
from cmo_dashboards.panels import NO_CALLS, OR_NO_DATA, Panel, Query, Shape, Unit
from cmo_dashboards.promised import runbook_links

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

_MOST_CALLS: Final = 100_000


def breaker_panels(objectives: Objectives) -> tuple[Panel, ...]:
    """Which breaker is open, how it came to that, and whom it refused."""
    return _breaker_states(objectives), _breaker_transitions(), _breaker_rejections()


def _breaker_states(objectives: Objectives) -> Panel:
    return Panel(
        title="State of each circuit breaker",
        shape=Shape.STATES,
        width=12,
        height=8,
        unit=Unit.COUNT,
        answers="Is a breaker open, and since when? One line for each component and instance. Where "
        "workers differ, the worst state is shown. `closed` is the normal one, and as grey as no data: "
        "read it.",
        when_red="`open`: LightRAG is not asked, and every query falls back. Look at *Share of calls "
        "that fail* just before: that opened it. `half_open` lets one call through to see whether it "
        "works again.",
        queries=(
            Query(
                breakers.worst_state("component, instance", promql.CHOSEN_COMPONENT),
                "{{component}}, {{instance}}",
                breakers.BEST,
                breakers.WORST,
            ),
        ),
        no_value=f"No breaker, {OR_NO_DATA}",
        value_texts=breakers.VALUE_TEXTS,
        value_colours=breakers.VALUE_COLOURS,
        links=runbook_links(objectives, "CMOBreakerOpen"),
    )


def _breaker_transitions() -> Panel:
    return _by_state(
        catalogue.BREAKER_TRANSITIONS,
        title="Changes of state",
        answers="Does a breaker flap? Times a second that it went into each state.",
        when_red="Opening again and again: its recovery time is too short for what is "
        "broken, or its threshold too low for what is normal.",
        no_value=f"No change, {OR_NO_DATA}",
    )


def _breaker_rejections() -> Panel:
    return _by_state(
        catalogue.BREAKER_REJECTIONS,
        title="Calls that a breaker refuses",
        answers="What does an open breaker cost? Calls a second that it refused: each is a query that "
        "falls back.",
        when_red="Mend the component: the breaker closes with the first question after that which no "
        "cache answers.",
        no_value=f"None refused, {OR_NO_DATA}",
    )


def _by_state(metric: catalogue.Metric, *, title: str, answers: str, when_red: str, no_value: str) -> Panel:
    """How often something happens to a breaker, by its state; no line where it does not."""
    return Panel(
        title=title,
        shape=Shape.TIME_SERIES,
        width=6,
        height=8,
        unit=Unit.PER_SECOND,
        answers=answers,
        when_red=when_red,
        queries=(
            Query(
                f"sum by (component, state) ({promql.rate(metric.name, promql.CHOSEN_COMPONENT)}) > 0",
                "{{state}}, {{component}}",
                0.0,
                _MOST_CALLS,
                may_be_empty=True,
            ),
        ),
        no_value=no_value,
    )


def fallbacks(objectives: Objectives) -> tuple[Panel, ...]:
    """Who answered instead, why queries were handed on, and what was tried again."""
    answers = promql.rate(catalogue.ANSWERS.name, promql.CHOSEN)
    handed_on = promql.rate(catalogue.FALLBACKS.name, promql.CHOSEN)
    return (
        Panel(
            title="Answers a second, by source",
            shape=Shape.STACKED,
            width=8,
            height=8,
            unit=Unit.PER_SECOND,
            answers="Who answers? `cache`, `lightrag` and `perplexity` are real answers; `stale` and "
            "`default` are none, and count as errors.",
            when_red="`default` is an apology: both sources failed. `perplexity` knows "
            "nothing of the corpus.",
            queries=(Query(f"sum by (source) ({answers})", "{{source}}", 0.0, _MOST_CALLS),),
            links=runbook_links(objectives, "CMOFallbackShareHigh"),
        ),
        Panel(
            title="Fallbacks a second, by way and reason",
            shape=Shape.TIME_SERIES,
            width=10,
            height=8,
            unit=Unit.PER_SECOND,
            answers="Who hands queries on to whom, and why? From the source that failed to the next one, "
            "and the reason.",
            when_red="`circuit_breaker_open`: see above since when. `api_timeout`: the "
            "source is slow. `budget_exceeded` and `rate_limit`: ask who pays for it.",
            queries=(
                Query(
                    f"sum by (source, target, reason) ({handed_on}) > 0",
                    "{{source}} to {{target}}: {{reason}}",
                    0.0,
                    _MOST_CALLS,
                ),
            ),
            no_value=f"No fallback, {OR_NO_DATA}",
        ),
        Panel(
            title="Retries a second, by component",
            shape=Shape.TIME_SERIES,
            width=6,
            height=8,
            unit=Unit.PER_SECOND,
            answers="How often are calls made again? A retry hides a failure from the user and takes time.",
            when_red="Retries that rise with the load make an overload worse: fewer, and later.",
            queries=(
                Query(
                    f"sum by (component) ({promql.rate(catalogue.RETRIES.name, promql.CHOSEN_COMPONENT)})",
                    "{{component}}",
                    0.0,
                    _MOST_CALLS,
                ),
            ),
            no_value=NO_CALLS,
        ),
    )
