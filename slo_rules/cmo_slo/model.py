"""The objectives model: what is promised, measured by what, judged how.

Plain data and nothing else; reading files is `cmo_slo.objectives`, and every consumer (compiler, checker,
dashboards) takes its metric names, thresholds and targets from here, so that they cannot disagree. Terms are
OpenSLO's: an objective has an indicator and a target; an indicator counts good events of total events.

What a type cannot say, a validator here does, and it reports every mistake it sees (`cmo_slo.mistakes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field, Strict, model_validator

from cmo_slo.alerts.alert import Text
from cmo_slo.alerts.below_target import BelowTarget
from cmo_slo.alerts.budget import BudgetAlert
from cmo_slo.alerts.kinds import AnyAlert
from cmo_slo.alerts.no_traffic import NoTrafficAlert
from cmo_slo.alerts.page import Page
from cmo_slo.indicators import (
    Fraction,
    HeldLevelIndicator,
    Indicator,
    LatencyIndicator,
    Model,
    Positive,
    RatioIndicator,
    no_boolean,
)
from cmo_slo.mistakes import Mistake, raise_if_any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Number = Annotated[float, BeforeValidator(no_boolean)]
Count = Annotated[int, BeforeValidator(no_boolean), Field(ge=0)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]

OVERALL_SCENARIO: Final = "overall"
"""What reports call all of a run's scenarios pooled; no scenario can have this name."""


class Operator(StrEnum):
    """How a value is held against its target; strict operators leave the target itself outside."""

    ABOVE = ">"
    AT_LEAST = ">="
    BELOW = "<"
    AT_MOST = "<="


class Scope(StrEnum):
    """What an objective is judged on: each scenario by itself, all of a run's scenarios pooled."""

    SCENARIO = "scenario"
    OVERALL = "overall"


@dataclass(frozen=True)
class _Form:
    """What an objective must say for an indicator of one kind to make sense."""

    unit: str
    operators: tuple[Operator, ...]
    scopes: tuple[Scope, ...]


_UPWARD: Final = (Operator.ABOVE, Operator.AT_LEAST)
_DOWNWARD: Final = (Operator.BELOW, Operator.AT_MOST)
_BOTH_SCOPES: Final = (Scope.SCENARIO, Scope.OVERALL)
_FORMS: Final[Mapping[str, _Form]] = {
    "ratio": _Form("ratio", _UPWARD, _BOTH_SCOPES),
    "latency": _Form("ratio", _UPWARD, _BOTH_SCOPES),
    "held": _Form("users", _UPWARD, (Scope.SCENARIO,)),
    "growth": _Form("bytes", _DOWNWARD, (Scope.SCENARIO,)),
    "continuity": _Form("events", _DOWNWARD, (Scope.SCENARIO,)),
}


class Objective(Model):
    """One promise. ``warning_band`` is how close to the target a pass is a WARN, in the target's unit."""

    name: Identifier
    title: Text
    description: Text
    indicator: Indicator
    operator: Operator
    target: Number
    unit: Literal["ratio", "users", "bytes", "events"]
    judged: Annotated[tuple[Scope, ...], Field(min_length=1)]
    key: Annotated[bool, Strict()]
    """A key objective decides the verdict by itself."""
    weight: Positive
    warning_band: Annotated[float, BeforeValidator(no_boolean), Field(ge=0.0)] = 0.0
    """How close to the target a pass is a WARN, in the target's unit."""
    minimum_events: Count = 0
    """Fewer events than this are INCONCLUSIVE."""
    page: Page | None = None
    """Wakes somebody when live users suffer."""
    ticket: BelowTarget | None = None
    """A ticket when live traffic misses the target over an hour."""

    @property
    def counted(self) -> bool:
        """Whether it is judged by events, good ones of all."""
        return isinstance(self.indicator, RatioIndicator | LatencyIndicator)

    @model_validator(mode="after")
    def _fits_its_indicator(self) -> Objective:
        kind = self.indicator.kind
        form = _FORMS[kind]
        mistakes = []
        if self.unit != form.unit:
            mistakes.append(
                Mistake(("unit",), f"a {kind} has no unit {self.unit}", form.unit, f"write {form.unit}")
            )
        if self.operator not in form.operators:
            allowed = " or ".join(f'"{operator}"' for operator in form.operators)
            mistakes.append(
                Mistake(("operator",), f'a {kind} is not held by "{self.operator}"', allowed, "write one")
            )
        mistakes += [
            Mistake(
                ("judged", index),
                f"a {kind} is not judged {scope}",
                ", ".join(form.scopes),
                "take it out",
            )
            for index, scope in enumerate(self.judged)
            if scope not in form.scopes
        ]
        mistakes += [
            Mistake((name,), f"a {kind} has no bad events", f"a {name} on a ratio or a latency", "remove it")
            for name in ("page", "ticket")
            if getattr(self, name) is not None and form.unit != "ratio"
        ]
        raise_if_any([*mistakes, *self._target_mistakes()])
        return self

    def _target_mistakes(self) -> list[Mistake]:
        indicator = self.indicator
        if isinstance(indicator, RatioIndicator | LatencyIndicator) and not 0 < self.target < 1:
            return [
                Mistake(
                    ("target",),
                    f"{self.target:g} is no ratio that can be met and missed",
                    "a number above 0 and below 1",
                    "write 0.95 for 95 %",
                )
            ]
        if isinstance(indicator, HeldLevelIndicator) and self.target <= 0:
            return [
                Mistake(
                    ("target",),
                    f"{self.target:g} users are held by nobody",
                    "a number above 0",
                    "write how many users are to be held",
                )
            ]
        if isinstance(indicator, LatencyIndicator) and indicator.quantile != self.target:
            return [
                Mistake(
                    ("target",),
                    f"target {self.target:g} and quantile {indicator.quantile:g} differ",
                    "the same number: P95 below a threshold means that 95 % are within it",
                    "make them equal",
                )
            ]
        return []


class Service(Model):
    """How Prometheus knows the service."""

    job: Text = "cmo"
    """Its scrape job."""
    restart_seconds: Annotated[int, BeforeValidator(no_boolean), Field(ge=1, le=3600)] = 60
    """How long a restart of a deploy may take: only what lasts longer is an outage."""


class Links(Model):
    """What the links of an alert begin with; a slash at the end is not needed."""

    runbooks: Text = "docs/runbooks"
    dashboards: str = ""
    """Address of Grafana."""


def repeated(names: Sequence[object]) -> list[int]:
    """Places in a list of names at which a name stands again."""
    return [index for index, name in enumerate(names) if name in names[:index]]


class Objectives(Model):
    """A whole objectives file.

    ``scenarios`` are those that a run must hold. ``cancelled_limit`` is the share of queries that users may
    leave before a verdict is INCONCLUSIVE. ``compliant_score`` is the weighted score that COMPLIANT needs.
    """

    version: Literal["cmo-slo/v1"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    requirement: Text
    scenarios: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    """Scenarios that a run must hold."""
    cancelled_limit: Fraction = 0.02
    """Share of queries that users may leave before a verdict is INCONCLUSIVE."""
    compliant_score: Annotated[Fraction, Field(gt=0.0)] = 0.8
    """Weighted score that COMPLIANT needs; above 0, which a run without any data would reach too."""
    service: Service = Field(default_factory=Service)
    links: Links = Field(default_factory=Links)
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    alerts: tuple[AnyAlert, ...] = ()
    """Alerts that belong to no objective."""

    @model_validator(mode="after")
    def _names_told_apart(self) -> Objectives:
        raise_if_any(
            name_mistakes(
                self.scenarios,
                [objective.name for objective in self.objectives],
                self._alert_names(),
            )
        )
        return self

    def _alert_names(self) -> list[tuple[tuple[str | int, ...], object]]:
        names: list[tuple[tuple[str | int, ...], object]] = []
        for index, objective in enumerate(self.objectives):
            for field in ("page", "ticket"):
                alert = getattr(objective, field)
                if alert is not None:
                    names.append((("objectives", index, field, "alert"), alert.alert))
        names += [(("alerts", index, "alert"), alert.alert) for index, alert in enumerate(self.alerts)]
        return names

    @model_validator(mode="after")
    def _alerts_read_what_is_there(self) -> Objectives:
        mistakes = []
        for index, alert in enumerate(self.alerts):
            if isinstance(alert, NoTrafficAlert):
                mistakes += self._counted_mistakes((index, "objective"), alert.objective)
            elif isinstance(alert, BudgetAlert):
                for place, name in enumerate(alert.objectives):
                    mistakes += self._counted_mistakes((index, "objectives", place), name)
                mistakes += self._burn_mistakes(index, alert)
        raise_if_any(mistakes)
        return self

    def _counted_mistakes(self, place: tuple[str | int, ...], name: str) -> list[Mistake]:
        counted = [objective.name for objective in self.objectives if objective.counted]
        if name in counted:
            return []
        wrong = f"{name!r} is no objective that counts events"
        expected = ", ".join(counted) or "an objective on a ratio or a latency"
        return [Mistake(("alerts", *place), wrong, expected, "name one of these")]

    def _burn_mistakes(self, index: int, alert: BudgetAlert) -> list[Mistake]:
        """A burn rate above 1 / (1 - target) asks for more than 100 % bad events."""
        targets = [one.target for one in self.objectives if one.counted and one.name in alert.objectives]
        most = min((1 / (1 - target) for target in targets), default=alert.burn_rate_above + 1)
        if alert.burn_rate_above < most:
            return []
        wrong = (
            f"{alert.alert} could never fire: at a target of {min(targets):g} a burn rate of "
            f"{alert.burn_rate_above:g} takes more than 100 % bad events"
        )
        field = ("alerts", index, "burn_rate_above")
        return [Mistake(field, wrong, f"a number below {most:.4g}", "lower it, or page on the share itself")]


def name_mistakes(
    scenarios: Sequence[object],
    objectives: Sequence[object],
    alerts: Sequence[tuple[tuple[str | int, ...], object]],
) -> list[Mistake]:
    """What is wrong with the names of a file taken together.

    Args:
        scenarios: their names.
        objectives: their names.
        alerts: where each alert's name stands, and the name.
    """
    mistakes = [
        Mistake(
            ("scenarios", index),
            f"{name!r} is no scenario of a run",
            f"no {catalogue.LIVE} (what no load test has named) and no {OVERALL_SCENARIO} (all pooled)",
            "take it out or rename it",
        )
        for index, name in enumerate(scenarios)
        if name in (catalogue.LIVE, OVERALL_SCENARIO)
    ]
    places: tuple[list[tuple[tuple[str | int, ...], object]], ...] = (
        [(("scenarios", index), name) for index, name in enumerate(scenarios)],
        [(("objectives", index, "name"), name) for index, name in enumerate(objectives)],
        list(alerts),
    )
    for place in places:
        names = [name for _, name in place]
        mistakes += [
            Mistake(place[index][0], f"{names[index]!r} stands there twice", "each name once", "rename one")
            for index in repeated(names)
            if names[index] is not None
        ]
    return mistakes
