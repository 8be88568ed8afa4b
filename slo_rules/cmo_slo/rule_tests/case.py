"""One case of a rule test: series in, and when the alert fires; and how ``promtool`` writes it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cmo_slo.durations import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cmo_slo.rule import Rule

_TEMPLATE: Final = re.compile(r"\{\{ \$(?P<what>value|labels\.\w+)(?: \| (?P<how>[^}]*))? \}\}")
_PRINTED: Final = re.compile(r'printf "([^"]*)"')
_PREFIXES: Final = ("", "k", "M", "G", "T")

TARGET: Final[Mapping[str, str]] = {"job": "cmo", "instance": "a"}
"""The labels that a scrape gives to every series of the one instance that cases speak of."""


@dataclass(frozen=True)
class Series:
    """One series of a case; ``values`` is promtool's notation, a value for each step."""

    name: str
    labels: Mapping[str, str]
    values: str

    def document(self) -> dict[str, str]:
        """As promtool reads it."""
        labels = ", ".join(f'{name}="{value}"' for name, value in self.labels.items())
        return {"series": f"{self.name}{{{labels}}}", "values": self.values}


@dataclass(frozen=True)
class Phase:
    """``steps`` steps in which a counter gains ``gain`` each, perhaps after a reset; or is not scraped."""

    gain: float
    steps: int
    reset: bool = False
    absent: bool = False


def counter(phases: Iterable[Phase], start: float = 0.0) -> str:
    """The values of a counter through some phases, from ``start`` at the first step."""
    parts = [f"{start:g}"]
    value = start
    for phase in phases:
        if phase.absent:
            # Stale at once, as a failed scrape makes it.
            parts.append("stale")
            if phase.steps > 1:
                parts.append(f"_x{phase.steps - 1}")
            continue
        first = phase.gain if phase.reset else value + phase.gain
        parts.append(f"{first:.0f}+{phase.gain:.0f}x{phase.steps - 1}" if phase.steps > 1 else f"{first:.0f}")
        value = first + phase.gain * (phase.steps - 1)
    return " ".join(parts)


@dataclass(frozen=True)
class Text:
    """What the alert says at a step: its labels beside those of the rule, and its value."""

    step: int
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Series, the steps at which the alert fires, for ``alerts`` things, and those at which it does not."""

    name: str
    series: tuple[Series, ...]
    firing: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()
    text: Text | None = None
    alerts: int = 1

    def __post_init__(self) -> None:
        """Refuse a case that cannot fail.

        Raises:
            ValueError: it expects nothing.
        """
        if not self.firing and not self.silent and self.text is None:
            raise ValueError(f"{self.name}: expects nothing")


def case_document(case: Case, rule: Rule, step: int) -> dict[str, Any]:
    """A case as promtool reads it; ``step`` is milliseconds."""
    texts = [] if case.text is None else [_text(case.text, rule, step)]
    silent = [{"eval_time": duration(at * step), "alertname": rule.alert} for at in case.silent]
    firing = [
        {
            "expr": f'count(ALERTS{{alertname="{rule.alert}",alertstate="firing"}})',
            "eval_time": duration(at * step),
            "exp_samples": [{"labels": "{}", "value": case.alerts}],
        }
        for at in case.firing
    ]
    document: dict[str, Any] = {
        "name": case.name,
        "interval": duration(step),
        "input_series": [series.document() for series in case.series],
    }
    if silent or texts:
        document["alert_rule_test"] = sorted([*silent, *texts], key=lambda one: "exp_alerts" in one)
    if firing:
        document["promql_expr_test"] = firing
    return document


def _text(text: Text, rule: Rule, step: int) -> dict[str, Any]:
    labels = {**text.labels, **rule.labels}

    def filled(match: re.Match[str]) -> str:
        _, _, label = match["what"].partition(".")
        return labels.get(label, "") if label else _written(text.value, match["how"] or "")

    return {
        "eval_time": duration(text.step * step),
        "alertname": rule.alert,
        "exp_alerts": [
            {
                "exp_labels": dict(sorted(labels.items())),
                "exp_annotations": {
                    name: _TEMPLATE.sub(filled, words) for name, words in rule.annotations.items()
                },
            }
        ],
    }


def _written(value: float, how: str) -> str:
    """A value as a template of Prometheus writes it: by itself, or through one of its functions."""
    if printed := _PRINTED.fullmatch(how):
        return printed[1] % value
    if how == "humanizePercentage":
        return f"{100 * value:.4g}%"
    if how == "humanize" and value >= 1:
        thousands = min(int(math.log10(value)) // 3, len(_PREFIXES) - 1)
        return f"{value / 1000**thousands:.4g}{_PREFIXES[thousands]}"
    if not how:
        return f"{value:g}"
    raise ValueError(f"nothing here writes {value} as {how} does")
