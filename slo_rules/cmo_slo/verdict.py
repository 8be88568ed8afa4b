"""What is said of a run and of each objective, and how the one follows from the other.

Plain data, that `cmo_slo.judge` fills in and `cmo_slo.report` writes down, and the precedence of a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from cmo_slo.model import Scope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cmo_slo.confidence import Interval
    from cmo_slo.count import ScenarioCount
    from cmo_slo.model import Objective, Objectives
    from cmo_slo.samples import Target

OVERALL: Final = Scope.OVERALL.value


class Status(StrEnum):
    """What is said of one objective."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    WARN = "WARN"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Outcome(StrEnum):
    """What is said of a run."""

    COMPLIANT = "COMPLIANT"
    NON_COMPLIANT = "NON-COMPLIANT"
    INCONCLUSIVE = "INCONCLUSIVE"


_CREDIT: Final = {
    Status.PASS: Fraction(1),
    Status.WARN: Fraction(1, 2),
    Status.FAIL: Fraction(0),
    Status.INCONCLUSIVE: Fraction(0),
}
_WORST_FIRST: Final = (Status.FAIL, Status.INCONCLUSIVE, Status.WARN, Status.PASS)


@dataclass(frozen=True)
class Options:
    """``confidence``: an interval that holds the target is INCONCLUSIVE. ``strict``: a WARN is a FAIL."""

    confidence: bool = False
    strict: bool = False


@dataclass(frozen=True)
class Unit:
    """One objective in one scope: a scenario, or all of them pooled.

    ``value`` is in the objective's unit. ``good`` and ``total`` are events, for ratios. ``details`` are
    further numbers by name, ``series`` the names of the series that the value was made from.
    """

    scope: str
    status: Status
    reason: str
    value: float | None = None
    good: int | None = None
    total: int | None = None
    interval: Interval | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    series: tuple[str, ...] = ()


def inconclusive(scope: str, reason: str) -> Unit:
    """A unit of which nothing is known but why."""
    return Unit(scope, Status.INCONCLUSIVE, reason)


@dataclass(frozen=True)
class Result:
    """One objective with its units; its status is that of the worst."""

    objective: Objective
    units: tuple[Unit, ...]

    @property
    def status(self) -> Status:
        """FAIL before INCONCLUSIVE before WARN before PASS."""
        found = {unit.status for unit in self.units}
        return next(status for status in _WORST_FIRST if status in found)


@dataclass(frozen=True)
class Verdict:
    """What is said of a run, and all it rests on.

    ``score`` is the share of the objectives' weight that passes, a WARN counting half. ``partial`` tells that
    only some of the scenarios of the objectives were asked for.
    """

    outcome: Outcome
    reason: str
    score: Fraction
    results: tuple[Result, ...]
    counts: tuple[ScenarioCount, ...]
    problems: tuple[str, ...]
    targets: tuple[Target, ...]
    partial: bool


def exact(number: float) -> Fraction:
    """The decimal fraction that was written, and not the binary one that stands for it: 0.95 is 19/20."""
    return Fraction(str(number))


def score_of(results: Sequence[Result], unknown: Fraction = Fraction(0)) -> Fraction:
    """The share of the weight that passes; ``unknown`` is what an INCONCLUSIVE objective counts."""
    credit = {**_CREDIT, Status.INCONCLUSIVE: unknown}
    weights = [exact(result.objective.weight) for result in results]
    gained = sum(weight * credit[one.status] for weight, one in zip(weights, results, strict=True))
    return Fraction(gained) / sum(weights)


def outcome_of(results: Sequence[Result], objectives: Objectives) -> tuple[Outcome, str]:
    """The verdict by precedence: key failures, then key doubts, then the score."""
    failed = [one.objective.title for one in results if one.objective.key and one.status is Status.FAIL]
    doubtful = [
        one.objective.title for one in results if one.objective.key and one.status is Status.INCONCLUSIVE
    ]
    if failed:
        return Outcome.NON_COMPLIANT, f"Failed: {', '.join(failed)}."
    if doubtful:
        return Outcome.INCONCLUSIVE, f"Could not be judged: {', '.join(doubtful)}."
    needed = exact(objectives.compliant_score)
    score, at_best = score_of(results), score_of(results, Fraction(1))
    shown = f"score {float(score):.2f} of {objectives.compliant_score:g} needed"
    if score >= needed:
        return Outcome.COMPLIANT, f"Every key objective holds; {shown}."
    if at_best >= needed:
        return Outcome.INCONCLUSIVE, f"Too much could not be judged: {shown}."
    return Outcome.NON_COMPLIANT, f"Too little passes without a warning: {shown}."
