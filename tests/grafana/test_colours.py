"""Colours say what a verdict would: strict targets leave the target outside, and nothing is never well."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from cmo_dashboards.breakers import LINE_COLOURS
from cmo_dashboards.colours import (
    COMPONENTS,
    FAIL,
    FREE,
    LINES,
    NEUTRAL,
    PASS,
    SOURCES,
    TIERS,
    WARN,
    budget_steps,
    colour_of,
    target_line,
    verdict_steps,
)
from cmo_exporter import catalogue
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


# What people without red, green or blue cones see, in linear light (Machado, Oliveira and Fernandes, 2009).
_VISIONS = {
    "all": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "no red": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "no green": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}
_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
_WHITE = (0.9505, 1.0, 1.089)
APART = 15.0
"""In CIELAB; 2 is the least that anybody sees, and Okabe and Ito's closest are 18 apart."""


def _through(matrix: tuple[tuple[float, ...], ...], colour: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, colour, strict=True)) for row in matrix)


def _seen(colour: str, vision: str) -> tuple[float, float, float]:
    """A colour in CIELAB, as it is seen."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    light = tuple(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    seen = tuple(min(1.0, max(0.0, part)) for part in _through(_VISIONS[vision], light))
    x, y, z = (
        part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116
        for part in (value / white for value, white in zip(_through(_TO_XYZ, seen), _WHITE, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("vision", _VISIONS)
@pytest.mark.parametrize(
    "colours",
    [
        (*COMPONENTS.values(), PASS, FAIL),
        (*TIERS.values(), PASS, FAIL),
        tuple(LINE_COLOURS[state] for state in LINE_COLOURS if state != "closed"),
        (*LINES, PASS, FAIL),
        tuple(SOURCES.values()),
    ],
    ids=["components", "tiers", "states", "lines", "sources"],
)
def test_lines_of_one_picture_are_told_apart_with_any_vision(colours: tuple[str, ...], vision: str) -> None:
    for one, other in combinations(colours, 2):
        assert math.dist(_seen(one, vision), _seen(other, vision)) > APART, (one, other)


def test_no_line_but_that_of_a_state_has_a_verdicts_colour() -> None:
    for colours in (COMPONENTS.values(), TIERS.values(), LINES, (FREE,)):
        assert not {PASS, WARN, FAIL} & set(colours)
    assert LINE_COLOURS.keys() == set(catalogue.BREAKER_STATES)
    assert len(set(LINE_COLOURS.values())) == len(LINE_COLOURS), "two states look alike"


def test_the_line_is_at_the_target_itself() -> None:
    assert [step.value for step in target_line(OBJECTIVES["success"])] == [None, 0.95]
