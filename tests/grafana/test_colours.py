"""Colours say what a verdict would: strict targets leave the target outside, and nothing is never well."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from cmo_dashboards.colours import FAIL, NEUTRAL, PASS, WARN, colour_of, target_line, verdict_steps
from cmo_slo.objectives import load_objectives, shipped_directory

if TYPE_CHECKING:
    from cmo_slo.model import Objective

OBJECTIVES = {item.name: item for item in load_objectives(shipped_directory() / "cmo-015.yml").objectives}


@pytest.mark.parametrize(
    ("name", "value", "colour"),
    [
        ("success", 0.0, FAIL),
        ("success", 0.95, FAIL),
        ("success", 0.9501, WARN),
        ("success", 0.955, PASS),
        ("success", 1.0, PASS),
        ("memory_growth", 0.0, PASS),
        ("memory_growth", 89.9e6, PASS),
        ("memory_growth", 95e6, WARN),
        ("memory_growth", 100e6, FAIL),
        ("concurrent_users", 49.5, PASS),
        ("concurrent_users", 49.49, FAIL),
        ("no_catastrophic_failure", 0, PASS),
        ("no_catastrophic_failure", 1, FAIL),
    ],
)
def test_a_value_has_the_colour_of_its_verdict(name: str, value: float, colour: str) -> None:
    assert colour_of(value, verdict_steps(OBJECTIVES[name])) == colour


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_no_value_is_neutral(objective: Objective) -> None:
    assert colour_of(math.nan, verdict_steps(objective)) == NEUTRAL
    assert colour_of(-math.inf, verdict_steps(objective)) == NEUTRAL
    assert verdict_steps(objective)[0].value is None


def test_a_miss_can_be_no_failure() -> None:
    steps = verdict_steps(OBJECTIVES["concurrent_users"], missed=NEUTRAL)
    assert colour_of(12, steps) == NEUTRAL
    assert colour_of(50, steps) == PASS


def test_the_line_is_at_the_target_itself() -> None:
    assert [step.value for step in target_line(OBJECTIVES["success"])] == [None, 0.95]
