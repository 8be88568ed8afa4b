"""Tickets on a share of events: of one counter by labels, or of a histogram's observations above an edge.

Both are counted like objectives, by differences of copies of the counters, because shares of few events are
what extrapolation is worst at. The share is held against its limit over a window, and where few events
happen over one six times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field, model_validator

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Duration, Role, Surroundings, Text, alert_rule, exceeds, percentage
from cmo_slo.durations import MINUTE, duration, parse_duration
from cmo_slo.indicators import Events, LabelValues, Positive, RatioIndicator, no_boolean
from cmo_slo.mistakes import Mistake, label_mistakes, metric_mistakes, raise_if_any
from cmo_slo.promql import or_zero, selector, summed
from cmo_slo.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGER: Final = 6
_WAITS: Final = MINUTE  # one more evaluation: a share that is above its limit at one of them only is noise
_LINGERS: Final = 15 * MINUTE


class _Share(Alert):
    role: Role
    component: Text | None = None
    """Where the series have no label of that name."""
    by: tuple[str, ...] = ()
    """Labels by which shares are told apart, beside ``scenario`` where there is one."""
    share_above: Annotated[float, BeforeValidator(no_boolean), Field(ge=0.0, lt=1.0)]
    minimum_bad_events: Annotated[int, BeforeValidator(no_boolean), Field(ge=1)]
    window: Duration = "1h"


class ShareAlert(_Share):
    """A ticket when the share of ``bad`` events of ``total`` events of one counter is above a limit."""

    kind: Literal["share"]
    bad: Events
    total: Events

    @model_validator(mode="after")
    def _bad_is_part_of_total(self) -> ShareAlert:
        # The same rules as for an objective's ratio, said once.
        RatioIndicator(kind="ratio", good=self.bad, total=self.total)
        raise_if_any(_by_mistakes(self.by, self.total.metric))
        return self


class SlowShareAlert(_Share):
    """A ticket when the share of a histogram's observations above one of its edges is above a limit."""

    kind: Literal["slow_share"]
    metric: str
    labels: LabelValues = Field(default_factory=dict)
    above_seconds: Positive

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> SlowShareAlert:
        raise_if_any(metric_mistakes("metric", self.metric, catalogue.Kind.HISTOGRAM))
        mistakes = label_mistakes(("labels",), self.metric, self.labels)
        buckets = catalogue.BY_NAME[self.metric].buckets
        if self.above_seconds not in buckets:
            mistakes.append(
                Mistake(
                    ("above_seconds",),
                    f"{self.metric} has no bucket edge at {self.above_seconds} s",
                    f"one of its edges: {', '.join(map(str, buckets))}",
                    "choose an edge",
                )
            )
        raise_if_any([*mistakes, *_by_mistakes(self.by, self.metric)])
        return self


AnyShare = ShareAlert | SlowShareAlert


@dataclass(frozen=True)
class Counted:
    """The two counters that a share is made of, and which of their series."""

    series: str
    labels: Mapping[str, tuple[str, ...]]
    edge_seconds: float | None = None


def counters(alert: AnyShare) -> tuple[Counted, Counted]:
    """What has to be counted for a share; the second is the total."""
    if isinstance(alert, ShareAlert):
        return (
            Counted(alert.bad.metric, alert.bad.labels),
            Counted(alert.total.metric, alert.total.labels),
        )
    return (
        Counted(f"{alert.metric}_bucket", alert.labels, alert.above_seconds),
        Counted(f"{alert.metric}_count", alert.labels),
    )


def steps(alert: AnyShare, part: str, whole: str) -> tuple[Rule, Rule]:
    """What happened since the evaluation before, from what the two counters of `counters` have gained."""
    bad = or_zero(part, whole) if isinstance(alert, ShareAlert) else f"{whole}\n- (\n  {part}\n)"
    label = {"alert": alert.alert}
    return (
        Rule(bad, record=recorded.ALERT_BAD_EVENTS, labels=label),
        Rule(whole, record=recorded.ALERT_TOTAL_EVENTS, labels=label),
    )


def grouping(alert: AnyShare) -> tuple[str, ...]:
    """Labels that are kept when series are added up."""
    metric = alert.total.metric if isinstance(alert, ShareAlert) else alert.metric
    scenario = ("scenario",) if "scenario" in catalogue.BY_NAME[metric].labels else ()
    return (*scenario, *alert.by)


def rule(alert: AnyShare, surroundings: Surroundings) -> Rule:
    """The ticket; its value is the share."""
    labels = {"slo": (surroundings.slo,), "alert": (alert.alert,)}
    window = parse_duration(alert.window)
    bad = selector(recorded.ALERT_BAD_EVENTS, labels)
    total = selector(recorded.ALERT_TOTAL_EVENTS, labels)
    busy = exceeds(summed(bad, window), summed(total, window), alert.share_above, alert.minimum_bad_events)
    long = window * _LONGER
    rare = (
        f"{exceeds(summed(bad, long), summed(total, long), alert.share_above, alert.minimum_bad_events)}\n"
        f"and\n"
        f"{summed(bad, window)} > 0\n"
        f"and\n"
        f"{summed(total, window)} < {2 * alert.minimum_bad_events}"
    )
    inner = f"{busy}\nor\n{rare}".replace("\n", "\n  ")
    return alert_rule(
        alert,
        surroundings,
        f"max without (alert) (\n  {inner}\n)",
        severity="ticket",
        role=alert.role,
        component=alert.component,
        words={"limit": percentage(alert.share_above), "window": duration(window)},
        waits=_WAITS,
        lingers=_LINGERS,
    )


def _by_mistakes(by: tuple[str, ...], metric: str) -> list[Mistake]:
    known = catalogue.BY_NAME[metric].labels
    return [
        Mistake(
            ("by", index),
            f"{metric} has no label {name!r}",
            ", ".join(known) or "none",
            "name one of its labels",
        )
        for index, name in enumerate(by)
        if name not in known
    ]
