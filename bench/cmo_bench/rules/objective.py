"""Objectives as other tools are told them: which events are bad, of which in all, and how many may be.

The other tools know neither scenarios nor what is left out of a total, so they are told what comes closest
and costs them least: live queries alone, and no cancelled ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo.indicators import LatencyIndicator, RatioIndicator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cmo_slo.model import Objective, Objectives

Labels = dict[str, tuple[str, ...]]
_LIVE: Final[Labels] = {"scenario": (catalogue.LIVE,)}


@dataclass(frozen=True)
class Events:
    """Events of one counter: those whose labels have any of the given values."""

    metric: str
    labels: Mapping[str, tuple[str, ...]]

    @property
    def matchers(self) -> str:
        """The labels as PromQL matches them."""
        return ",".join(
            f'{name}="{values[0]}"' if len(values) == 1 else f'{name}=~"{"|".join(values)}"'
            for name, values in self.labels.items()
        )

    def __str__(self) -> str:
        return f"{self.metric}{{{self.matchers}}}"


@dataclass(frozen=True)
class OtherObjective:
    """One objective, as other tools are told it.

    Attributes:
        name: its name.
        target: the share of events that has to be good.
        total: all events.
        bad: bad events, where they are a counter; else ``None``, and bad is what is not good.
        good: good events.
    """

    name: str
    target: float
    total: Events
    bad: Events | None
    good: Events


def other_objectives(objectives: Objectives) -> tuple[OtherObjective, ...]:
    """Every objective that is a share of events; of several that differ by their target alone, the first."""
    told: dict[tuple[str, str], OtherObjective] = {}
    for one in _told(objectives.objectives):
        told.setdefault((str(one.good), str(one.total)), one)
    return tuple(told.values())


def _told(objectives: Sequence[Objective]) -> Iterator[OtherObjective]:
    for objective in objectives:
        indicator = objective.indicator
        if isinstance(indicator, RatioIndicator):
            total = Events(indicator.total.metric, {**_LIVE, **indicator.total.labels})
            good = Events(indicator.good.metric, {**_LIVE, **indicator.good.labels})
            yield OtherObjective(objective.name, objective.target, total, _difference(total, good), good)
        elif isinstance(indicator, LatencyIndicator):
            excluded = indicator.excluded_within_threshold
            judged = {
                label: tuple(value for value in values if value not in excluded.get(label, ()))
                for label, values in indicator.total.items()
            }
            total = Events(f"{indicator.metric}_count", {**_LIVE, **judged})
            edge = {"le": (repr(float(indicator.threshold_seconds)),)}
            good = Events(f"{indicator.metric}_bucket", {**_LIVE, **indicator.good, **edge})
            yield OtherObjective(objective.name, objective.target, total, None, good)


def _difference(total: Events, good: Events) -> Events | None:
    """What of the total is not good, where one label tells them apart."""
    apart = [name for name in total.labels if total.labels[name] != good.labels.get(name)]
    if len(apart) != 1 or total.metric != good.metric:
        return None
    rest = tuple(value for value in total.labels[apart[0]] if value not in good.labels[apart[0]])
    return Events(total.metric, {**total.labels, apart[0]: rest})
