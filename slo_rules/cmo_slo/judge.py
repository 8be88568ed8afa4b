"""Judge a run: objectives and exact counts in, a verdict with its reasons out.

Fails closed. An objective passes only when everything that its number rests on is known; whatever is empty,
doubled, contradictory, too little or too late makes it INCONCLUSIVE, and the reason says so in words. Ratios
are compared as fractions of whole numbers: exactly 95 % is not above 95 %.

Pure functions of plain data.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_slo.confidence import Interval, interval
from cmo_slo.count import (
    CLOCK_MARGIN_SECONDS,
    START_TIME_RESOLUTION_SECONDS,
    ScenarioCount,
    UncountableError,
    count_scenario,
    find_restarts,
)
from cmo_slo.levels import held_level, memory_growth
from cmo_slo.model import (
    ContinuityIndicator,
    GrowthIndicator,
    HeldLevelIndicator,
    LatencyIndicator,
    Objective,
    Objectives,
    Operator,
    RatioIndicator,
    Scope,
)
from cmo_slo.samples import at_clock, find_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cmo_slo.count import Blocks, Restart, Tally
    from cmo_slo.manifest import Run, ScenarioRun
    from cmo_slo.samples import Clock, Evidence, Target, Targets

OVERALL: Final = Scope.OVERALL.value
_IN_DATA_CLOCK_SECONDS: Final = 2.0
"""How much later than its manifest a run may begin, or earlier end, in the samples of another host."""

_COMPARE: Final[Mapping[Operator, Callable[[Fraction, Fraction], bool]]] = {
    Operator.ABOVE: operator.gt,
    Operator.AT_LEAST: operator.ge,
    Operator.BELOW: operator.lt,
    Operator.AT_MOST: operator.le,
}
_BROKEN: Final = "Nothing is judged on doubtful data: "


class Status(StrEnum):
    """What is said of one objective."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    WARN = "WARN"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Outcome(StrEnum):
    """What is said of a run."""

    COMPLIANT = "COMPLIANT"
    NON_COMPLIANT = "NON-COMPLIANT"
    INCONCLUSIVE = "INCONCLUSIVE"


_CREDIT: Final = {
    Status.PASS: Fraction(1),
    Status.WARN: Fraction(1, 2),
    Status.FAIL: Fraction(0),
    Status.INCONCLUSIVE: Fraction(0),
}
_WORST_FIRST: Final = (Status.FAIL, Status.INCONCLUSIVE, Status.WARN, Status.PASS)


@dataclass(frozen=True)
class Options:
    """``confidence``: an interval that holds the target is INCONCLUSIVE. ``strict``: a WARN is a FAIL."""

    confidence: bool = False
    strict: bool = False


@dataclass(frozen=True)
class Unit:
    """One objective in one scope: a scenario, or all of them pooled.

    ``value`` is in the objective's unit. ``good`` and ``total`` are events, for ratios. ``details`` are
    further numbers by name, ``series`` the names of the series that the value was made from.
    """

    scope: str
    status: Status
    reason: str
    value: float | None = None
    good: int | None = None
    total: int | None = None
    interval: Interval | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    series: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One objective with its units; its status is that of the worst."""

    objective: Objective
    units: tuple[Unit, ...]

    @property
    def status(self) -> Status:
        """FAIL before INCONCLUSIVE before WARN before PASS."""
        found = {unit.status for unit in self.units}
        return next(status for status in _WORST_FIRST if status in found)


@dataclass(frozen=True)
class Verdict:
    """What is said of a run, and all it rests on.

    ``score`` is the share of the objectives' weight that passes, a WARN counting half. ``partial`` tells that
    only some of the scenarios of the objectives were asked for.
    """

    outcome: Outcome
    reason: str
    score: Fraction
    results: tuple[Result, ...]
    counts: tuple[ScenarioCount, ...]
    problems: tuple[str, ...]
    targets: tuple[Target, ...]
    partial: bool


@dataclass(frozen=True)
class _Case:
    """What the units of one verdict share: why nothing of the run may pass, and what is known of it."""

    objectives: Objectives
    options: Options
    counts: Mapping[str, ScenarioCount]
    problems: tuple[str, ...]
    restarts: tuple[Restart, ...]


def judge(
    objectives: Objectives,
    run: Run,
    evidence: Evidence,
    *,
    scenarios: Sequence[str] = (),
    options: Options | None = None,
) -> Verdict:
    """Judge a run.

    Args:
        objectives: what was promised.
        run: when it ran and what it offered.
        evidence: raw samples of it.
        scenarios: judge only these of the objectives' scenarios; none are all.
        options: how strictly.
    """
    names = tuple(scenarios) or objectives.scenarios
    ran = [one for name in names if (one := run.scenario(name))]
    targets = find_targets(evidence, min((one.start for one in ran), default=run.start))
    series = tuple(dict.fromkeys(one.name for reading in evidence.readings for one in reading.series))
    counts = {one.name: count_scenario(targets.targets, one, series) for one in ran}
    problems = _run_problems(targets, counts, evidence)
    case = _Case(
        objectives=objectives,
        options=options or Options(),
        counts=counts,
        problems=problems,
        restarts=_run_restarts(targets.targets, run, ran, counts),
    )
    results = tuple(_result(case, objective, names) for objective in objectives.objectives)
    outcome, reason = _outcome(results, objectives)
    return Verdict(
        outcome=outcome,
        reason=reason,
        score=_score(results),
        results=results,
        counts=tuple(counts.values()),
        problems=(*problems, *_restart_words(case.restarts)),
        targets=targets.targets,
        partial=set(names) != set(objectives.scenarios),
    )


def _run_problems(
    targets: Targets, counts: Mapping[str, ScenarioCount], evidence: Evidence
) -> tuple[str, ...]:
    problems = list(targets.problems)
    if not targets.targets and not problems:
        selected = next((reading.query for reading in evidence.readings), "up")
        problems.append(
            f"There is not one sample from the time of the run ({selected} is empty up to "
            f"{at_clock(evidence.evaluation_time)}). Was the service scraped by this Prometheus, under this "
            "job (--job, --selector), and are the samples still stored?"
        )
    return (*problems, *_clock_problems(evidence.clock, counts))


def _clock_problems(clock: Clock, counts: Mapping[str, ScenarioCount]) -> list[str]:
    if clock.difference_seconds is not None:
        if abs(clock.difference_seconds) + clock.uncertainty_seconds <= CLOCK_MARGIN_SECONDS:
            return []
        differing = (
            f"The clock of Prometheus differs from this host's by {clock.difference_seconds:+.3f} s, give or "
            f"take {clock.uncertainty_seconds:.3f} s; at most {CLOCK_MARGIN_SECONDS} s can be allowed for. "
            "Synchronise the clocks, and run again."
        )
        return [differing]
    problems = []
    for count in counts.values():
        late, early = _shift_in_data(count)
        if max(late, early) > _IN_DATA_CLOCK_SECONDS:
            problems.append(
                f"In the samples {count.scenario.name} begins {max(late, 0.0):.1f} s late or more, or ends "
                f"at least {max(early, 0.0):.1f} s early against its manifest: the clocks of the load test "
                "and of Prometheus differ. Synchronise them, and run again."
            )
    return problems


def _shift_in_data(count: ScenarioCount) -> tuple[float, float]:
    """At least how much later the first question came, and the last ended, than the manifest says."""
    firsts, lasts = [], []
    for index, span in enumerate(count.spans):
        started = _moves(count, catalogue.QUERIES_STARTED.name, index)
        finished = _moves(count, catalogue.QUERIES.name, index)
        if started and finished:
            before = span.scrapes[started[0] - 1] if started[0] else span.base
            firsts.append(before.time if before else count.scenario.start)
            lasts.append(span.scrapes[finished[-1]].end)
    if not firsts:
        return 0.0, 0.0
    return min(firsts) - count.scenario.start, count.scenario.end - max(lasts)


def _moves(count: ScenarioCount, name: str, span: int) -> list[int]:
    """The scrape intervals of one target in which any series of that name rose."""
    blocks = [tally.blocks[span] for tally in count.rises.get(name, {}).values()]
    return [index for index, values in enumerate(zip(*blocks, strict=True)) if any(values)]


def _run_restarts(
    targets: Sequence[Target],
    run: Run,
    ran: Sequence[ScenarioRun],
    counts: Mapping[str, ScenarioCount],
) -> tuple[Restart, ...]:
    """Every restart inside the run, or inside those scenarios of it that are judged."""
    whole = len(ran) == len(run.scenarios)
    start = run.start if whole or not ran else min(one.start for one in ran)
    end = run.end if whole or not ran else max(one.end for one in ran)
    found = [restart for count in counts.values() for restart in count.restarts]
    for target in targets:
        found += [
            one
            for one in find_restarts(target)
            if start - START_TIME_RESOLUTION_SECONDS < one.at <= end + START_TIME_RESOLUTION_SECONDS
        ]
    return tuple(dict.fromkeys(found))


def _restart_words(restarts: Sequence[Restart]) -> list[str]:
    return [
        f"{one.what} on {one.target} during the run (at {at_clock(one.at)}, seen {at_clock(one.seen)}): what "
        "was counted and not yet scraped is lost, so no count of this run is exact."
        for one in restarts
    ]


def _result(case: _Case, objective: Objective, names: Sequence[str]) -> Result:
    units = []
    if Scope.SCENARIO in objective.judged:
        units += [_unit(case, objective, name, [name]) for name in names]
    if Scope.OVERALL in objective.judged:
        units.append(_unit(case, objective, OVERALL, names))
    return Result(objective, tuple(units))


def _unit(case: _Case, objective: Objective, scope: str, names: Sequence[str]) -> Unit:
    missing = [name for name in names if name not in case.counts]
    if missing:
        return _inconclusive(scope, f"The run does not hold {', '.join(missing)}, which must be judged.")
    counts = [case.counts[name] for name in names]
    if isinstance(objective.indicator, ContinuityIndicator):
        return _continuity(case, objective, objective.indicator, scope, counts[0])
    doubts = [*case.problems, *_restart_words(case.restarts)]
    doubts += [problem for count in counts for problem in count.problems]
    if doubts:
        more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
        return _inconclusive(scope, f"{_BROKEN}{doubts[0]}{more}")
    try:
        return _measured(case, objective, scope, counts)
    except UncountableError as error:
        return _inconclusive(scope, str(error))


def _measured(case: _Case, objective: Objective, scope: str, counts: Sequence[ScenarioCount]) -> Unit:
    match objective.indicator:
        case HeldLevelIndicator() as indicator:
            return _held(case, objective, indicator, counts[0])
        case GrowthIndicator() as indicator:
            return _growth(case, objective, indicator, counts[0])
        case RatioIndicator() as indicator:
            return _ratio(case, objective, scope, counts, *_ratio_events(indicator, counts))
        case LatencyIndicator() as indicator:
            unit = _ratio(case, objective, scope, counts, *_latency_events(indicator, counts))
            return _with_latency_details(unit, indicator, counts)
        case _:
            raise UncountableError(f"Nothing here can measure a {objective.indicator.kind}.")


def _inconclusive(scope: str, reason: str) -> Unit:
    return Unit(scope, Status.INCONCLUSIVE, reason)


def _exact(number: float) -> Fraction:
    """The decimal fraction that was written, and not the binary one that stands for it: 0.95 is 19/20."""
    return Fraction(str(number))


# --- ratios -------------------------------------------------------------------------------------------------


_Events = tuple[list["Tally"], list["Tally"], tuple[str, ...]]


def _ratio_events(indicator: RatioIndicator, counts: Sequence[ScenarioCount]) -> _Events:
    good = [count.events(indicator.good.metric, indicator.good.labels) for count in counts]
    total = [count.events(indicator.total.metric, indicator.total.labels) for count in counts]
    return good, total, (indicator.good.metric,)


def _latency_events(indicator: LatencyIndicator, counts: Sequence[ScenarioCount]) -> _Events:
    bucket, events = f"{indicator.metric}_bucket", f"{indicator.metric}_count"
    edge = indicator.threshold_seconds
    good = [count.events(bucket, indicator.good, edge) for count in counts]
    total = [count.events(events, indicator.total) for count in counts]
    _require_part(good, [count.events(events, indicator.good) for count in counts], bucket)
    if indicator.excluded_within_threshold:
        left = [count.events(bucket, indicator.excluded_within_threshold, edge) for count in counts]
        all_of_them = [count.events(events, indicator.excluded_within_threshold) for count in counts]
        _require_part(left, all_of_them, bucket)
        total = [every - early for every, early in zip(total, left, strict=True)]
    return good, total, (bucket, events)


def _require_part(within: Sequence[Tally], every: Sequence[Tally], name: str) -> None:
    """Refuse a bucket that holds more events than there were: other outcomes would hide it in the total."""
    for part, whole in zip(within, every, strict=True):
        if part.count > whole.count:
            raise UncountableError(
                f"{name} counts {part.count:g} events within the threshold, of {whole.count:g} in all: one "
                "of the two is counted wrongly."
            )


def _blocks(tallies: Sequence[Tally]) -> Blocks:
    return tuple(block for tally in tallies for block in tally.blocks)


def _ratio(
    case: _Case,
    objective: Objective,
    scope: str,
    counts: Sequence[ScenarioCount],
    goods: Sequence[Tally],
    totals: Sequence[Tally],
    series: tuple[str, ...],
) -> Unit:
    good, total = sum(tally.count for tally in goods), sum(tally.count for tally in totals)
    doubt = _doubt_about_ratio(case, objective, counts, good, total)
    if doubt:
        return Unit(scope, Status.INCONCLUSIVE, doubt, good=int(good), total=int(total), series=series)
    value = Fraction(int(good), int(total))
    around = interval(_blocks(goods), _blocks(totals))
    status, reason = _held_against(case.options, objective, value, _percent(value))
    if case.options.confidence and around.straddles(objective.target):
        status = Status.INCONCLUSIVE
        reason = (
            f"{_percent(value)} may be chance: its 95 % interval, {around.low:.2%} to {around.high:.2%}, "
            f"holds the target of {objective.target:.2%} (--confidence)."
        )
    return Unit(scope, status, reason, float(value), int(good), int(total), around, series=series)


def _doubt_about_ratio(
    case: _Case, objective: Objective, counts: Sequence[ScenarioCount], good: float, total: float
) -> str | None:
    if good != int(good) or total != int(total) or min(good, total) < 0:
        return f"{good:g} of {total:g} are no numbers of events."
    if good > total:
        return f"{good:g} good events of {total:g} in all: one of the two is counted wrongly."
    if total < max(objective.minimum_events, 1):
        return f"{total:g} events are too few: at least {max(objective.minimum_events, 1)} are needed."
    cancelled = sum(
        count.events(catalogue.QUERIES.name, {"outcome": ("cancelled",)}).count for count in counts
    )
    every = sum(count.events(catalogue.QUERIES.name, {}).count for count in counts)
    limit = case.objectives.cancelled_limit
    if every <= 0 or Fraction(int(cancelled), int(every)) > _exact(limit):
        return (
            f"Users left {cancelled:g} of {every:g} questions, more than {limit:.1%}: an outage that drives "
            "users away must not pass."
        )
    return None


def _percent(value: Fraction) -> str:
    """A ratio in per cent, cut off and not rounded, so that it never shows as a target that it misses."""
    hundredths = value * 10_000
    return f"{int(hundredths) // 100}.{int(hundredths) % 100:02d} %"


def _held_against(options: Options, objective: Objective, value: Fraction, shown: str) -> tuple[Status, str]:
    target, band = _exact(objective.target), _exact(objective.warning_band)
    wanted = f"{objective.operator} {_amount(objective, target)}"
    if not _COMPARE[objective.operator](value, target):
        return Status.FAIL, f"{shown} is not {wanted}."
    if abs(value - target) >= band:
        return Status.PASS, f"{shown} is {wanted}."
    near = f"{shown} is {wanted}, but within {_amount(objective, band)} of it"
    if options.strict:
        return Status.FAIL, f"{near}, which --strict does not allow."
    return Status.WARN, f"{near}."


def _amount(objective: Objective, value: Fraction) -> str:
    match objective.unit:
        case "ratio":
            return f"{float(value * 100):g} %"
        case "bytes":
            return f"{float(value / 10**6):g} MB"
        case _:
            return f"{float(value):g} {objective.unit}"


def _with_latency_details(unit: Unit, indicator: LatencyIndicator, counts: Sequence[ScenarioCount]) -> Unit:
    """Add what is shown beside the judged share: the share over successes alone, and a bounded quantile."""
    bucket, events = f"{indicator.metric}_bucket", f"{indicator.metric}_count"
    edge = indicator.threshold_seconds
    good = sum(count.events(bucket, indicator.good, edge).count for count in counts)
    successes = sum(count.events(events, indicator.good).count for count in counts)
    details = {"share_of_successes_within_threshold": good / successes} if successes else {}
    details.update(_quantile(indicator, counts))
    return Unit(
        unit.scope,
        unit.status,
        unit.reason,
        unit.value,
        unit.good,
        unit.total,
        unit.interval,
        details,
        unit.series,
    )


def _quantile(indicator: LatencyIndicator, counts: Sequence[ScenarioCount]) -> dict[str, float]:
    """The estimated quantile over all answers and failures, with the bucket edges that bound it; in seconds.

    Linear within its bucket, as ``histogram_quantile`` has it. For people to look at: it judges nothing.
    """
    left = indicator.excluded_within_threshold
    stayed = {
        label: [value for value in values if value not in left.get(label, ())]
        for label, values in indicator.total.items()
    }
    edges = catalogue.BY_NAME[indicator.metric].buckets
    bucket = f"{indicator.metric}_bucket"
    below = [sum(count.events(bucket, stayed, edge).count for count in counts) for edge in edges]
    every = sum(count.events(f"{indicator.metric}_count", stayed).count for count in counts)
    rank = indicator.quantile * every
    lower, seen = 0.0, 0.0
    for edge, cumulative in zip(edges, below, strict=True):
        if cumulative >= rank > 0:
            within = (rank - seen) / (cumulative - seen) if cumulative > seen else 0.0
            estimate = lower + (edge - lower) * within
            return {"quantile_estimate": estimate, "quantile_at_least": lower, "quantile_at_most": edge}
        lower, seen = edge, cumulative
    return {"quantile_at_least": lower} if every else {}


# --- levels -------------------------------------------------------------------------------------------------


def _held(case: _Case, objective: Objective, indicator: HeldLevelIndicator, count: ScenarioCount) -> Unit:
    scope, scenario = count.scenario.name, count.scenario
    held = held_level(count, indicator)
    needed = _exact(objective.target) * (1 - _exact(indicator.tolerance))
    compare = _COMPARE[objective.operator]
    details = {
        "lowest": held.at_least,
        "lowest_at_most": held.at_most,
        "highest": held.highest,
        "intervals": float(held.intervals),
        "offered": float(scenario.users),
    }
    value, series = held.at_least, (indicator.integral, indicator.clock)
    shown = f"{value:.2f} users in the lowest of {held.intervals} intervals"
    if scenario.users < objective.target:
        status = Status.INCONCLUSIVE
        reason = f"Only {scenario.users} users were offered, of {objective.target:g} that are to be held."
    elif not compare(Fraction(held.at_most), needed):
        status = Status.FAIL
        wanted = f"{objective.operator} {float(needed):g}"
        reason = f"{scenario.users} users were offered, but {shown} is not {wanted}."
        value = held.at_most
    elif held.highest > scenario.users * (1 + indicator.tolerance):
        status = Status.INCONCLUSIVE
        reason = (
            f"{held.highest:.2f} users were counted and {scenario.users} offered: sessions of an earlier run "
            "are still open, or one user is counted on several instances."
        )
    elif not compare(Fraction(held.at_least), needed):
        status = Status.INCONCLUSIVE
        reason = (
            f"From {held.at_least:.2f} to {held.at_most:.2f} users were held: a user may be counted on "
            f"several instances, so whether {objective.target:g} were there is not known."
        )
    else:
        status, reason = _warned(case.options, objective, Fraction(held.at_least), shown)
    return Unit(scope, status, reason, value, details=details, series=series)


def _warned(options: Options, objective: Objective, value: Fraction, shown: str) -> tuple[Status, str]:
    """PASS or WARN of a level that is held within its tolerance."""
    wanted = f"{objective.operator} {_amount(objective, _exact(objective.target))}"
    if value >= _exact(objective.target) + _exact(objective.warning_band) or not objective.warning_band:
        return Status.PASS, f"{shown}, wanted {wanted}."
    status = Status.FAIL if options.strict else Status.WARN
    return status, f"{shown}, wanted {wanted}, and near it{' (--strict)' if options.strict else ''}."


def _growth(case: _Case, objective: Objective, indicator: GrowthIndicator, count: ScenarioCount) -> Unit:
    growths = memory_growth(count, indicator)
    worst = growths[0]
    details = {
        f"{growth.target} worker {worker} grew": growth.peak[worker] - growth.base[worker]
        for growth in growths
        for worker in growth.base
    }
    shown = f"{worst.bytes / 1e6:.1f} MB on {worst.target}"
    status, reason = _held_against(case.options, objective, Fraction(worst.bytes), shown)
    series = (indicator.peak.metric, indicator.base.metric)
    return Unit(count.scenario.name, status, reason, worst.bytes, details=details, series=series)


def _continuity(
    case: _Case, objective: Objective, indicator: ContinuityIndicator, scope: str, count: ScenarioCount
) -> Unit:
    series = (indicator.start_time, indicator.successes.metric)
    restarts = [one for one in case.restarts if one in count.restarts or _belongs(case, one, count)]
    if restarts:
        reason = " ".join(f"{one.what} on {one.target} at {at_clock(one.at)}." for one in restarts)
        return Unit(scope, Status.FAIL, reason, float(len(restarts)), series=series)
    doubts = [*case.problems, *count.problems]
    if case.restarts and not count.spans:
        doubts += _restart_words(case.restarts)
    blind = [span.target.name for span in count.spans if not span.target.series.get(indicator.start_time)]
    if blind:
        doubts.append(f"{', '.join(blind)} tells no {indicator.start_time}: a restart could go unseen.")
    if doubts:
        return _inconclusive(scope, f"{_BROKEN}{doubts[0]}")
    try:
        successes = count.events(indicator.successes.metric, indicator.successes.labels).count
    except UncountableError as error:
        return _inconclusive(scope, str(error))
    failures = 0 if successes > 0 else 1
    what = "No restart" if successes > 0 else "Not one question was answered"
    holds = _COMPARE[objective.operator](Fraction(failures), _exact(objective.target))
    status = Status.PASS if holds else Status.FAIL
    reason = f"{what}; {successes:g} questions got a real answer."
    return Unit(scope, status, reason, float(failures), series=series)


def _belongs(case: _Case, restart: Restart, count: ScenarioCount) -> bool:
    """Whether this is the last scenario that had begun when the process started anew."""
    begun = [
        one.scenario
        for one in case.counts.values()
        if one.scenario.start - START_TIME_RESOLUTION_SECONDS < restart.at
    ]
    latest = max(begun, key=lambda scenario: scenario.start, default=None)
    return latest is not None and latest.name == count.scenario.name


# --- the run ------------------------------------------------------------------------------------------------


def _score(results: Sequence[Result], unknown: Fraction = Fraction(0)) -> Fraction:
    """The share of the weight that passes; ``unknown`` is what an INCONCLUSIVE objective counts."""
    credit = {**_CREDIT, Status.INCONCLUSIVE: unknown}
    weights = [_exact(result.objective.weight) for result in results]
    gained = sum(weight * credit[one.status] for weight, one in zip(weights, results, strict=True))
    return Fraction(gained) / sum(weights)


def _outcome(results: Sequence[Result], objectives: Objectives) -> tuple[Outcome, str]:
    """The verdict by precedence: key failures, then key doubts, then the score."""
    failed = [one.objective.title for one in results if one.objective.key and one.status is Status.FAIL]
    doubtful = [
        one.objective.title for one in results if one.objective.key and one.status is Status.INCONCLUSIVE
    ]
    if failed:
        return Outcome.NON_COMPLIANT, f"Failed: {', '.join(failed)}."
    if doubtful:
        return Outcome.INCONCLUSIVE, f"Could not be judged: {', '.join(doubtful)}."
    needed = _exact(objectives.compliant_score)
    score, at_best = _score(results), _score(results, Fraction(1))
    shown = f"score {float(score):.2f} of {objectives.compliant_score:g} needed"
    if score >= needed:
        return Outcome.COMPLIANT, f"Every key objective holds; {shown}."
    if at_best >= needed:
        return Outcome.INCONCLUSIVE, f"Too much could not be judged: {shown}."
    return Outcome.NON_COMPLIANT, f"Too little passes without a warning: {shown}."
