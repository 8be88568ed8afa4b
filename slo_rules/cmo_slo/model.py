"""The objectives model: what is promised, measured by what, judged how.

Plain data and nothing else; reading files is `cmo_slo.objectives`, and every consumer (compiler, checker,
dashboards) takes its metric names, thresholds and targets from here, so that they cannot disagree. Terms are
OpenSLO's: an objective has an indicator and a target; an indicator counts good events of total events.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from cmo_exporter import catalogue
from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class Events(_Model):
    """Events counted by one metric: those whose labels have any of the given values."""

    metric: str
    labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> Events:
        metric = catalogue.BY_NAME.get(self.metric)
        if metric is None:
            raise ValueError(f"unknown metric {self.metric!r}; the catalogue of the exporter has the names")
        for name, values in self.labels.items():
            if name not in metric.labels:
                raise ValueError(f"{self.metric} has no label {name!r}; it has {', '.join(metric.labels)}")
            allowed = metric.labels[name]
            for value in values:
                if allowed is not None and value not in allowed:
                    raise ValueError(
                        f"{value!r} is no value of label {name!r}; allowed: {', '.join(allowed)}"
                    )
        return self


class RatioIndicator(_Model):
    """Good events of total events."""

    kind: Literal["ratio"]
    good: Events
    total: Events


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
    good: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    total: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    excluded_within_threshold: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> LatencyIndicator:
        for labels in (self.good, self.total, self.excluded_within_threshold):
            Events(metric=self.metric, labels=labels)
        buckets = catalogue.BY_NAME[self.metric].buckets
        if self.threshold_seconds not in buckets:
            edges = ", ".join(str(edge) for edge in buckets) or "none: it is no histogram"
            raise ValueError(
                f"{self.metric} has no bucket edge at {self.threshold_seconds} s; its edges: {edges}"
            )
        return self


class HeldLevelIndicator(_Model):
    """A level held throughout a run, from the rise of an integral over the rise of its clock.

    Every interval between two samples must have a mean of at least ``1 - tolerance`` of the target.
    """

    kind: Literal["held"]
    integral: str
    clock: str
    tolerance: Fraction = 0.01


class GrowthIndicator(_Model):
    """The growth of a level: its peak in the window minus its last value before the window."""

    kind: Literal["growth"]
    peak: Events
    base: Events


class ContinuityIndicator(_Model):
    """Catastrophes: restarts of a process in the window, and scenarios without a single success."""

    kind: Literal["continuity"]
    start_time: str
    successes: Events


Indicator = Annotated[
    RatioIndicator | LatencyIndicator | HeldLevelIndicator | GrowthIndicator | ContinuityIndicator,
    Field(discriminator="kind"),
]


class Page(_Model):
    """A page to on-call on live traffic: when the ratio of bad events is above a limit over two windows."""

    alert: Annotated[str, Field(pattern=r"^CMO[A-Za-z0-9]+$")]
    bad_ratio_above: Fraction
    minimum_bad_events: Annotated[int, Field(ge=1)]
    summary: str
    runbook: str


class Objective(_Model):
    """One promise. ``warning_band`` is how close to the target a pass is a WARN, in the target's unit."""

    name: Identifier
    title: str
    description: str
    indicator: Indicator
    operator: Operator
    target: float
    unit: Literal["ratio", "users", "bytes", "events"]
    judged: Annotated[tuple[Scope, ...], Field(min_length=1)]
    key: bool
    weight: Positive
    warning_band: Annotated[float, Field(ge=0.0)] = 0.0
    minimum_events: Annotated[int, Field(ge=0)] = 0
    page: Page | None = None


class Objectives(_Model):
    """A whole objectives file.

    ``scenarios`` are those that a run must hold. ``cancelled_limit`` is the share of queries that users may
    leave before a verdict is INCONCLUSIVE. ``compliant_score`` is the weighted score that COMPLIANT needs.
    """

    version: Literal["cmo-slo/v1"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    requirement: str
    scenarios: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    cancelled_limit: Fraction = 0.02
    compliant_score: Fraction = 0.8
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_name_twice(self) -> Objectives:
        names = [objective.name for objective in self.objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"objectives named twice: {', '.join(twice)}")
        return self
