"""A ticket when memory grows by a trend that reaches a limit, and not by a spike or a step.

What is looked at is the floor, the lowest reading of a quarter of an hour: garbage that is collected is no
growth. A trend must have grown in both halves of its time, which a step has not, and is not looked for in a
process that still warms up.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Duration, Surroundings, alert_rule
from cmo_slo.durations import HOUR, MINUTE, SECOND, duration, parse_duration
from cmo_slo.indicators import no_boolean
from cmo_slo.promql import selector
from cmo_slo.rule import Rule

_FLOOR: Final = 15 * MINUTE
# Less growth than this in half of the time is noise of the allocator.
_LEAST_GROWTH: Final = 0.02


class TrendAlert(Alert):
    """A ticket when the trend of memory over ``window`` gains more than the limit in ``horizon``."""

    WORDS = ("limit", "window", "horizon")
    LABELS = ("slo", "job", "instance")

    kind: Literal["trend"]
    gain_bytes_above: Annotated[float, Field(gt=0.0), BeforeValidator(no_boolean)]
    window: Duration
    horizon: Duration


def floor_rule(surroundings: Surroundings) -> Rule:
    """The floor of an instance's memory, all its processes together."""
    memory = selector(catalogue.MEMORY.name, {"job": (surroundings.job,), "kind": ("rss",)})
    lowest = f"min_over_time({memory}[{duration(_FLOOR)}])"
    return Rule(f"sum by (job, instance) ({lowest})", record=recorded.MEMORY_FLOOR)


def rule(alert: TrendAlert, surroundings: Surroundings) -> Rule:
    """The ticket; its value is the growth that the trend comes to, in bytes."""
    window, horizon = surroundings.window(alert.window), parse_duration(alert.horizon)
    floor = selector(recorded.MEMORY_FLOOR, {"slo": (surroundings.slo,)})
    half = f"{floor} offset {duration(window // 2)}"
    least = f"{_LEAST_GROWTH * alert.gain_bytes_above:.0f}"
    age = f"time() - max by (job, instance) ({catalogue.WORKER_START_TIME.name})"
    return alert_rule(
        alert,
        surroundings,
        f"predict_linear({floor}[{duration(window)}], {horizon // SECOND}) - {floor}"
        f" > {alert.gain_bytes_above!r}\n"
        f"and\n"
        f"{floor} - {half} > {least}\n"
        f"and\n"
        f"{half} - {floor} offset {duration(window)} > {least}\n"
        f"and on (job, instance)\n"
        f"{age} > {window // SECOND}",
        severity="ticket",
        role="cause",
        component="service",
        words={
            "limit": f"{alert.gain_bytes_above / 1e6:g} MB",
            "window": duration(window),
            "horizon": duration(horizon),
        },
        waits=_FLOOR,
        lingers=HOUR,
    )
