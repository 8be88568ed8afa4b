"""What is wrong with the answers that a real Prometheus gives to the panels' queries.

Under load every query must find something, within the range that is written beside it: a percentage that is
100 times too large, or a metric that nobody exposes any more, parses as well as a right one. Idle, nothing
may have a verdict's green or amber: all would look well for want of data. Either is proved only by a
Prometheus that scrapes the service and evaluates its rules (`premises`): another colours nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_dashboards.colours import PASS, WARN
from cmo_dashboards.promised import watchdog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cmo_slo.model import Objectives

    from cmo_dashboards.queries import PanelQuery

Answer = Sequence[tuple[Mapping[str, str], Sequence[float]]]
"""Series: their labels, and their values in the order of time."""
Ask = Callable[["PanelQuery"], Answer]

_WELL: Final = {PASS: "PASS", WARN: "WARN"}


@dataclass(frozen=True)
class Premise:
    """What must be so before any answer proves something.

    Attributes:
        expression: has a series where it is so.
        otherwise: what is amiss where it has none, and how to mend it.
    """

    expression: str
    otherwise: str


def premises(objectives: Objectives, lately: str) -> tuple[Premise, ...]:
    """That the service is scraped, and that its rules are evaluated.

    Args:
        objectives: what job the service is, and which alert always fires.
        lately: a few scrapes, as a PromQL duration: any of them may have been missed.

    Raises:
        ValueError: the objectives have no alert that always fires.
    """
    job, alert = objectives.service.job, watchdog(objectives)
    return (
        Premise(
            f'max_over_time(up{{job="{job}"}}[{lately}]) == 1',
            f"no instance of the job {job!r} is scraped: see /api/v1/targets there, and start the service",
        ),
        Premise(
            f'ALERTS{{alertname="{alert}", alertstate="firing"}}',
            f"{alert}, which always fires, does not: load the compiled rules, or wait for their evaluation",
        ),
    )


class QueryRefusedError(Exception):
    """Prometheus answers, but not this query; the message says why."""


def wrong_under_load(queries: Iterable[PanelQuery], ask: Ask) -> Iterator[str]:
    """One line for each query that fails, finds nothing though it should, or finds what cannot be."""
    for query, answer in _answered(queries, ask):
        if isinstance(answer, str):
            yield answer
        elif not answer:
            if not query.may_be_empty:
                yield f"{query.place}: returns nothing, which it may not under load: {query.expression}"
        else:
            yield from _implausible(query, answer)


def wrong_when_idle(queries: Iterable[PanelQuery], ask: Ask) -> Iterator[str]:
    """One line for each query that fails, and for each value that would be a PASS or WARN without traffic."""
    for query, answer in _answered(queries, ask):
        if isinstance(answer, str):
            yield answer
            continue
        for labels, values in answer:
            well = next((value for value in values if query.colour(value) in _WELL), None)
            if well is not None:
                colour = _WELL[query.colour(well)]
                yield f"{query.place}: {_named(labels)} is {well:g}, coloured {colour}, without traffic"
            elif any(math.isnan(value) for value in values):
                yield f"{query.place}: {_named(labels)} is NaN; guard its denominator with `> 0`"


def _answered(queries: Iterable[PanelQuery], ask: Ask) -> Iterator[tuple[PanelQuery, Answer | str]]:
    """Each query with its answer, or with the finding that it has none."""
    for query in queries:
        try:
            yield query, ask(query)
        except QueryRefusedError as error:
            yield query, f"{query.place}: fails: {error}"


def _implausible(query: PanelQuery, answer: Answer) -> Iterator[str]:
    for labels, values in answer:
        # Not "outside", which NaN is not either.
        wrong = next((value for value in values if not query.lowest <= value <= query.highest), None)
        if wrong is not None:
            expected = f"{query.lowest:g} to {query.highest:g} ({query.unit})"
            yield f"{query.place}: {_named(labels)} is {wrong:g}; expected {expected}"


def _named(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "}"
