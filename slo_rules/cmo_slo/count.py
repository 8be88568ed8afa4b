"""Count what happened in one scenario of a run, exactly, from raw samples.

Per target, a count is the rise from T0 to T1 (`cmo_slo.span`), added up from sample to sample. (`increase()`,
and reading counters at the wall-clock times of start and end, gave wrong verdicts in experiments; this did
not.) Whatever could make a count wrong becomes a problem in words, and a count with a problem is never
judged.

Pure functions of plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final, TypeAlias

from cmo_exporter import catalogue

from cmo_slo.samples import LARGEST_EXACT, own_labels
from cmo_slo.span import (
    BACKGROUND_SERIES,
    DURATION_COUNT,
    QUERY_SERIES,
    Restart,
    Span,
    UncountableError,
    fall,
    find_restarts,
    find_span,
    is_inside,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cmo_slo.manifest import ScenarioRun
    from cmo_slo.samples import LabelKey, Scrape, Series, Target

_CACHE_RESULTS: Final = catalogue.QUERY_CACHE_RESULTS_TOTAL

Blocks: TypeAlias = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Tally:
    """A number of events, and its parts by target and scrape interval."""

    blocks: Blocks

    @property
    def count(self) -> float:
        """How many in all."""
        return sum(sum(block) for block in self.blocks)

    def __add__(self, other: Tally) -> Tally:
        """Add interval by interval; both tallies have the same intervals."""
        return Tally(_zip_with(self.blocks, other.blocks, 1.0))

    def __sub__(self, other: Tally) -> Tally:
        """Subtract interval by interval; both tallies have the same intervals."""
        return Tally(_zip_with(self.blocks, other.blocks, -1.0))


def _zip_with(left: Blocks, right: Blocks, sign: float) -> Blocks:
    return tuple(
        tuple(a + sign * b for a, b in zip(mine, theirs, strict=True))
        for mine, theirs in zip(left, right, strict=True)
    )


@dataclass(frozen=True)
class ScenarioCount:
    """Every rise of one scenario, by series name and own labels but the scenario; and what is wrong.

    With a problem the rises must not be judged.
    """

    scenario: ScenarioRun
    spans: tuple[Span, ...]
    rises: Mapping[str, Mapping[LabelKey, Tally]]
    restarts: tuple[Restart, ...]
    problems: tuple[str, ...]

    def events(self, name: str, labels: Mapping[str, Sequence[str]], edge: float | None = None) -> Tally:
        """The events of one series name whose labels have any of the given values.

        Args:
            name: series name, with ``_bucket`` or ``_count`` for a histogram.
            labels: allowed values by label name; a label that is not named may have any value.
            edge: upper edge of the bucket, in seconds, for a ``_bucket``.

        Raises:
            UncountableError: a series that the exporter must expose from the start is not there.
        """
        wanted = {key: set(values) for key, values in labels.items()}
        if edge is not None:
            wanted["le"] = {repr(float(edge))}
        found = {
            key: tally
            for key, tally in self.rises.get(name, {}).items()
            if all(dict(key).get(label) in values for label, values in wanted.items())
        }
        self._require_all(name, labels, edge, found)
        return add_up(found.values(), self.spans)

    def _require_all(
        self,
        name: str,
        labels: Mapping[str, Sequence[str]],
        edge: float | None,
        found: Mapping[LabelKey, Tally],
    ) -> None:
        for combination in _combinations(name, labels):
            if any(set(combination) <= set(key) for key in found):
                continue
            extra = () if edge is None else (("le", f"{edge:.1f}"),)
            shown = ",".join(f'{label}="{value}"' for label, value in (*combination, *extra))
            raise UncountableError(
                f'There is no series {name}{{scenario="{self.scenario.name}"{"," if shown else ""}{shown}}}: '
                "whether nothing happened or nothing was recorded is not known. The exporter exposes every "
                "label set at 0 from its start."
            )


def _combinations(name: str, labels: Mapping[str, Sequence[str]]) -> list[tuple[tuple[str, str], ...]]:
    """Every combination of the closed label values that a selection must find in the data."""
    metric = catalogue.BY_NAME.get(name) or catalogue.BY_NAME[name.rsplit("_", 1)[0]]
    choices = [
        [(label, value) for value in labels.get(label, allowed)]
        for label, allowed in metric.labels.items()
        if allowed is not None
    ]
    return list(product(*choices))


def add_up(tallies: Iterable[Tally], spans: Sequence[Span]) -> Tally:
    """The sum of tallies over the same spans; zeros when there are none."""
    total = Tally(tuple((0.0,) * len(span.scrapes) for span in spans))
    for tally in tallies:
        total += tally
    return total


def count_run(counts: Sequence[ScenarioCount], names: Sequence[str]) -> dict[str, dict[LabelKey, float]]:
    """What counters without a scenario rose by, from the first T0 to the last T1 of each target.

    For reports, not for judging: what cannot be counted is left out.
    """
    found: dict[str, dict[LabelKey, float]] = {}
    by_target: dict[str, list[Span]] = {}
    for span in sorted((span for count in counts for span in count.spans), key=_begin):
        by_target.setdefault(span.target.name, []).append(span)
    for spans in by_target.values():
        target, base, last = spans[0].target, spans[0].base, max(span.last.time for span in spans)
        first = _begin(spans[0])
        scrapes = tuple(scrape for scrape in target.scrapes if first < scrape.time <= last)
        fresh = frozenset[float]().union(*(span.fresh for span in spans))
        whole = Span(target, base, scrapes, fresh, last)
        for name in names:
            for key, series in target.series.get(name, {}).items():
                rises, _, _ = _rises(series, whole)
                by_key = found.setdefault(name, {})
                by_key[key] = by_key.get(key, 0.0) + sum(rises)
    return found


def _begin(span: Span) -> float:
    return span.base.time if span.base else float("-inf")


def count_scenario(
    targets: Sequence[Target], scenario: ScenarioRun, indicators: Sequence[str] = ()
) -> ScenarioCount:
    """Count one scenario over all targets; ``indicators`` are series names beside those always counted."""
    problems: list[str] = []
    restarts: list[Restart] = []
    spans = []
    for target in targets:
        known = find_restarts(target)
        try:
            span = find_span(target, scenario, known)
        except UncountableError as error:
            problems.append(str(error))
            restarts += [one for one in known if is_inside(one, scenario) and one.at <= scenario.end]
            continue
        spans.append(span)
        restarts += [one for one in known if one.seen in span.fresh and is_inside(one, scenario)]
    names = [*QUERY_SERIES, *BACKGROUND_SERIES]
    names += [name for name in indicators if name not in names and _is_count(name)]
    rises = _all_rises(names, spans, scenario, problems, restarts)
    count = ScenarioCount(scenario, tuple(spans), rises, tuple(dict.fromkeys(restarts)), ())
    if not problems:
        problems += _contradictions(count)
    return ScenarioCount(count.scenario, count.spans, count.rises, count.restarts, tuple(problems))


def _is_count(name: str) -> bool:
    """Whether a series counts the events of a scenario; an integral of seconds is no count."""
    is_counter = name.endswith(("_bucket", "_count", "_total"))
    return is_counter and not name.endswith("_seconds_total") and "scenario" in own_labels(name)


def _all_rises(
    names: Sequence[str],
    spans: Sequence[Span],
    scenario: ScenarioRun,
    problems: list[str],
    restarts: list[Restart],
) -> dict[str, dict[LabelKey, Tally]]:
    rises: dict[str, dict[LabelKey, Tally]] = {}
    for name in names:
        by_span = [
            {
                _without_scenario(key): one
                for key, one in span.target.select(name, scenario=scenario.name).items()
            }
            for span in spans
        ]
        for key in sorted({key for found in by_span for key in found}):
            blocks = []
            for span, found in zip(spans, by_span, strict=True):
                block, flaws, resets = _rises(found.get(key), span)
                problems += [flaw for flaw in flaws if flaw not in problems]
                restarts += [one for one in resets if one not in restarts]
                blocks.append(block)
            rises.setdefault(name, {})[key] = Tally(tuple(blocks))
    return rises


def _without_scenario(key: LabelKey) -> LabelKey:
    return tuple((label, value) for label, value in key if label != "scenario")


def _rises(series: Series | None, span: Span) -> tuple[tuple[float, ...], list[str], list[Restart]]:
    """What one series rose by in each scrape interval, its flaws, and its resets without a restart."""
    if series is None:
        return (0.0,) * len(span.scrapes), [], []
    flaws: list[str] = []
    resets: list[Restart] = []
    if any(not 0 <= value <= LARGEST_EXACT for value in series.points.values()):
        flaws.append(f"{series.name} of {span.target.name} is below 0 or above 2^53 in some scrapes.")
    previous = _value_at_base(series, span, flaws)
    rises = []
    for scrape in span.scrapes:
        if scrape.time in span.fresh:
            previous = None
        value = _value(series, scrape)
        if value is None:
            if previous is not None or scrape.time in series.broken:
                flaws.append(f"{series.name} of {span.target.name} is missing or no number in some scrapes.")
            rises.append(0.0)
            continue
        if previous is not None and value < previous:
            resets.append(fall(span.target, series, previous, value, scrape.time))
            previous = None
        rises.append(value - (previous or 0.0))
        previous = value
    if previous is None:
        flaws.append(f"{series.name} of {span.target.name} is not there at the end.")
    if any(value % 1 != 0 for value in series.points.values()):
        flaws.append(f"{series.name} of {span.target.name} counts events but is no whole number.")
    return tuple(rises), list(dict.fromkeys(flaws)), resets


def _value(series: Series, scrape: Scrape) -> float | None:
    """What a counter stood at; ``None`` where it has no sample, or one that no counter can have."""
    value = series.points.get(scrape.time)
    return value if value is not None and 0 <= value <= LARGEST_EXACT else None


def _value_at_base(series: Series, span: Span, flaws: list[str]) -> float | None:
    """The value at T0; ``None`` for a series that was born later, which began at 0."""
    if span.base is None:
        return None
    value = _value(series, span.base)
    lost = value is None and any(
        time <= span.base.time for times in (series.points, series.broken) for time in times
    )
    if lost:
        flaws.append(
            f"{series.name} of {span.target.name} was there before the last scrape before the start, but not "
            "in it: where it began is not known."
        )
    return value


def _contradictions(count: ScenarioCount) -> list[str]:
    """Hold the counts against each other and against what was offered: they cannot all be right, or can."""
    if count.restarts:
        return []
    total = {name: _total(count, name) for name in (catalogue.QUERIES_STARTED.name, catalogue.QUERIES.name)}
    started, finished = total.values()
    offered = count.scenario.operations
    problems = []
    if started != finished:
        problems.append(f"{started:g} questions began but {finished:g} finished: some are not accounted for.")
    if finished < offered:
        problems.append(
            f"{offered} operations were offered but {finished:g} were counted: the others did not reach the "
            "service, or went to an instance that is not scraped."
        )
    if finished > offered:
        problems.append(
            f"{offered} operations were offered but {finished:g} were counted: someone else used the "
            f"scenario {count.scenario.name}, or an instance is counted twice."
        )
    return problems + _disagreements(count)


def _total(count: ScenarioCount, name: str) -> float:
    return add_up(count.rises.get(name, {}).values(), count.spans).count


def _disagreements(count: ScenarioCount) -> list[str]:
    """Notice outcomes and cache results beyond their closed lists, and what does not hold every question."""
    groups = {
        "success": ("success",),
        "failure": ("error", "timeout", "rejected"),
        "cancelled": ("cancelled",),
    }
    try:
        by_counter = {
            group: count.events(catalogue.QUERIES.name, {"outcome": outcomes}).count
            for group, outcomes in groups.items()
        }
        by_histogram = {group: count.events(DURATION_COUNT, {"outcome": (group,)}).count for group in groups}
        cached = (
            count.events(_CACHE_RESULTS.name, {"result": catalogue.QUERY_CACHE_RESULTS}).count
            if _CACHE_RESULTS.name in count.rises
            else None
        )
    except UncountableError as error:
        return [str(error)]
    problems = []
    finished = _total(count, catalogue.QUERIES.name)
    if sum(by_counter.values()) != finished:
        problems.append("Some questions finished with an outcome that is in no list.")
    if cached is not None and cached != finished:
        problems.append(
            f"{finished:g} questions finished, and {_CACHE_RESULTS.name} counts {cached:g} that were "
            f"{', '.join(catalogue.QUERY_CACHE_RESULTS)}: each of them is one or another."
        )
    problems += [
        f"{catalogue.QUERIES.name} counts {by_counter[group]:g} of {group}, {catalogue.QUERY_DURATION.name} "
        f"{by_histogram[group]:g}: one of them is wrong."
        for group in groups
        if by_counter[group] != by_histogram[group]
    ]
    return problems
