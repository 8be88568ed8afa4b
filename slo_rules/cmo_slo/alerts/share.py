"""Tickets on a share of events: of one counter by labels, or of a histogram's observations above an edge.

Both are counted like objectives, by differences of copies of the counters, because shares of few events are
what extrapolation is worst at. The share is held against its limit over a window, and where few events
happen over one six times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from cmo_slo import recorded
from cmo_slo.alerts.alert import (
    Alert,
    Duration,
    Role,
    Surroundings,
    Text,
    alert_rule,
    exceeds,
    label_name_mistakes,
    of_this_field,
    percentage,
    read_back,
    seconds,
)
from cmo_slo.durations import MINUTE, duration
from cmo_slo.indicators import Events, LabelValues, Positive, no_boolean
from cmo_slo.mistakes import Mistake, MistakesError, label_mistakes, metric_mistakes, raise_if_any
from cmo_slo.promql import or_zero, selector, summed
from cmo_slo.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGER: Final = 6
_WAITS: Final = MINUTE  # one more evaluation: a share that is above its limit at one of them only is noise
_LINGERS: Final = 15 * MINUTE


class _Share(Alert):
    WORDS: ClassVar[tuple[str, ...]] = ("limit", "window")
    LABELS = ("slo",)

    role: Role
    component: Text | None = None
    """Where the series have no label of that name."""
    share_above: Annotated[float, Field(ge=0.0, lt=1.0), BeforeValidator(no_boolean)]
    minimum_bad_events: Annotated[int, Field(ge=1), BeforeValidator(no_boolean)]
    window: Annotated[Duration, read_back(windows=_LONGER)] = "1h"


class ShareAlert(_Share):
    """A ticket when the share of ``bad`` events of ``total`` events of one counter is above a limit."""

    LABELS_FOLLOW_FROM = ("by", "total")

    kind: Literal["share"]
    bad: Events
    total: Events
    by: tuple[str, ...] = ()
    """Labels by which shares are told apart, beside ``scenario`` where there is one."""

    @field_validator("bad")
    @classmethod
    def _is_counted(cls, bad: Events) -> Events:
        raise_if_any(metric_mistakes("metric", bad.metric, catalogue.Kind.COUNTER))
        return bad

    @field_validator("total")
    @classmethod
    def _holds_the_bad(cls, total: Events, info: ValidationInfo) -> Events:
        raise_if_any(metric_mistakes("metric", total.metric, catalogue.Kind.COUNTER))
        bad = info.data.get("bad")
        if bad is not None:
            raise_if_any(_part_mistakes(bad, total))
        return total

    @field_validator("by")
    @classmethod
    def _are_labels(cls, by: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        events = info.data.get("total") or info.data.get("bad")
        if events is not None:
            known = tuple(catalogue.BY_NAME[events.metric].labels)
            raise_if_any(label_name_mistakes(by, events.metric, known))
        return by

    @classmethod
    def series_labels(cls, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """See there; an alert on a metric that has scenarios tells them apart."""
        return (*super().series_labels(fields), *_scenario_of(fields["total"]["metric"]))


class SlowShareAlert(_Share):
    """A ticket when the share of a histogram's observations above one of its edges is above a limit."""

    WORDS = (*_Share.WORDS, "above")
    LABELS_FOLLOW_FROM = ("by", "metric")

    kind: Literal["slow_share"]
    metric: str
    labels: LabelValues = Field(default_factory=dict)
    above_seconds: Positive
    by: tuple[str, ...] = ()
    """Labels by which shares are told apart, beside ``scenario`` where there is one."""

    @field_validator("metric")
    @classmethod
    def _is_a_histogram(cls, metric: str) -> str:
        raise_if_any(of_this_field(metric_mistakes("metric", metric, catalogue.Kind.HISTOGRAM)))
        return metric

    @field_validator("labels")
    @classmethod
    def _has_these_labels(cls, labels: LabelValues, info: ValidationInfo) -> LabelValues:
        raise_if_any(label_mistakes((), info.data.get("metric", ""), labels))
        return labels

    @field_validator("above_seconds")
    @classmethod
    def _is_an_edge(cls, above: float, info: ValidationInfo) -> float:
        metric = info.data.get("metric")
        if metric is not None and above not in (buckets := catalogue.BY_NAME[metric].buckets):
            wrong = f"{metric} has no bucket edge at {seconds(above)}"
            expected = f"one of its edges: {', '.join(map(str, buckets))}"
            raise MistakesError([Mistake((), wrong, expected, "choose an edge")])
        return above

    @field_validator("by")
    @classmethod
    def _are_labels(cls, by: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        metric = info.data.get("metric")
        if metric is not None:
            raise_if_any(label_name_mistakes(by, metric, tuple(catalogue.BY_NAME[metric].labels)))
        return by

    @classmethod
    def series_labels(cls, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """See there; an alert on a metric that has scenarios tells them apart."""
        return (*super().series_labels(fields), *_scenario_of(fields["metric"]))


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
    return (*_scenario_of(metric), *alert.by)


def _scenario_of(metric: str) -> tuple[str, ...]:
    return ("scenario",) if "scenario" in catalogue.BY_NAME[metric].labels else ()


def rule(alert: AnyShare, surroundings: Surroundings) -> Rule:
    """The ticket; its value is the share."""
    labels = {"slo": (surroundings.slo,), "alert": (alert.alert,)}
    window = surroundings.window(alert.window)
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
        words=_words(alert, window),
        waits=_WAITS,
        lingers=_LINGERS,
    )


def _words(alert: AnyShare, window: int) -> dict[str, str]:
    looked_at = f"{duration(window)} ({duration(window * _LONGER)} where few ask)"
    words = {"limit": percentage(alert.share_above), "window": looked_at}
    return words if isinstance(alert, ShareAlert) else {**words, "above": seconds(alert.above_seconds)}


def _part_mistakes(bad: Events, total: Events) -> list[Mistake]:
    """What keeps bad events from being a part of the total, and not the whole of it."""
    if bad.metric != total.metric:
        wrong = f"bad events count {bad.metric}, total events {total.metric}"
        return [Mistake((), wrong, "one metric for both", "tell bad from total by labels")]
    outside = [
        f"{name} {value}" if bad.labels.get(name) else f"any {name}"
        for name, values in total.labels.items()
        for value in bad.labels.get(name, ("",))
        if value not in values
    ]
    if outside:
        wrong = f"leaves out bad events with {' and '.join(outside)}"
        return [
            Mistake((), wrong, "a total that holds all bad events", "add these values, or take them from bad")
        ]
    if all(set(total.labels.get(name, ())) == set(values) for name, values in bad.labels.items()):
        wrong = "every event of it is bad"
        return [Mistake((), wrong, "a total of which some are not", "name the label values that are bad")]
    return []
