"""The calibration: frozen, monotone in load, repeatable, and as its file says."""

from __future__ import annotations

import hashlib
from statistics import median, quantiles
from typing import TYPE_CHECKING

import pytest
from cmo_oracle.upstream.calibration import (
    CALIBRATIONS_FILE,
    Calibration,
    CalibrationError,
    Fate,
    Route,
    draw,
    load_calibration,
)

if TYPE_CHECKING:
    from pathlib import Path

# Verdicts are comparable only while the upstream behaves the same. A change is a new calibration: give it
# a new name, or say in docs/calibration.md and the change log why the old one had to go.
FROZEN = "b2b472e8757e642c9ec1f8374ad3549dc43293d1246a54e41346347ff739c7a0"


def _fates(calibration: Calibration, route: Route, in_flight: int, count: int = 4_000) -> list[Fate]:
    return [
        draw(calibration, route, seed=7, content=f"question {n}".encode(), attempt=0, in_flight=in_flight)
        for n in range(count)
    ]


def _share(fates: list[Fate], *faults: str) -> float:
    return sum(fate.fault in faults for fate in fates) / len(fates)


def test_calibrations_are_frozen() -> None:
    assert hashlib.sha256(CALIBRATIONS_FILE.read_bytes()).hexdigest() == FROZEN


@pytest.mark.parametrize(
    ("name", "route", "expected_median", "expected_p95"),
    [
        ("busy", "chat", 0.45, 1.5),
        ("busy", "perplexity", 0.7, 2.2),
        ("calm", "chat", 0.12, 0.3),
        ("calm", "perplexity", 0.3, 0.7),
    ],
)
def test_latency_at_low_load_is_as_documented(
    name: str, route: Route, expected_median: float, expected_p95: float
) -> None:
    seconds = [f.seconds for f in _fates(load_calibration(name), route, 1) if f.fault is None]
    assert median(seconds) == pytest.approx(expected_median, rel=0.06)
    assert quantiles(seconds, n=20)[18] == pytest.approx(expected_p95, rel=0.12)


@pytest.mark.parametrize(
    ("name", "route", "in_flight", "errors", "stalls"),
    [
        ("busy", "chat", 1, 0.015, 0.015),
        ("busy", "chat", 12, 0.015, 0.015),
        ("busy", "chat", 36, 0.08, 0.04),
        ("busy", "chat", 500, 0.08, 0.04),
        ("busy", "perplexity", 1, 0.03, 0.01),
        ("calm", "chat", 80, 0.002, 0.0),
        ("calm", "perplexity", 80, 0.003, 0.0),
    ],
)
def test_faults_are_as_documented(
    name: str, route: Route, in_flight: int, errors: float, stalls: float
) -> None:
    fates = _fates(load_calibration(name), route, in_flight, 20_000)
    assert _share(fates, "error", "unavailable") == pytest.approx(errors, abs=0.005)
    assert _share(fates, "stall") == pytest.approx(stalls, abs=0.005)


def test_busy_slows_down_beyond_twelve_calls_and_calm_does_not_at_two_hundred() -> None:
    busy, calm = load_calibration("busy"), load_calibration("calm")
    assert busy.slowdown(12) == 1.0
    assert busy.slowdown(36) == pytest.approx(2.0)
    assert calm.slowdown(200) == 1.0


def test_a_call_that_fails_at_low_load_never_succeeds_at_a_higher_one() -> None:
    busy = load_calibration("busy")
    for quiet, loaded in zip(_fates(busy, "chat", 1), _fates(busy, "chat", 40), strict=True):
        assert quiet.fault is None or loaded.fault is not None
        if quiet.fault is None and loaded.fault is None:
            assert loaded.seconds > quiet.seconds


def test_fate_depends_on_seed_content_and_attempt_alone() -> None:
    busy = load_calibration("busy")

    def fate(seed: int, content: bytes, attempt: int) -> Fate:
        return draw(busy, "chat", seed=seed, content=content, attempt=attempt, in_flight=1)

    assert fate(1, b"a", 0) == fate(1, b"a", 0)
    assert len({fate(1, b"a", 0).seconds, fate(2, b"a", 0).seconds, fate(1, b"b", 0).seconds,
                fate(1, b"a", 1).seconds}) == 4  # fmt: skip


def test_errors_are_both_500_and_503() -> None:
    fates = _fates(load_calibration("busy"), "chat", 40, 8_000)
    assert _share(fates, "error") == pytest.approx(_share(fates, "unavailable"), abs=0.02)


def test_unknown_calibration_names_those_there_are() -> None:
    with pytest.raises(CalibrationError, match=r"no calibration 'hectic'; there are: busy, calm"):
        load_calibration("hectic")


def test_a_wrong_field_is_named(tmp_path: Path) -> None:
    file = tmp_path / "calibrations.yml"
    file.write_text(CALIBRATIONS_FILE.read_text().replace("median_seconds: 0.45", "median_seconds: -1"))
    with pytest.raises(CalibrationError, match=r"busy\.routes\.chat\.median_seconds"):
        load_calibration("busy", file)
