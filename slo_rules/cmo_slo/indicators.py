"""Indicators: what an objective is measured by, and how good is told from bad.

One model a kind, with what makes one of them meaningless. Metrics and labels are held against the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cmo_exporter import catalogue
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cmo_slo.mistakes import (
    Mistake,
    MistakesError,
    label_mistakes,
    metric_mistakes,
    raise_if_any,
    unknown_metric,
)

Labels = Mapping[str, tuple[str, ...]]


def no_boolean(value: Any) -> Any:
    """Refuse true and false where a number belongs.

    Raises:
        MistakesError: the value is a boolean.
    """
    # YAML reads a bare yes or on as true, and Python takes true for 1: a target of 1.0 that nobody meant.
    if isinstance(value, bool):
        raise MistakesError([Mistake((), f"{str(value).lower()} is no number", "a number", "write a number")])
    return value


Fraction = Annotated[float, Field(ge=0.0, le=1.0), BeforeValidator(no_boolean)]
Positive = Annotated[float, Field(gt=0.0), BeforeValidator(no_boolean)]
LabelValues = dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]


class Model(BaseModel):
    """A part of an objectives file: what it does not know it refuses, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


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


class Events(Model):
    """Events counted by one metric: those whose labels have any of the given values."""

    metric: str
    labels: LabelValues = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> Events:
        if self.metric not in catalogue.BY_NAME:
            raise MistakesError([unknown_metric("metric", self.metric)])
        raise_if_any(label_mistakes(("labels",), self.metric, self.labels))
        return self


class RatioIndicator(Model):
    """Good events of total events."""

    kind: Literal["ratio"]
    good: Events
    total: Events

    @model_validator(mode="after")
    def _good_is_part_of_total(self) -> RatioIndicator:
        mistakes = metric_mistakes("good", self.good.metric, catalogue.Kind.COUNTER)
        mistakes += metric_mistakes("total", self.total.metric, catalogue.Kind.COUNTER)
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
        raise_if_any(mistakes)
        return self


class LatencyIndicator(Model):
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
        mistakes = metric_mistakes("metric", self.metric, catalogue.Kind.HISTOGRAM)
        if mistakes:
            raise MistakesError(mistakes)
        parts = {
            "good": self.good,
            "total": self.total,
            "excluded_within_threshold": self.excluded_within_threshold,
        }
        for field, labels in parts.items():
            mistakes += label_mistakes((field,), self.metric, labels)
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
        raise_if_any(mistakes)
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


class HeldLevelIndicator(Model):
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
        raise_if_any(
            [
                *metric_mistakes("integral", self.integral, catalogue.Kind.COUNTER),
                *metric_mistakes("clock", self.clock, catalogue.Kind.COUNTER),
            ]
        )
        return self


class GrowthIndicator(Model):
    """The growth of a level: its peak in the window minus its last value before the window."""

    kind: Literal["growth"]
    peak: Events
    base: Events

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> GrowthIndicator:
        raise_if_any(
            [
                *metric_mistakes("peak", self.peak.metric, catalogue.Kind.GAUGE),
                *metric_mistakes("base", self.base.metric, catalogue.Kind.GAUGE),
            ]
        )
        return self


class ContinuityIndicator(Model):
    """Catastrophes: restarts of a process in the window, and scenarios without a single success."""

    kind: Literal["continuity"]
    start_time: str
    successes: Events

    @model_validator(mode="after")
    def _known_to_the_catalogue(self) -> ContinuityIndicator:
        raise_if_any(
            [
                *metric_mistakes("start_time", self.start_time, catalogue.Kind.GAUGE),
                *metric_mistakes("successes", self.successes.metric, catalogue.Kind.COUNTER),
            ]
        )
        return self


Indicator = Annotated[
    RatioIndicator | LatencyIndicator | HeldLevelIndicator | GrowthIndicator | ContinuityIndicator,
    Field(discriminator="kind"),
]
