"""The objectives model: what is promised, measured by what, judged how.

Plain data and nothing else; reading files is `cmo_slo.objectives`, and every consumer (compiler, checker,
dashboards) takes its metric names, thresholds and targets from here, so that they cannot disagree. Terms are
OpenSLO's: an objective has an indicator and a target; an indicator counts good events of total events.

What a type cannot say, a validator here does, and it reports every mistake it sees (`cmo_slo.mistakes`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cmo_exporter import catalogue
from pydantic import BeforeValidator, Field, Strict, ValidationInfo, field_validator, model_validator

from cmo_slo.alert_texts import alert_text_mistakes
from cmo_slo.alerts.alert import JobName, Text
from cmo_slo.alerts.below_target import BelowTarget
from cmo_slo.alerts.kinds import AnyAlert
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
from cmo_slo.link_address import (
    EXPECTED_ADDRESS,
    EXPECTED_ADDRESS_OR_FOLDER,
    wrong_with_address,
    wrong_with_address_or_folder,
)
from cmo_slo.mistakes import Mistake, MistakesError, raise_if_any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

Number = Annotated[float, BeforeValidator(no_boolean)]
Count = Annotated[int, Field(ge=0), BeforeValidator(no_boolean)]
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


UPWARD: Final = (Operator.ABOVE, Operator.AT_LEAST)
"""Operators of objectives whose values are to be high."""
_DOWNWARD: Final = (Operator.BELOW, Operator.AT_MOST)
_BOTH_SCOPES: Final = (Scope.SCENARIO, Scope.OVERALL)
_FORMS: Final[Mapping[str, _Form]] = {
    "ratio": _Form("ratio", UPWARD, _BOTH_SCOPES),
    "latency": _Form("ratio", UPWARD, _BOTH_SCOPES),
    "held": _Form("users", UPWARD, (Scope.SCENARIO,)),
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
    warning_band: Annotated[float, Field(ge=0.0), BeforeValidator(no_boolean)] = 0.0
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

    # One validator a field, so that each mistake is reported whatever else is wrong with the objective.

    @field_validator("operator")
    @classmethod
    def _operator_fits(cls, operator: Operator, info: ValidationInfo) -> Operator:
        kind, form = _form(info)
        if form is not None and operator not in form.operators:
            allowed = " or ".join(f'"{one}"' for one in form.operators)
            raise MistakesError([Mistake((), f'a {kind} is not held by "{operator}"', allowed, "write one")])
        return operator

    @field_validator("target")
    @classmethod
    def _target_fits(cls, target: float, info: ValidationInfo) -> float:
        raise_if_any(_target_mistakes(target, info.data.get("indicator")))
        return target

    @field_validator("unit")
    @classmethod
    def _unit_fits(cls, unit: str, info: ValidationInfo) -> str:
        kind, form = _form(info)
        if form is not None and unit != form.unit:
            wrong = f"a {kind} has no unit {unit}"
            raise MistakesError([Mistake((), wrong, form.unit, f"write {form.unit}")])
        return unit

    @field_validator("judged")
    @classmethod
    def _scopes_fit(cls, judged: tuple[Scope, ...], info: ValidationInfo) -> tuple[Scope, ...]:
        kind, form = _form(info)
        if form is not None:
            raise_if_any(
                [
                    Mistake(
                        (index,), f"a {kind} is not judged {scope}", ", ".join(form.scopes), "take it out"
                    )
                    for index, scope in enumerate(judged)
                    if scope not in form.scopes
                ]
            )
        return judged

    @field_validator("page", "ticket", mode="before")
    @classmethod
    def _events_can_be_bad(cls, alert: Any, info: ValidationInfo) -> Any:
        kind, form = _form(info)
        if alert is not None and form is not None and form.unit != "ratio":
            expected = f"a {info.field_name} on a ratio or a latency"
            raise MistakesError([Mistake((), f"a {kind} has no bad events", expected, "remove it")])
        return alert


def _form(info: ValidationInfo) -> tuple[str, _Form | None]:
    """The kind of an objective's indicator and what that asks for; none where the indicator is wrong."""
    indicator = info.data.get("indicator")
    return ("", None) if indicator is None else (indicator.kind, _FORMS[indicator.kind])


def _target_mistakes(target: float, indicator: object) -> list[Mistake]:
    if isinstance(indicator, RatioIndicator | LatencyIndicator) and not 0 < target < 1:
        wrong = f"{target:g} is no ratio that can be met and missed"
        return [Mistake((), wrong, "a number above 0 and below 1", "write 0.95 for 95 %")]
    if isinstance(indicator, HeldLevelIndicator) and target <= 0:
        wrong = f"{target:g} users are held by nobody"
        return [Mistake((), wrong, "a number above 0", "write how many users are to be held")]
    if isinstance(indicator, LatencyIndicator) and indicator.quantile != target:
        wrong = f"target {target:g} and quantile {indicator.quantile:g} differ"
        expected = "the same number: P95 below a threshold means that 95 % are within it"
        return [Mistake((), wrong, expected, "make them equal")]
    return []


class ComponentIndicator(Model):
    """Good calls of all calls, for each component by itself: counted and recorded, judged by no target."""

    name: Identifier
    indicator: Annotated[RatioIndicator | LatencyIndicator, Field(discriminator="kind")]

    @field_validator("indicator")
    @classmethod
    def _has_components(
        cls, indicator: RatioIndicator | LatencyIndicator
    ) -> RatioIndicator | LatencyIndicator:
        place: tuple[str, ...] = ("metric",)
        if isinstance(indicator, LatencyIndicator):
            metric = indicator.metric
        else:
            place, metric = ("total", "metric"), indicator.total.metric
        if "component" not in catalogue.BY_NAME[metric].labels:
            wrong = f"{metric} has no label component"
            expected = f"{catalogue.COMPONENT_CALLS.name} or {catalogue.COMPONENT_DURATION.name}"
            raise MistakesError([Mistake(place, wrong, expected, "count by one of these")])
        return indicator


class Service(Model):
    """How Prometheus knows the service."""

    job: JobName = "cmo"
    """Its scrape job."""
    probe_job: JobName = "probe"
    """The scrape job of the prober that asks it from outside."""
    restart_seconds: Annotated[int, Field(ge=1, le=3600), BeforeValidator(no_boolean)] = 60
    """How long a restart of a deploy may take: only what lasts longer is an outage."""


class Links(Model):
    """What the links of an alert begin with; a slash at the end is not needed."""

    runbooks: Text = "docs/runbooks"
    """A folder, or the address where it is published, without which a link on a phone leads nowhere."""
    dashboards: str = ""
    """Address of Grafana."""

    @field_validator("runbooks")
    @classmethod
    def _is_an_address_or_a_folder(cls, runbooks: str) -> str:
        wrong = wrong_with_address_or_folder(runbooks)
        if wrong:
            mend = "write one of these; a folder named like a host begins with ./"
            raise MistakesError([Mistake((), wrong, EXPECTED_ADDRESS_OR_FOLDER, mend)])
        return runbooks

    @field_validator("dashboards")
    @classmethod
    def _is_an_address(cls, dashboards: str) -> str:
        wrong = dashboards and wrong_with_address(dashboards)
        if wrong:
            raise MistakesError([Mistake((), wrong, EXPECTED_ADDRESS, "write the whole address")])
        return dashboards


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
    components: tuple[ComponentIndicator, ...] = ()
    """What is counted for each component, beside the objectives."""
    alerts: tuple[AnyAlert, ...] = ()
    """Alerts that belong to no objective."""

    @model_validator(mode="after")
    def _fits_together(self) -> Objectives:
        raise_if_any(whole_file_mistakes(self.model_dump(mode="json")))
        return self


def whole_file_mistakes(
    data: Mapping[str, Any], wrong: Collection[tuple[str | int, ...]] = ()
) -> list[Mistake]:
    """What is wrong with the parts of a file taken together, as far as ``data`` has them.

    Args:
        data: the fields of the file as they stand there. Whatever else may be wrong with them is passed over.
        wrong: where something else is wrong, so that nothing is said of what follows from that.
    """
    objectives = _entries(data, "objectives")
    alerts = _entries(data, "alerts")
    names: list[tuple[tuple[str | int, ...], object]] = [
        (("objectives", index, field, "alert"), _value(_value(objective, field), "alert"))
        for index, objective in enumerate(objectives)
        for field in ("page", "ticket")
    ]
    names += [(("alerts", index, "alert"), _value(alert, "alert")) for index, alert in enumerate(alerts)]
    mistakes = name_mistakes(
        _entries(data, "scenarios"),
        [_value(objective, "name") for objective in objectives],
        [_value(component, "name") for component in _entries(data, "components")],
        names,
    )
    for index, alert in enumerate(alerts):
        place = ("alerts", index)
        if _value(alert, "kind") == "no_traffic":
            mistakes += _counted_mistakes((*place, "objective"), _value(alert, "objective"), objectives)
        elif _value(alert, "kind") == "budget":
            for number, name in enumerate(_entries(alert, "objectives")):
                mistakes += _counted_mistakes((*place, "objectives", number), name, objectives)
            mistakes += _burn_mistakes((*place, "burn_rate_above"), alert, objectives)
    return [*mistakes, *alert_text_mistakes(data, wrong)]


def _value(entry: Any, field: str) -> Any:
    return entry.get(field) if isinstance(entry, dict) else None


def _entries(entry: Any, field: str) -> Sequence[Any]:
    value = _value(entry, field)
    return value if isinstance(value, list) else []


def _counted(objectives: Sequence[Any]) -> list[Any]:
    """Objectives that count events; one whose indicator is itself a mistake may."""
    others = [kind for kind, form in _FORMS.items() if form.unit != "ratio"]
    return [one for one in objectives if _value(_value(one, "indicator"), "kind") not in others]


def _counted_mistakes(place: tuple[str | int, ...], name: Any, objectives: Sequence[Any]) -> list[Mistake]:
    names = [_value(one, "name") for one in _counted(objectives)]
    if not isinstance(name, str) or name in names:
        return []
    known = [str(one) for one in names if one is not None]
    near = difflib.get_close_matches(name, known, n=1)
    expected = ", ".join(known) or "an objective on a ratio or a latency"
    mend = f"did you mean {near[0]}?" if near else "name one of these"
    return [Mistake(place, f"{name!r} is no objective that counts events", expected, mend)]


def _burn_mistakes(place: tuple[str | int, ...], alert: Any, objectives: Sequence[Any]) -> list[Mistake]:
    """A burn rate of 1 / (1 - target) or more asks for 100 % bad events or more."""
    names, burn_rate = _entries(alert, "objectives"), _value(alert, "burn_rate_above")
    targets = [_value(one, "target") for one in _counted(objectives) if _value(one, "name") in names]
    lowest = min((one for one in targets if isinstance(one, float) and 0 < one < 1), default=None)
    if lowest is None or not isinstance(burn_rate, int | float):
        return []
    most = 1 / (1 - lowest)
    if not burn_rate >= most:  # NaN is another's mistake
        return []
    wrong = (
        f"could never fire: at a target of {lowest:g} a burn rate above {burn_rate:g} takes more than "
        f"100 % bad events"
    )
    return [Mistake(place, wrong, f"a number below {most:.4g}", "lower it, or page on the share itself")]


def name_mistakes(
    scenarios: Sequence[object],
    objectives: Sequence[object],
    components: Sequence[object],
    alerts: Sequence[tuple[tuple[str | int, ...], object]],
) -> list[Mistake]:
    """What is wrong with the names of a file taken together.

    Args:
        scenarios: their names.
        objectives: their names.
        components: names of what is counted for each component.
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
        [(("components", index, "name"), name) for index, name in enumerate(components)],
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
