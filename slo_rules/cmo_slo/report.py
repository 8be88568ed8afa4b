"""Write a verdict down: as text for people, and as JSON (`cmo.verdict/v1`) for programs.

The text answers, in this order, what somebody woken at night asks: is it compliant, what fails where, why,
what else was seen, and what does all this rest on. The JSON holds every number with its provenance; its
schema is `docs/verdict-schema.json`.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter import catalogue

from cmo_slo.comparison import cut_off
from cmo_slo.confidence import METHOD
from cmo_slo.count import count_run
from cmo_slo.exit_status import status_of_outcome
from cmo_slo.fetch import RUN_SERIES
from cmo_slo.indicators import LatencyIndicator
from cmo_slo.samples import at_clock, own_labels
from cmo_slo.span import DURATION_BUCKET
from cmo_slo.verdict import OVERALL, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cmo_slo.count import ScenarioCount
    from cmo_slo.manifest import Run
    from cmo_slo.model import Objectives
    from cmo_slo.samples import Evidence, LabelKey
    from cmo_slo.verdict import Options, Result, Unit, Verdict

SCHEMA: Final = "cmo.verdict/v1"
WIDTH: Final = 110
_CELL: Final = 13
_TITLE: Final = 23
_COLOURS: Final = {
    "PASS": "32",
    "COMPLIANT": "32;1",
    "WARN": "33",
    "FAIL": "31",
    "NON-COMPLIANT": "31;1",
    "INCONCLUSIVE": "35",
}


@dataclass(frozen=True)
class Report:
    """Everything that is written down of one check."""

    verdict: Verdict
    objectives: Objectives
    objectives_hash: str
    run: Run
    evidence: Evidence
    options: Options
    data_source: str
    tool: str


# --- JSON ---------------------------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """The verdict as a document of the schema ``cmo.verdict/v1``."""
    verdict, run, clock = report.verdict, report.run, report.evidence.clock
    return {
        "schema": SCHEMA,
        "verdict": verdict.outcome.value,
        "exit_status": int(status_of_outcome(verdict.outcome)),
        "reason": verdict.reason,
        "score": float(verdict.score),
        "partial": verdict.partial,
        "tool": report.tool,
        "objectives_file": {
            "name": report.objectives.name,
            "requirement": report.objectives.requirement,
            "hash": report.objectives_hash,
        },
        "options": {"confidence": report.options.confidence, "strict": report.options.strict},
        "run": {"run_id": run.run_id, "start": run.start, "end": run.end},
        "problems": list(verdict.problems),
        "objectives": [_result(report, result) for result in verdict.results],
        "counts": {count.scenario.name: _counts(report, count) for count in verdict.counts},
        "evidence": {
            "data_source": report.data_source,
            "evaluation_time": report.evidence.evaluation_time,
            "clock": {
                "difference_seconds": clock.difference_seconds,
                "uncertainty_seconds": clock.uncertainty_seconds,
            },
            "queries": [
                {
                    "query": reading.query,
                    "evaluation_time": reading.evaluation_time,
                    "series": len(reading.series),
                    "samples": reading.samples,
                }
                for reading in report.evidence.readings
            ],
        },
    }


def _result(report: Report, result: Result) -> dict[str, Any]:
    objective = result.objective
    return {
        "name": objective.name,
        "title": objective.title,
        "status": result.status.value,
        "key": objective.key,
        "weight": objective.weight,
        "operator": objective.operator.value,
        "target": objective.target,
        "unit": objective.unit,
        "units": [_unit(report, unit) for unit in result.units],
    }


def _unit(report: Report, unit: Unit) -> dict[str, Any]:
    around = unit.interval
    scopes = [count for count in report.verdict.counts if unit.scope in (count.scenario.name, OVERALL)]
    return {
        "scope": unit.scope,
        "status": unit.status.value,
        "reason": unit.reason,
        "value": unit.value,
        "good": unit.good,
        "total": unit.total,
        "interval": None
        if around is None
        else {
            "low": around.low,
            "high": around.high,
            "design_effect": around.design_effect,
            "method": METHOD,
        },
        "details": dict(unit.details),
        "provenance": _provenance(report, unit.series, scopes),
    }


def _provenance(report: Report, series: Sequence[str], counts: Iterable[ScenarioCount]) -> dict[str, Any]:
    """What a number was made from: queries, and per target and scenario T0, T1, samples and gaps."""
    return {
        "queries": [
            reading.query for reading in report.evidence.readings if reading.query.partition("{")[0] in series
        ],
        "evaluation_time": report.evidence.evaluation_time,
        "objectives_hash": report.objectives_hash,
        "tool": report.tool,
        "spans": [
            {
                "scenario": count.scenario.name,
                "target": span.target.name,
                "t0": span.base.time if span.base else None,
                "t1": span.last.time,
                "confirmed_at": span.confirmed_at,
                "samples": span.samples,
                "gaps": list(span.gaps),
            }
            for count in counts
            for span in count.spans
        ],
    }


def _counts(report: Report, count: ScenarioCount) -> dict[str, Any]:
    queries = _by(count, catalogue.QUERIES.name, "outcome")
    components: dict[str, dict[str, int]] = {}
    for key, events in _rises(count, catalogue.COMPONENT_CALLS.name):
        components.setdefault(key["component"], {})[key["outcome"]] = events
    tiers: dict[str, dict[str, int]] = {}
    for key, events in _rises(count, catalogue.CACHE_REQUESTS.name):
        tiers.setdefault(key["tier"], {})[key["result"]] = events
    return {
        "exact": bool(count.spans) and not count.problems and not count.restarts,
        "problems": list(count.problems),
        "started": sum(events for _, events in _rises(count, catalogue.QUERIES_STARTED.name)),
        "queries": queries,
        "answers": _by(count, catalogue.ANSWERS.name, "source"),
        "cache_requests": tiers,
        "query_cache_results": _by(count, catalogue.QUERY_CACHE_RESULTS_TOTAL.name, "result"),
        "within_threshold": _within(report, count),
        "component_calls": components,
        "fallbacks": [
            {**key, "count": events} for key, events in _rises(count, catalogue.FALLBACKS.name) if events
        ],
        "provenance": _provenance(report, tuple(count.rises), [count]),
    }


def _rises(count: ScenarioCount, name: str) -> list[tuple[dict[str, str], int]]:
    """What a metric rose by; a series without the labels that the catalogue gives it is left out."""
    labels = own_labels(name) - {"scenario"}
    rises = [(dict(key), round(tally.count)) for key, tally in count.rises.get(name, {}).items()]
    return [(key, events) for key, events in rises if labels <= key.keys()]


def _by(count: ScenarioCount, name: str, label: str) -> dict[str, int]:
    return {key[label]: events for key, events in _rises(count, name)}


def _within(report: Report, count: ScenarioCount) -> dict[str, Any] | None:
    """Questions within the threshold that the objectives name, by outcome, for the query histogram."""
    thresholds = [
        objective.indicator.threshold_seconds
        for objective in report.objectives.objectives
        if isinstance(objective.indicator, LatencyIndicator)
        and objective.indicator.metric == catalogue.QUERY_DURATION.name
    ]
    if not thresholds:
        return None
    edge = repr(float(thresholds[0]))
    rises = _rises(count, DURATION_BUCKET)
    return {
        "threshold_seconds": thresholds[0],
        **{key["outcome"]: events for key, events in rises if key["le"] == edge},
    }


# --- text ---------------------------------------------------------------------------------------------------


def as_text(report: Report, *, colour: bool = False) -> str:
    """The verdict for people, at most 110 columns wide."""
    paint: Callable[[str], str] = _paint if colour else lambda text: text
    parts = [
        _headline(report, paint),
        _table(report, paint),
        _reasons(report, paint),
        _facts(report),
        _basis(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _paint(text: str) -> str:
    """Colour the first status word of a text."""
    word = text.split(" ", 1)[0]
    colour = _COLOURS.get(word)
    return f"\x1b[{colour}m{word}\x1b[0m{text[len(word) :]}" if colour else text


def _headline(report: Report, paint: Callable[[str], str]) -> str:
    verdict, objectives = report.verdict, report.objectives
    lines = [
        paint(
            f"{verdict.outcome.value}  {objectives.requirement} ({objectives.name}), run {report.run.run_id}"
        ),
        *_wrap(verdict.reason),
    ]
    if verdict.partial:
        names = ", ".join(count.scenario.name for count in verdict.counts)
        lines += _wrap(f"Judged on {names} alone: no verdict on {objectives.requirement} as a whole.")
    return "\n".join(lines)


def _table(report: Report, paint: Callable[[str], str]) -> str:
    scopes = list(dict.fromkeys(unit.scope for one in report.verdict.results for unit in one.units))
    scopes = [*(scope for scope in scopes if scope != OVERALL), *(s for s in scopes if s == OVERALL)]
    widths = {scope: max(_CELL, len(scope)) for scope in scopes}
    if _TITLE + sum(widths.values()) + 2 * len(scopes) > WIDTH:
        return _long_table(report, paint)
    rows = [" " * _TITLE + "".join(f"  {scope:<{widths[scope]}}" for scope in scopes).rstrip()]
    for result in report.verdict.results:
        units = {unit.scope: unit for unit in result.units}
        lines = [f"{result.objective.title[:_TITLE]:<{_TITLE}}", f"{f'  {_target(result)}':<{_TITLE}}"]
        if any(unit.interval for unit in result.units):
            lines.append(f"{'  95 % interval':<{_TITLE}}")
        for scope in scopes:
            cells = _cells(result, units.get(scope))
            for index, cell in enumerate(cells[: len(lines)]):
                # Colour after padding: escape sequences have no width.
                padded = f"{cell:<{widths[scope]}}"
                lines[index] += "  " + (padded if index else paint(padded))
        rows += [line.rstrip() for line in lines]
    return "\n".join(rows)


def _cells(result: Result, unit: Unit | None) -> tuple[str, str, str]:
    """Status with value, events, and interval: what stands in a column below each other."""
    if unit is None:
        return "-", "", ""
    around = unit.interval
    between = f"{around.low * 100:.1f}-{around.high * 100:.1f} %" if around else ""
    return _cell(result, unit), _events(unit), between


def _long_table(report: Report, paint: Callable[[str], str]) -> str:
    rows = []
    for result in report.verdict.results:
        rows.append(f"{result.objective.title} {_target(result)}")
        rows += [
            f"  {unit.scope[:60]:<60}  {paint(f'{_cell(result, unit):<20}')}  {_events(unit)}".rstrip()
            for unit in result.units
        ]
    return "\n".join(rows)


def _target(result: Result) -> str:
    return f"{result.objective.operator} {_value(result, result.objective.target)}"


def _cell(result: Result, unit: Unit) -> str:
    if unit.status is Status.INCONCLUSIVE or unit.value is None:
        return unit.status.value
    return f"{unit.status.value} {_value(result, unit.value)}"


def _value(result: Result, value: float) -> str:
    match result.objective.unit:
        case "ratio":
            return f"{cut_off(value * 100, 2)} %"
        case "bytes":
            return f"{cut_off(value / 1e6, 1)} MB"
        case "users":
            return cut_off(value, 2)
        case _:
            return f"{value:g}"


def _events(unit: Unit) -> str:
    if unit.total is not None:
        return f"{unit.good} of {unit.total}"
    return f"of {unit.details['offered']:g} offered" if "offered" in unit.details else ""


def _reasons(report: Report, paint: Callable[[str], str]) -> str:
    """Why each objective that does not pass does not; one entry for all that share a reason."""
    grouped: dict[tuple[Status, str], dict[str, list[str]]] = {}
    every: dict[str, int] = {}
    for status in (Status.FAIL, Status.INCONCLUSIVE, Status.WARN):
        for result in report.verdict.results:
            for unit in result.units:
                if unit.status is status:
                    titles = grouped.setdefault((status, unit.reason), {})
                    titles.setdefault(result.objective.title, []).append(unit.scope)
                    every[result.objective.title] = len(result.units)
    lines = []
    for (status, reason), titles in grouped.items():
        where = "; ".join(
            title if len(scopes) == every[title] else f"{title} ({', '.join(scopes)})"
            for title, scopes in titles.items()
        )
        entry = _wrap(f"{status.value}  {where}: {reason}", hanging="    ")
        lines += [paint(entry[0]), *entry[1:]]
    return "\n".join(["Why", *lines]) if lines else ""


def _facts(report: Report) -> str:
    lines = []
    for count in report.verdict.counts:
        if count.spans:
            lines += _wrap(f"{count.scenario.name}: {'; '.join(_scenario_facts(report, count))}.", "    ")
    lines += [line for unit in _latency_units(report) for line in _wrap(unit, "    ")]
    whole = count_run(report.verdict.counts, RUN_SERIES)
    whole_title = "the scenarios asked for" if report.verdict.partial else "whole run"
    lines += _wrap(f"{whole_title}: {'; '.join(_run_facts(whole))}.", "    ") if whole else []
    return "\n".join(["Beside the verdict (not judged)", *lines]) if lines else ""


def _scenario_facts(report: Report, count: ScenarioCount) -> list[str]:
    counts = _counts(report, count)
    shares = [
        f"{title} {_listed(counts[field])}"
        for title, field in (("outcomes", "queries"), ("answers from", "answers"))
    ]
    for tier, results in counts["cache_requests"].items():
        looked = results.get("hit", 0) + results.get("miss", 0)
        if looked:
            shares.append(f"{tier} {results.get('hit', 0)} hits of {looked}")
    for component, outcomes in counts["component_calls"].items():
        calls = sum(events for outcome, events in outcomes.items() if outcome != "cancelled")
        if calls:
            shares.append(f"{component} {outcomes.get('success', 0)} of {calls} calls succeeded")
    fallbacks = sum(entry["count"] for entry in counts["fallbacks"])
    return [*shares, f"fallbacks {fallbacks}"]


def _listed(events: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in events.items() if number) or "none"


def _latency_units(report: Report) -> list[str]:
    lines = []
    for result in report.verdict.results:
        if not isinstance(result.objective.indicator, LatencyIndicator):
            continue
        for unit in result.units:
            details = unit.details
            share = details.get("share_of_successes_within_threshold")
            estimate = details.get("quantile_estimate")
            if share is not None and estimate is not None:
                edges = f"{details['quantile_at_least']:g} to {details['quantile_at_most']:g} s"
                lines.append(
                    f"{unit.scope}: P{result.objective.indicator.quantile * 100:g} of answers and failures "
                    f"about {estimate:.2f} s ({edges}); of successes alone {share * 100:.2f} % within "
                    f"{result.objective.indicator.threshold_seconds:g} s."
                )
    return lines


def _run_facts(whole: dict[str, dict[LabelKey, float]]) -> list[str]:
    transitions = whole.get(catalogue.BREAKER_TRANSITIONS.name, {})
    opened = sum(rise for key, rise in transitions.items() if ("state", "open") in key)
    refused = sum(whole.get(catalogue.BREAKER_REJECTIONS.name, {}).values())
    retries = sum(whole.get(catalogue.RETRIES.name, {}).values())
    cost = sum(whole.get(catalogue.LLM_COST.name, {}).values())
    return [
        f"breakers opened {opened:g} times and refused {refused:g} calls",
        f"{retries:g} retries",
        f"model calls cost {cost:.4f} USD",
    ]


def _basis(report: Report) -> str:
    lines = []
    for count in report.verdict.counts:
        for span in count.spans:
            since = at_clock(span.base.time) if span.base else "its birth"
            gaps = f", {len(span.gaps)} failed scrapes" if span.gaps else ""
            lines += _wrap(
                f"{count.scenario.name}: {span.target.name}, {span.samples} samples, T0 {since} "
                f"to T1 {at_clock(span.last.time)}{gaps}",
                "    ",
            )
    samples = sum(reading.samples for reading in report.evidence.readings)
    lines += _wrap(
        f"{samples} samples of {len(report.evidence.readings)} queries to {report.data_source}, evaluated at "
        f"{_date(report.evidence.evaluation_time)}; objectives {report.objectives.name} "
        f"{report.objectives_hash}; {report.tool}",
        "    ",
    )
    return "\n".join(["What it rests on", *lines])


def _date(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _wrap(text: str, hanging: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH - 2,
        initial_indent="  " if hanging else "",
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
