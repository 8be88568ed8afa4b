"""The objectives model: what is promised, measured by what, judged how.

Plain data and nothing else; reading files is `cmo_slo.objectives`, and every consumer (compiler, checker,
dashboards) takes its metric names, thresholds and targets from here, so that they cannot disagree. Terms are
OpenSLO's: an objective has an indicator and a target; an indicator counts good events of total events.

What a type cannot say, a validator here does, and it reports every mistake it sees (`MistakesError`), because
a person mends a file faster from one list than from a list a run.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from cmo_exporter import catalogue
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

Labels = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Mistake:
    """One thing wrong in an objectives file: where (from the enclosing model), what, and how to mend it."""

    field: tuple[str | int, ...]
    wrong: str
    expected: str
    mend: str


class MistakesError(ValueError):
    """All that a validator found wrong with one model."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(f"{mistake.wrong}; expected {mistake.expected}" for mistake in mistakes))


def _no_boolean(value: Any) -> Any:
    # YAML reads a bare yes or on as true, and Python takes true for 1: a target of 1.0 that nobody meant.
    if isinstance(value, bool):
        raise MistakesError([Mistake((), f"{str(value).lower()} is no number", "a number", "write a number")])
    return value


Number = Annotated[float, BeforeValidator(_no_boolean)]
Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0.0, le=1.0)]
Positive = Annotated[float, BeforeValidator(_no_boolean), Field(gt=0.0)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
LabelValues = dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]

OVERALL_SCENARIO: Final = "overall"
"""What reports call all of a run's scenarios pooled; no scenario can have this name."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


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


def _raise_if_any(mistakes: Sequence[Mistake]) -> None:
    if mistakes:
        raise MistakesError(mistakes)


def _unknown_metric(field: str, name: str) -> Mistake:
    near = difflib.get_close_matches(name, catalogue.BY_NAME, n=1)
    mend = f"did you mean {near[0]}?" if near else "take the name from exporter/cmo_exporter/catalogue.py"
    return Mistake((field,), f"unknown metric {name!r}", "a metric of the catalogue", mend)


def _metric_mistakes(field: str, name: str, kind: catalogue.Kind) -> list[Mistake]:
    metric = catalogue.BY_NAME.get(name)
    if metric is None:
        return [_unknown_metric(field, name)]
    if metric.kind is not kind:
        return [
            Mistake((field,), f"{name} is a {metric.kind}", f"a {kind}", f"name a {kind} of the catalogue")
        ]
    return []


def _label_mistakes(field: tuple[str, ...], metric_name: str, labels: Labels) -> list[Mistake]:
    metric = catalogue.BY_NAME.get(metric_name)
    if metric is None:
        return []
    mistakes = []
    for name, values in labels.items():
        where = (*field, name)
        if name not in metric.labels:
            known = ", ".join(metric.labels) or "no labels at all"
            mistakes.append(
                Mistake(where, f"{metric_name} has no label {name!r}", known, "name one of its labels")
            )
            continue
        allowed = metric.labels[name]
        mistakes += [
            Mistake(
                (*where, index),
                f"{value!r} is no value of label {name!r}",
                f"one of {', '.join(allowed)}",
                "name one of these",
            )
            for index, value in enumerate(values)
            if allowed is not None and value not in allowed
        ]
        mistakes += [
            Mistake((*where, index), f"{value!r} stands there twice", "each value once", "delete one")
            for index, value in enumerate(values)
            if value in values[:index]
        ]
    return mistakes


def _outside(part: Labels, whole: Labels) -> list[str]:
    """What of ``part`` a selection by ``whole`` does not hold, in words; empty when it holds all of it."""
    missing = []
    for name, values in whole.items():
        beyond = [value for value in part.get(name, ()) if value not in values]
        if name not in part:
            missing.append(f"any {name}")
        elif beyond:
            missing.append(f"{name} {', '.join(beyond)}")
    return missing


class Events(_Model):
    """Events counted by one metric: those whose labels have any of the given values."""

    metric: str
    labels: LabelValues = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> Events:
        if self.metric not in catalogue.BY_NAME:
            raise MistakesError([_unknown_metric("metric", self.metric)])
        _raise_if_any(_label_mistakes(("labels",), self.metric, self.labels))
        return self


class RatioIndicator(_Model):
    """Good events of total events."""

    kind: Literal["ratio"]
    good: Events
    total: Events

    @model_validator(mode="after")
    def _good_is_part_of_total(self) -> RatioIndicator:
        mistakes = _metric_mistakes("good", self.good.metric, catalogue.Kind.COUNTER)
        mistakes += _metric_mistakes("total", self.total.metric, catalogue.Kind.COUNTER)
        if self.good.metric != self.total.metric:
            mistakes.append(
                Mistake(
                    ("good",),
                    f"good events count {self.good.metric}, total events {self.total.metric}",
                    "one metric for both, so that good events are part of the total",
                    "tell good from total by labels",
                )
            )
        elif outside := _outside(self.good.labels, self.total.labels):
            mistakes.append(
                Mistake(
                    ("good",),
                    f"the total leaves out good events with {' and '.join(outside)}",
                    "good events that are all part of the total",
                    "add these values to total, or take them from good",
                )
            )
        elif not _outside(self.total.labels, self.good.labels):
            mistakes.append(
                Mistake(
                    ("good",),
                    "every event of the total is good",
                    "good events that some of the total are not",
                    "name the label values that are good",
                )
            )
        _raise_if_any(mistakes)
        return self


class LatencyIndicator(_Model):
    """Events within a threshold, of all events: what a latency quantile target means, without an estimator.

    ``metric`` is a histogram with an edge at exactly ``threshold_seconds``. Good are the events with labels
    ``good`` at or under the threshold; the total are all events with labels ``total`` but those that have
    labels ``excluded_within_threshold`` and are at or under the threshold (users who left before it).
    """

    kind: Literal["latency"]
    metric: str
    threshold_seconds: Positive
    quantile: Fraction
    good: LabelValues = Field(default_factory=dict)
    total: LabelValues = Field(default_factory=dict)
    excluded_within_threshold: LabelValues = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> LatencyIndicator:
        mistakes = _metric_mistakes("metric", self.metric, catalogue.Kind.HISTOGRAM)
        if mistakes:
            raise MistakesError(mistakes)
        parts = {
            "good": self.good,
            "total": self.total,
            "excluded_within_threshold": self.excluded_within_threshold,
        }
        for field, labels in parts.items():
            mistakes += _label_mistakes((field,), self.metric, labels)
        buckets = catalogue.BY_NAME[self.metric].buckets
        if self.threshold_seconds not in buckets:
            mistakes.append(
                Mistake(
                    ("threshold_seconds",),
                    f"{self.metric} has no bucket edge at {self.threshold_seconds} s",
                    f"one of its edges: {', '.join(map(str, buckets))}",
                    "choose an edge, or add this one to the catalogue",
                )
            )
        mistakes += self._part_mistakes()
        _raise_if_any(mistakes)
        return self

    def _part_mistakes(self) -> list[Mistake]:
        mistakes = [
            Mistake(
                (field,),
                f"the total leaves out events with {' and '.join(outside)}",
                f"{field} to be part of the total",
                f"add these values to total, or take them from {field}",
            )
            for field, labels in (
                ("good", self.good),
                ("excluded_within_threshold", self.excluded_within_threshold),
            )
            if (labels or field == "good") and (outside := _outside(labels, self.total))
        ]
        excluded = self.excluded_within_threshold
        # Two selections of one metric meet unless some label has values in both and none in common.
        apart = any(
            set(self.good[name]).isdisjoint(values) for name, values in excluded.items() if name in self.good
        )
        if excluded and not apart:
            mistakes.append(
                Mistake(
                    ("excluded_within_threshold",),
                    "an event can be good and excluded at once",
                    "good and excluded events to differ in a label",
                    "name a label value in one of them only",
                )
            )
        return mistakes


class HeldLevelIndicator(_Model):
    """A level held throughout a run, from the rise of an integral over the rise of its clock.

    Every interval between two samples must have a mean of at least ``1 - tolerance`` of the target.
    """

    kind: Literal["held"]
    integral: str
    clock: str
    tolerance: Annotated[Fraction, Field(lt=1.0)] = 0.01
    """Below 1, because nobody at all would hold any level with a tolerance of 1."""

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> HeldLevelIndicator:
        _raise_if_any(
            [
                *_metric_mistakes("integral", self.integral, catalogue.Kind.COUNTER),
                *_metric_mistakes("clock", self.clock, catalogue.Kind.COUNTER),
            ]
        )
        return self


class GrowthIndicator(_Model):
    """The growth of a level: its peak in the window minus its last value before the window."""

    kind: Literal["growth"]
    peak: Events
    base: Events

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> GrowthIndicator:
        _raise_if_any(
            [
                *_metric_mistakes("peak", self.peak.metric, catalogue.Kind.GAUGE),
                *_metric_mistakes("base", self.base.metric, catalogue.Kind.GAUGE),
            ]
        )
        return self


class ContinuityIndicator(_Model):
    """Catastrophes: restarts of a process in the window, and scenarios without a single success."""

    kind: Literal["continuity"]
    start_time: str
    successes: Events

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> ContinuityIndicator:
        _raise_if_any(
            [
                *_metric_mistakes("start_time", self.start_time, catalogue.Kind.GAUGE),
                *_metric_mistakes("successes", self.successes.metric, catalogue.Kind.COUNTER),
            ]
        )
        return self


Indicator = Annotated[
    RatioIndicator | LatencyIndicator | HeldLevelIndicator | GrowthIndicator | ContinuityIndicator,
    Field(discriminator="kind"),
]


class Page(_Model):
    """A page to on-call on live traffic: when the ratio of bad events is above a limit over two windows."""

    alert: Annotated[str, Field(pattern=r"^CMO[A-Za-z0-9]+$")]
    bad_ratio_above: Annotated[float, BeforeValidator(_no_boolean), Field(ge=0.0, lt=1.0)]
    """Below 1, because no ratio is above 1: such a page could never fire."""
    minimum_bad_events: Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
    """Bad events that the longer window must hold, so that one failure at night wakes nobody."""
    summary: Text
    runbook: Text


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


class Objective(_Model):
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
    warning_band: Annotated[float, BeforeValidator(_no_boolean), Field(ge=0.0)] = 0.0
    """How close to the target a pass is a WARN, in the target's unit."""
    minimum_events: Count = 0
    """Fewer events than this are INCONCLUSIVE."""
    page: Page | None = None

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
        if self.page is not None and form.unit != "ratio":
            mistakes.append(
                Mistake(
                    ("page",), f"a {kind} has no bad events", "a page on a ratio or a latency", "remove it"
                )
            )
        _raise_if_any([*mistakes, *self._target_mistakes()])
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


def repeated(names: Sequence[object]) -> list[int]:
    """Places in a list of names at which a name stands again."""
    return [index for index, name in enumerate(names) if name in names[:index]]


class Objectives(_Model):
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
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_told_apart(self) -> Objectives:
        _raise_if_any(
            name_mistakes(
                self.scenarios,
                [objective.name for objective in self.objectives],
                [objective.page.alert if objective.page else None for objective in self.objectives],
            )
        )
        return self


def name_mistakes(
    scenarios: Sequence[object], objectives: Sequence[object], alerts: Sequence[object | None]
) -> list[Mistake]:
    """What is wrong with the names of a file taken together; ``alerts`` has ``None`` for no page."""
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
    places: tuple[tuple[Sequence[object | None], str, tuple[str, ...]], ...] = (
        (scenarios, "scenarios", ()),
        (objectives, "objectives", ("name",)),
        (alerts, "objectives", ("page", "alert")),
    )
    for names, field, rest in places:
        mistakes += [
            Mistake(
                (field, index, *rest), f"{names[index]!r} stands there twice", "each name once", "rename one"
            )
            for index in repeated(names)
            if names[index] is not None
        ]
    return mistakes
