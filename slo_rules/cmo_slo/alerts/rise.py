"""Tickets on what counters gain in a window: failures that should not happen at all, and cost.

``increase`` is good enough here: what matters is that it happens, or about how much. The monitor's own
counters are read as they are, because copies of them would be made by the rules that they watch.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from cmo_slo.alerts.alert import (
    RESOURCES,
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
from cmo_slo.indicators import no_boolean
from cmo_slo.mistakes import Mistake, raise_if_any
from cmo_slo.monitor_series import MONITOR_COUNTERS, RULE_GROUP, VMALERT_GROUP
from cmo_slo.promql import selector

if TYPE_CHECKING:
    from cmo_slo.rule import Rule


class RiseAlert(Alert):
    """A ticket when any of some counters gains more than a limit in a window."""

    WORDS = ("limit", "window")

    kind: Literal["rise"]
    counters: Annotated[tuple[str, ...], Field(min_length=1)]
    by: Annotated[tuple[str, ...], Field(min_length=1)]
    gain_above: Annotated[float, Field(ge=0.0), BeforeValidator(no_boolean)]
    window: Annotated[Duration, read_back()]
    role: Role
    component: Text | None = None

    @field_validator("counters")
    @classmethod
    def _are_counters(cls, counters: tuple[str, ...]) -> tuple[str, ...]:
        known = _labels_of_counters()
        mistakes = []
        for index, name in enumerate(counters):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                mistakes.append(
                    Mistake(
                        (index,),
                        f"unknown counter {name!r}",
                        "a counter of the catalogue, or of the monitor's own",
                        f"did you mean {near[0]}?" if near else "check its name",
                    )
                )
        raise_if_any(mistakes)
        return counters

    @field_validator("by")
    @classmethod
    def _are_labels(cls, by: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        labels = _labels_of_counters()
        for counter in info.data.get("counters", ()):
            raise_if_any(label_name_mistakes(by, counter, (*labels[counter], *TARGET_LABELS)))
        return by


def _labels_of_counters() -> dict[str, tuple[str, ...]]:
    """Every counter that can be watched, with its labels."""
    own = {
        metric.name: tuple(metric.labels)
        for metric in catalogue.CATALOGUE
        if metric.kind is catalogue.Kind.COUNTER
    }
    of_vmalert = {
        name: (*labels, RULE_GROUP) for name, labels in MONITOR_COUNTERS.items() if labels == VMALERT_GROUP
    }
    return {**own, **MONITOR_COUNTERS, **of_vmalert}


def rule(alert: RiseAlert, surroundings: Surroundings) -> Rule:
    """The ticket; its value is what the counter gained."""
    window = surroundings.window(alert.window)
    by = ", ".join(alert.by)
    increases = (_increase(counter, surroundings, duration(window)) for counter in alert.counters)
    gains = (f"sum by ({by}) ({one}) > {alert.gain_above!r}" for one in increases)
    return alert_rule(
        alert,
        surroundings,
        "\nor\n".join(gains),
        severity="ticket",
        role=alert.role,
        component=alert.component,
        words={"limit": f"{alert.gain_above:g}", "window": duration(window)},
        lingers=window,
        dashboard=RESOURCES if catalogue.LLM_COST.name in alert.counters else None,
    )


def _increase(counter: str, surroundings: Surroundings, window: str) -> str:
    """What a counter gains: the service's own of its job alone; the monitor may have any.

    Of rules only those of the objectives file: a Prometheus or vmalert that others share evaluates theirs
    too, and they are told by alerts of their own. A group of vmalert's is called as Prometheus calls its own.
    """
    if counter not in MONITOR_COUNTERS:
        return f"increase({selector(counter, {'job': (surroundings.job,)})}[{window}])"
    labels, ours = MONITOR_COUNTERS[counter], f"{surroundings.slo}-.+"
    if labels == VMALERT_GROUP:
        increase = f'increase({counter}{{group=~"{ours}"}}[{window}])'
        return f'label_join({increase}, "{RULE_GROUP}", ";", "file", "group")'
    of_rules = f'{{{RULE_GROUP}=~".*;{ours}"}}' if RULE_GROUP in labels else ""
    return f"increase({counter}{of_rules}[{window}])"
