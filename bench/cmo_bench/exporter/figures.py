"""What is made of repeated measurements: medians, quartiles, and how far chance alone could move a ratio.

Variants are measured in turn, round by round, so what slows the machine for a while slows all of them. What a
variant adds is therefore taken within each round, and only then summarised.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_RESAMPLES: Final = 1000
_SEED: Final = 15
_LOW, _HIGH = 0.025, 0.975


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of these values, of which there are two or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.low:.1f} to {self.high:.1f})"


@dataclass(frozen=True)
class Estimate:
    """A number, and the interval in which 95 % of its bootstrap resamples lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def estimate(rounds: int, figure: Callable[[Sequence[int]], float]) -> Estimate:
    """A figure made of some of the rounds: of all of them, and of resamples of them."""
    draw = random.Random(_SEED)  # noqa: S311 - chance, not secrets; the same rounds give the same interval
    everything = range(rounds)
    resampled = sorted(figure(draw.choices(everything, k=rounds)) for _ in range(_RESAMPLES))
    return Estimate(figure(everything), resampled[int(_LOW * _RESAMPLES)], resampled[int(_HIGH * _RESAMPLES)])


@dataclass(frozen=True)
class Rounds:
    """One number for each variant and round.

    Attributes:
        values: the numbers of each variant, in the order of the rounds.
        base: the variant to which the others add.
    """

    values: Mapping[str, Sequence[float]]
    base: str

    def spread(self, variant: str) -> Spread:
        """The variant's own numbers."""
        return Spread.of(self.values[variant])

    def added(self, variant: str) -> list[float]:
        """What the variant adds to the base, in each round."""
        return [own - bare for own, bare in zip(self.values[variant], self.values[self.base], strict=True)]

    def share(self, variant: str, other: str) -> Estimate:
        """What one variant adds, as a share of what another adds: a ratio of medians."""
        return _ratio(self.added(variant), self.added(other))

    def ratio(self, variant: str, other: str) -> Estimate:
        """One variant's own numbers over another's: a ratio of medians."""
        return _ratio(self.values[variant], self.values[other])


def _ratio(own: Sequence[float], others: Sequence[float]) -> Estimate:
    def ratio(rounds: Sequence[int]) -> float:
        divisor = statistics.median([others[index] for index in rounds])
        return statistics.median([own[index] for index in rounds]) / divisor if divisor else float("inf")

    return estimate(len(own), ratio)
