"""The rules that Sloth emits for an objective, written from what it documents of its version 0.12.

Documented at https://sloth.dev and shown by the generated examples of its repository: the error ratio of
seven windows from the raw counters, that of the 30 days as the mean of the recorded 5-minute ratios,
metadata, and a page and a ticket of two burn rates each. No group has an interval, so Prometheus evaluates
all at its global one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_bench.rules.rule_groups import Rule, RuleGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_bench.rules.objective import OtherObjective

_SERVICE: Final = "cmo"
_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
_PERIOD: Final = "30d"
_ERROR_RATIO: Final = "slo:sli_error:ratio_rate"
# Severity, and two pairs of windows with the burn rate that both have to pass.
_ALERTS: Final = (
    ("page", (("5m", "1h", 14.4), ("30m", "6h", 6.0))),
    ("ticket", (("2h", "1d", 3.0), ("6h", "3d", 1.0))),
)


def groups(objectives: Sequence[OtherObjective], interval_milliseconds: int) -> tuple[RuleGroup, ...]:
    """All groups for these objectives, evaluated at Prometheus' global interval."""
    return tuple(group for one in objectives for group in _groups(one, interval_milliseconds))


def period_error_ratio(objective: OtherObjective) -> str:
    """What Sloth calls the error ratio of 30 days: the mean of the recorded 5-minute ratios."""
    recorded = f"{_ERROR_RATIO}5m{{{_own(objective)}}}[{_PERIOD}]"
    return f"sum_over_time({recorded}) / ignoring (sloth_window) count_over_time({recorded})"


def period_error_ratio_of_busy_times(objective: OtherObjective) -> str:
    """The same, had nothing been recorded where nobody asked."""
    return f"avg_over_time(({_ERROR_RATIO}5m{{{_own(objective)}}} >= 0)[{_PERIOD}:15s])"


def _groups(objective: OtherObjective, interval: int) -> Iterator[RuleGroup]:
    end = f"{_SERVICE}-{objective.name}"
    yield RuleGroup(f"sloth-slo-sli-recordings-{end}", interval, tuple(_ratios(objective)))
    yield RuleGroup(f"sloth-slo-meta-recordings-{end}", interval, tuple(_metadata(objective)))
    yield RuleGroup(f"sloth-slo-alerts-{end}", interval, tuple(_alerts(objective)))


def _labels(objective: OtherObjective) -> dict[str, str]:
    return {
        "sloth_id": f"{_SERVICE}-{objective.name}",
        "sloth_service": _SERVICE,
        "sloth_slo": objective.name,
    }


def _own(objective: OtherObjective) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in _labels(objective).items())


def _ratios(objective: OtherObjective) -> Iterator[Rule]:
    for window in _WINDOWS:
        total = f"sum(rate({objective.total}[{window}]))"
        bad = (
            f"{total} - sum(rate({objective.good}[{window}]))"
            if objective.bad is None
            else f"sum(rate({objective.bad}[{window}]))"
        )
        yield Rule(
            f"({bad}) / ({total})",
            record=f"{_ERROR_RATIO}{window}",
            labels={**_labels(objective), "sloth_window": window},
        )
    yield Rule(
        period_error_ratio(objective),
        record=f"{_ERROR_RATIO}{_PERIOD}",
        labels={**_labels(objective), "sloth_window": _PERIOD},
    )


def _metadata(objective: OtherObjective) -> Iterator[Rule]:
    own, labels = _own(objective), _labels(objective)
    budget = f"on (sloth_id, sloth_slo, sloth_service) group_left () slo:error_budget:ratio{{{own}}}"
    recorded = {
        "slo:objective:ratio": f"vector({objective.target!r})",
        "slo:error_budget:ratio": f"vector(1 - {objective.target!r})",
        "slo:time_period:days": "vector(30)",
        "slo:current_burn_rate:ratio": f"{_ERROR_RATIO}5m{{{own}}} / {budget}",
        "slo:period_burn_rate:ratio": f"{_ERROR_RATIO}{_PERIOD}{{{own}}} / {budget}",
        "slo:period_error_budget_remaining:ratio": f"1 - slo:period_burn_rate:ratio{{{own}}}",
        "sloth_slo_info": "vector(1)",
    }
    for record, expression in recorded.items():
        yield Rule(expression, record=record, labels=labels)


def _alerts(objective: OtherObjective) -> Iterator[Rule]:
    own = _own(objective)
    budget = round(1 - objective.target, 12)
    for severity, pairs in _ALERTS:
        burns = [
            f"(({_ERROR_RATIO}{short}{{{own}}} > ({factor:g} * {budget!r})) and ignoring (sloth_window) "
            f"({_ERROR_RATIO}{long}{{{own}}} > ({factor:g} * {budget!r})))"
            for short, long, factor in pairs
        ]
        yield Rule(
            " or ignoring (sloth_window) ".join(burns),
            alert=f"{objective.name}_budget",
            labels={"sloth_severity": severity},
        )
