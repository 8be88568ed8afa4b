"""How long the stub takes and how often it fails, as data, and the seeded draw of one call's fate.

A call's fate depends on the seed, on what is asked and on how often it has been asked, never on the order
of arrival, so that a run can be repeated although its calls race each other. Load decides only how the
same random numbers are read: more calls in flight stretch the latency and widen the share that fails.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Route = Literal["chat", "embeddings", "perplexity"]
Fault = Literal["error", "unavailable", "rate_limit", "stall"]

CALIBRATIONS_FILE: Final = Path(__file__).with_name("calibrations.yml")
_Z95: Final = NormalDist().inv_cdf(0.95)


class CalibrationError(Exception):
    """A calibration is missing or malformed; the message says which field, and what was expected."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FaultShare(_Frozen):
    """Probability of a fault: up to capacity, and from saturation on; linear between."""

    quiet: float = Field(ge=0, le=1)
    loaded: float = Field(ge=0, le=1)

    def at(self, load: float) -> float:
        """The probability at a load between 0 (capacity or below) and 1 (saturation or above)."""
        return self.quiet + (self.loaded - self.quiet) * load


class RouteCalibration(_Frozen):
    """One route: its latency at low load in seconds, and its faults."""

    median_seconds: float = Field(gt=0)
    p95_seconds: float = Field(gt=0)
    error: FaultShare
    rate_limit: FaultShare
    stall: FaultShare

    def latency_seconds(self, uniform: float) -> float:
        """The lognormal quantile at ``uniform`` (0 to 1)."""
        sigma = math.log(self.p95_seconds / self.median_seconds) / _Z95
        return self.median_seconds * math.exp(sigma * NormalDist().inv_cdf(uniform))


class Calibration(_Frozen):
    """One calibration of the whole stub."""

    capacity: int = Field(gt=0)
    saturation: int = Field(gt=0)
    stretch: float = Field(ge=0)
    stall_seconds: float = Field(gt=0)
    routes: dict[Route, RouteCalibration]

    def load(self, in_flight: int) -> float:
        """How far the calls in flight are from capacity (0) to saturation (1)."""
        span = self.saturation - self.capacity
        return (
            min(1.0, max(0.0, (in_flight - self.capacity) / span))
            if span > 0
            else float(in_flight > self.capacity)
        )

    def slowdown(self, in_flight: int) -> float:
        """The factor on latency: 1 up to capacity, then growing with every call."""
        return 1.0 + self.stretch * max(0.0, in_flight / self.capacity - 1.0)


@dataclass(frozen=True)
class Fate:
    """What becomes of one call: how long it takes in seconds, and the fault it ends in, if any."""

    seconds: float
    fault: Fault | None


def load_calibration(name: str, file: Path = CALIBRATIONS_FILE) -> Calibration:
    """Read one calibration.

    Raises:
        CalibrationError: there is no such calibration, or a field is wrong.
    """
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    if name not in document:
        raise CalibrationError(f"{file}: no calibration '{name}'; there are: {', '.join(sorted(document))}.")
    try:
        return Calibration.model_validate(document[name])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CalibrationError(f"{file}: {name}.{where}: {first['msg']}.") from error


def draw(
    calibration: Calibration, route: Route, *, seed: int, content: bytes, attempt: int, in_flight: int
) -> Fate:
    """Decide a call's fate from its own random numbers and the calls in flight.

    Args:
        calibration: the behaviour to draw from.
        route: which of its routes.
        seed: the run's seed.
        content: what tells this request from others.
        attempt: how often it has been asked before.
        in_flight: calls under way, this one included.
    """
    behaviour = calibration.routes[route]
    for_latency, for_fault, for_status = _uniforms(f"{seed}|{route}|{attempt}|".encode() + content)
    load = calibration.load(in_flight)
    seconds = behaviour.latency_seconds(for_latency) * calibration.slowdown(in_flight)
    stall, rate_limit = behaviour.stall.at(load), behaviour.rate_limit.at(load)
    if for_fault < stall:
        return Fate(calibration.stall_seconds, "stall")
    if for_fault < stall + rate_limit:
        return Fate(0.01, "rate_limit")  # a rate limiter stands in front of the model and answers at once
    if for_fault < stall + rate_limit + behaviour.error.at(load):
        return Fate(seconds, "error" if for_status < 0.5 else "unavailable")
    return Fate(seconds, None)


def _uniforms(key: bytes) -> tuple[float, float, float]:
    digest = hashlib.blake2b(key, digest_size=24).digest()
    numbers = (int.from_bytes(digest[start : start + 8], "little") for start in (0, 8, 16))
    first, second, third = ((number + 0.5) / 2**64 for number in numbers)
    # 2**64 - 0.5 rounds up to 1.0 in a float, and the normal quantile of 1 is infinite.
    return min(first, 1 - 1e-12), second, third
