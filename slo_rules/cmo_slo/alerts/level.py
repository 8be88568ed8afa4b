"""Tickets on a level: a gauge whose mean over a window is above a limit.

Made for states, of which each is a series that is 1 or 0: the means of several add up to the share of time
spent in any of them. What has no such state at all, because all its series are 0, is never above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from cmo_slo.alerts.alert import (
    TARGET_LABELS,
    Alert,
    Duration,
    Role,
    Surroundings,
    Text,
    alert_rule,
    label_name_mistakes,
    read_back,
)
from cmo_slo.durations import duration
from cmo_slo.indicators import Events, no_boolean
from cmo_slo.mistakes import metric_mistakes, raise_if_any
from cmo_slo.promql import selector

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class LevelAlert(Alert):
    """A ticket when the mean of a gauge over a window, added up over its labels, is above a limit."""

    WORDS = ("limit", "window")

    kind: Literal["level"]
    gauge: Events
    by: Annotated[tuple[str, ...], Field(min_length=1)]
    mean_above: Annotated[float, Field(ge=0.0, lt=1.0), BeforeValidator(no_boolean)]
    window: Annotated[Duration, read_back()]
    role: Role
    component: Text | None = None

    @field_validator("gauge")
    @classmethod
    def _is_a_gauge(cls, gauge: Events) -> Events:
        raise_if_any(metric_mistakes("metric", gauge.metric, catalogue.Kind.GAUGE))
        return gauge

    @field_validator("by")
    @classmethod
    def _are_labels(cls, by: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        gauge = info.data.get("gauge")
        if gauge is not None:
            known = (*catalogue.BY_NAME[gauge.metric].labels, *TARGET_LABELS)
            raise_if_any(label_name_mistakes(by, gauge.metric, known))
        return by


def rule(alert: LevelAlert, surroundings: Surroundings) -> Rule:
    """The ticket; its value is the mean, of the instance where it is highest.

    It waits for half a window, so that the first samples after a start are not the whole of a mean.
    """
    window = surroundings.window(alert.window)
    gauge = selector(alert.gauge.metric, {"job": (surroundings.job,), **alert.gauge.labels})
    by = ", ".join(alert.by)
    # Several workers may be in two of the states at once. An instance that is gone is in none.
    mean = f"clamp_max(sum by ({by}, job, instance) (avg_over_time({gauge}[{duration(window)}])), 1)"
    mean = f"{mean} and on (job, instance) {gauge}"
    return alert_rule(
        alert,
        surroundings,
        f"max by ({by}) ({mean}) > {alert.mean_above!r}",
        severity="ticket",
        role=alert.role,
        component=alert.component,
        words={"limit": f"{alert.mean_above:g}", "window": duration(window)},
        waits=window // 2,
        lingers=window,
    )
