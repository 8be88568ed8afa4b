"""Judge ratios and latencies: good events of total events.

A latency is judged as the share of events within its threshold. Estimated quantiles are shown beside it and
judge nothing.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from cmo_exporter import catalogue

from cmo_slo.comparison import held_against, percent
from cmo_slo.confidence import interval
from cmo_slo.span import UncountableError
from cmo_slo.verdict import Status, Unit, exact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_slo.count import Blocks, ScenarioCount, Tally
    from cmo_slo.indicators import LatencyIndicator, RatioIndicator
    from cmo_slo.model import Objective
    from cmo_slo.verdict import Options

_Events = tuple[list["Tally"], list["Tally"], tuple[str, ...]]


def judge_ratio(
    options: Options,
    objective: Objective,
    indicator: RatioIndicator,
    cancelled_limit: float,
    scope: str,
    counts: Sequence[ScenarioCount],
) -> Unit:
    """Judge good events of total events, pooled over the scenarios of the scope.

    Raises:
        UncountableError: events of a kind that the indicator names are not there.
    """
    return _judged(options, objective, cancelled_limit, scope, counts, *_ratio_events(indicator, counts))


def judge_latency(
    options: Options,
    objective: Objective,
    indicator: LatencyIndicator,
    cancelled_limit: float,
    scope: str,
    counts: Sequence[ScenarioCount],
) -> Unit:
    """Judge events within the threshold of all events, pooled over the scenarios of the scope.

    Raises:
        UncountableError: events of a kind that the indicator names are not there, or contradict each other.
    """
    unit = _judged(options, objective, cancelled_limit, scope, counts, *_latency_events(indicator, counts))
    return replace(unit, details=_latency_details(indicator, counts))


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


def _judged(
    options: Options,
    objective: Objective,
    cancelled_limit: float,
    scope: str,
    counts: Sequence[ScenarioCount],
    goods: Sequence[Tally],
    totals: Sequence[Tally],
    series: tuple[str, ...],
) -> Unit:
    good, total = sum(tally.count for tally in goods), sum(tally.count for tally in totals)
    doubt = _doubt(objective, cancelled_limit, counts, good, total)
    if doubt:
        return Unit(scope, Status.INCONCLUSIVE, doubt, good=int(good), total=int(total), series=series)
    value = Fraction(int(good), int(total))
    around = interval(_blocks(goods), _blocks(totals))
    status, reason = held_against(options, objective, value, percent(value))
    if options.confidence and around.straddles(objective.target):
        status = Status.INCONCLUSIVE
        reason = (
            f"{percent(value)} may be chance: its 95 % interval, {around.low:.2%} to {around.high:.2%}, "
            f"holds the target of {objective.target:.2%} (--confidence)."
        )
    return Unit(scope, status, reason, float(value), int(good), int(total), around, series=series)


def _doubt(
    objective: Objective,
    cancelled_limit: float,
    counts: Sequence[ScenarioCount],
    good: float,
    total: float,
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
    if every <= 0 or Fraction(int(cancelled), int(every)) > exact(cancelled_limit):
        return (
            f"Users left {cancelled:g} of {every:g} questions, more than {cancelled_limit:.1%}: an outage "
            "that drives users away must not pass."
        )
    return None


def _latency_details(indicator: LatencyIndicator, counts: Sequence[ScenarioCount]) -> dict[str, float]:
    """What is shown beside the judged share: the share over successes alone, and a bounded quantile."""
    bucket, events = f"{indicator.metric}_bucket", f"{indicator.metric}_count"
    edge = indicator.threshold_seconds
    good = sum(count.events(bucket, indicator.good, edge).count for count in counts)
    successes = sum(count.events(events, indicator.good).count for count in counts)
    details = {"share_of_successes_within_threshold": good / successes} if successes else {}
    return {**details, **_quantile(indicator, counts)}


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
