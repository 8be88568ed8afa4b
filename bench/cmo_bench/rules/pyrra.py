"""The rules that Pyrra emits for an objective, written from what it documents of its version 0.9.

Documented at https://github.com/pyrra-dev/pyrra: the increase over the whole window from the raw counters, in
a group whose interval follows from the window (2m30s for four weeks to five); burn rates from the raw
counters and four alerts of two of them each, every 30 s; and an alert when the counters are absent. The
windows of burn rates are those of 28 days, scaled to the objective's window. The generic rules are off, as
they are unless asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_bench.rules.rule_groups import DAY, HOUR, MINUTE, SECOND, Rule, RuleGroup, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_bench.rules.objective import Events, OtherObjective

INCREASE: Final = "-increase"
"""How the names of groups end that record the increase over the whole window."""

_WINDOW_DAYS: Final = 30
_WINDOW: Final = f"{_WINDOW_DAYS}d"
_INCREASE_INTERVAL: Final = 150 * SECOND
_BURN_RATE_INTERVAL: Final = 30 * SECOND
# Of 28 days: short and long window, and the burn rate that both have to pass.
_BURN_RATES: Final = (
    (5 * MINUTE, HOUR, 14),
    (30 * MINUTE, 6 * HOUR, 7),
    (2 * HOUR, DAY, 2),
    (6 * HOUR, 4 * DAY, 1),
)
_SUFFIXES: Final = ("_total", "_count", "_bucket")


def groups(objectives: Sequence[OtherObjective]) -> tuple[RuleGroup, ...]:
    """All groups for these objectives."""
    return tuple(group for one in objectives for group in _groups(one))


def window_ratio(objective: OtherObjective) -> str:
    """The share of good events over the whole window, as Pyrra shows it from its recorded increases."""
    good, total = objective.good, objective.total
    return f"sum(increase({good}[{_WINDOW}])) / sum(increase({total}[{_WINDOW}]))"


def _groups(objective: OtherObjective) -> Iterator[RuleGroup]:
    yield RuleGroup(f"{objective.name}{INCREASE}", _INCREASE_INTERVAL, tuple(_increases(objective)))
    yield RuleGroup(objective.name, _BURN_RATE_INTERVAL, tuple(_burn_rates(objective)))


def _labels(objective: OtherObjective) -> dict[str, str]:
    fixed = {name: values[0] for name, values in objective.total.labels.items() if len(values) == 1}
    return {**fixed, "slo": objective.name}


def _base(metric: str) -> str:
    for suffix in _SUFFIXES:
        metric = metric.removesuffix(suffix)
    return metric


def _increases(objective: OtherObjective) -> Iterator[Rule]:
    counted = [objective.total] if objective.bad is not None else [objective.total, objective.good]
    for events in counted:
        yield Rule(
            f"sum by ({', '.join(_grouping(objective))}) (increase({events}[{_WINDOW}]))",
            record=f"{_base(events.metric)}:increase{_WINDOW}",
            labels=_labels_of(objective, events),
        )
    for events in counted:
        yield Rule(f"absent({events}) == 1", alert="SLOMetricAbsent", labels=_labels_of(objective, events))


def _labels_of(objective: OtherObjective, events: Events) -> dict[str, str]:
    edge = {"le": events.labels["le"][0]} if "le" in events.labels else {}
    return {**_labels(objective), **edge}


def _grouping(objective: OtherObjective) -> list[str]:
    """What tells bad from good, or has several values, stays apart."""
    return [name for name, values in objective.total.labels.items() if len(values) > 1]


def _burn_rates(objective: OtherObjective) -> Iterator[Rule]:
    labels = _labels(objective)
    pairs = [(_scaled(short), _scaled(long), factor) for short, long, factor in _BURN_RATES]
    for window in sorted({window for short, long, _ in pairs for window in (short, long)}):
        yield Rule(
            _burn_rate(objective, duration(window)),
            record=_burn_rate_name(objective.total, window),
            labels=labels,
        )
    own = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    for short, long, factor in pairs:
        limit = f"({factor} * (1 - {objective.target!r}))"
        yield Rule(
            f"{_burn_rate_name(objective.total, short)}{{{own}}} > {limit} and "
            f"{_burn_rate_name(objective.total, long)}{{{own}}} > {limit}",
            alert="ErrorBudgetBurn",
            labels={**labels, "short": duration(short), "long": duration(long)},
        )


def _burn_rate(objective: OtherObjective, window: str) -> str:
    total = f"sum(rate({objective.total}[{window}]))"
    if objective.bad is None:
        return f"({total} - sum(rate({objective.good}[{window}]))) / {total}"
    return f"sum(rate({objective.bad}[{window}])) / {total}"


def _burn_rate_name(total: Events, window: int) -> str:
    return f"{_base(total.metric)}:burnrate{duration(window)}"


def _scaled(window: int) -> int:
    """A window of 28 days' scheme, for ours, to the whole minute."""
    return round(window * _WINDOW_DAYS / 28 / MINUTE) * MINUTE
