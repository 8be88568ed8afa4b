"""Tickets on what counters gain in a window: failures that should not happen at all, and cost.

``increase`` is good enough here: what matters is that it happens, or about how much. The monitor's own
counters are read as they are, because copies of them would be made by the rules that they watch.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field, model_validator

from cmo_slo.alerts.alert import Alert, Duration, Role, Surroundings, Text, alert_rule
from cmo_slo.durations import duration, parse_duration
from cmo_slo.indicators import no_boolean
from cmo_slo.mistakes import Mistake, raise_if_any
from cmo_slo.monitor_series import MONITOR_COUNTERS

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class RiseAlert(Alert):
    """A ticket when any of some counters gains more than a limit in a window."""

    kind: Literal["rise"]
    counters: Annotated[tuple[str, ...], Field(min_length=1)]
    by: Annotated[tuple[str, ...], Field(min_length=1)]
    gain_above: Annotated[float, BeforeValidator(no_boolean), Field(ge=0.0)]
    window: Duration
    role: Role
    component: Text | None = None

    @model_validator(mode="after")
    def _are_counters(self) -> RiseAlert:
        known = {
            metric.name for metric in catalogue.CATALOGUE if metric.kind is catalogue.Kind.COUNTER
        } | set(MONITOR_COUNTERS)
        mistakes = []
        for index, name in enumerate(self.counters):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                mistakes.append(
                    Mistake(
                        ("counters", index),
                        f"unknown counter {name!r}",
                        "a counter of the catalogue, or of the monitor's own",
                        f"did you mean {near[0]}?" if near else "check its name",
                    )
                )
        raise_if_any(mistakes)
        return self


def rule(alert: RiseAlert, surroundings: Surroundings) -> Rule:
    """The ticket; its value is what the counter gained."""
    window = parse_duration(alert.window)
    by = ", ".join(alert.by)
    gains = (
        f"sum by ({by}) (increase({counter}[{duration(window)}])) > {alert.gain_above!r}"
        for counter in alert.counters
    )
    return alert_rule(
        alert,
        surroundings,
        "\nor\n".join(gains),
        severity="ticket",
        role=alert.role,
        component=alert.component,
        words={"limit": f"{alert.gain_above:g}", "window": duration(window)},
        lingers=window,
    )
