"""Colours say what a verdict would: strict targets leave the target outside, and nothing is never well."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from cmo_dashboards.colours import (
    FAIL,
    NEUTRAL,
    PASS,
    WARN,
    budget_steps,
    colour_of,
    target_line,
    verdict_steps,
)
from cmo_slo.comparison import held_against
from cmo_slo.objectives import load_objectives, shipped_directory
from cmo_slo.verdict import Options, Status

if TYPE_CHECKING:
    from cmo_slo.model import Objective

OBJECTIVES = {item.name: item for item in load_objectives(shipped_directory() / "cmo-015.yml").objectives}
COLOURS = {Status.PASS: PASS, Status.WARN: WARN, Status.FAIL: FAIL}


@pytest.mark.parametrize(
    ("name", "value", "colour"),
    [
        ("success", 0.0, FAIL),
        ("success", 0.95, FAIL),
        ("success", 0.9501, WARN),
        ("success", 0.955, PASS),
        ("success", 1.0, PASS),
        ("memory_growth", 0.0, PASS),
        ("memory_growth", -2.5e6, PASS),
        ("memory_growth", 89.9e6, PASS),
        ("memory_growth", 90e6, PASS),
        ("memory_growth", math.nextafter(90e6, math.inf), WARN),
        ("memory_growth", 95e6, WARN),
        ("memory_growth", math.nextafter(100e6, 0.0), WARN),
        ("memory_growth", 100e6, FAIL),
        ("concurrent_users", 49.5, PASS),
        ("concurrent_users", 49.49, FAIL),
        ("no_catastrophic_failure", 0, PASS),
        ("no_catastrophic_failure", 1, FAIL),
    ],
)
def test_a_value_has_the_colour_of_its_verdict(name: str, value: float, colour: str) -> None:
    assert colour_of(value, verdict_steps(OBJECTIVES[name])) == colour


@pytest.mark.parametrize("name", ["success", "within_2s", "memory_growth", "cache_hits"])
def test_the_colours_change_where_the_verdict_does(name: str) -> None:
    objective = OBJECTIVES[name]
    target, band = Fraction(str(objective.target)), Fraction(str(objective.warning_band))
    for edge in (target, target - band, target + band):
        for value in (
            math.nextafter(float(edge), -math.inf),
            float(edge),
            math.nextafter(float(edge), math.inf),
        ):
            # As a verdict has it, a number of the file is a decimal, and so is a value that equals one.
            judged = edge if value == float(edge) else Fraction(value)
            status, _ = held_against(Options(), objective, judged, "the value")
            assert colour_of(value, verdict_steps(objective)) == COLOURS[status], (value, status)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_no_value_is_neutral(objective: Objective) -> None:
    assert colour_of(math.nan, verdict_steps(objective)) == NEUTRAL
    assert colour_of(-math.inf, verdict_steps(objective)) == NEUTRAL
    assert verdict_steps(objective)[0].value is None


@pytest.mark.parametrize("name", ["success", "within_2s", "cache_hits", "lightrag_healthy"])
def test_a_budget_has_the_colour_of_the_ratio_that_leaves_it(name: str) -> None:
    objective = OBJECTIVES[name]
    target, band = Fraction(str(objective.target)), Fraction(str(objective.warning_band))
    for edge in (target, target + band):
        for ratio in (edge - Fraction(1, 10**6), edge, edge + Fraction(1, 10**6)):
            left = float(1 - (1 - ratio) / (1 - target))
            status, _ = held_against(Options(), objective, ratio, "the value")
            assert colour_of(left, budget_steps(objective)) == COLOURS[status], (ratio, left)
    assert colour_of(-3.0, budget_steps(objective)) == FAIL
    assert colour_of(math.nan, budget_steps(objective)) == NEUTRAL


def test_a_miss_can_be_no_failure() -> None:
    steps = verdict_steps(OBJECTIVES["concurrent_users"], missed=NEUTRAL)
    assert colour_of(12, steps) == NEUTRAL
    assert colour_of(50, steps) == PASS


def test_the_line_is_at_the_target_itself() -> None:
    assert [step.value for step in target_line(OBJECTIVES["success"])] == [None, 0.95]
