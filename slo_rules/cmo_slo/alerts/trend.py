"""A ticket when memory grows by a trend that reaches a limit, and not by a spike or a step.

What is looked at is the floor, the lowest reading of a quarter of an hour: garbage that is collected is no
growth. A trend must have grown in both halves of its time, which a step has not, and is not looked for in a
process that still warms up.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from cmo_slo import recorded
from cmo_slo.alerts.alert import Alert, Duration, Surroundings, alert_rule, read_back
from cmo_slo.durations import HOUR, MINUTE, SECOND, duration, parse_duration
from cmo_slo.indicators import no_boolean
from cmo_slo.mistakes import Mistake, MistakesError
from cmo_slo.promql import selector
from cmo_slo.rule import Rule

_FLOOR: Final = 15 * MINUTE
# Less growth than this in half of the time is noise of the allocator.
_LEAST_GROWTH: Final = 0.02
# Garbage that is collected once while the floor looks back makes it a staircase, of a step each time. In a
# shorter half there are moments without a step, and what has to grow for as long as that never fires.
_SHORTEST_WINDOW: Final = 2 * _FLOOR
# Over more of them a trend at its limit grows by less in half a window than is taken for noise.
_MOST_WINDOWS_OF_HORIZON: Final = round(1 / (2 * _LEAST_GROWTH))


class TrendAlert(Alert):
    """A ticket when the trend of memory over ``window`` gains more than the limit in ``horizon``."""

    WORDS = ("limit", "window", "horizon")
    LABELS = ("slo", "job", "instance")

    kind: Literal["trend"]
    gain_bytes_above: Annotated[float, Field(gt=0.0), BeforeValidator(no_boolean)]
    window: Annotated[Duration, read_back()]
    horizon: Duration

    @field_validator("window")
    @classmethod
    def _shows_growth(cls, window: str) -> str:
        if parse_duration(window) < _SHORTEST_WINDOW:
            wrong = f"{window!r} is too short: its halves would be shorter than memory's floor looks back"
            raise MistakesError([Mistake((), wrong, f"{duration(_SHORTEST_WINDOW)} or more", "lengthen it")])
        return window

    @field_validator("horizon")
    @classmethod
    def _exceeds_noise(cls, horizon: str, info: ValidationInfo) -> str:
        window = info.data.get("window")
        longest = None if window is None else parse_duration(window) * _MOST_WINDOWS_OF_HORIZON
        if longest is not None and parse_duration(horizon) > longest:
            wrong = f"{horizon!r} is too long: in half a window of {window} such growth is taken for noise"
            mend = "shorten it, or lengthen the window"
            raise MistakesError([Mistake((), wrong, f"{duration(longest)} or less", mend)])
        return horizon


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
