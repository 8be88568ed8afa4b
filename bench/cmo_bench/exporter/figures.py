"""What is made of repeated measurements: medians, quartiles, and how far chance alone could move a ratio.

Variants are measured in turn, round by round, so what slows the machine for a while slows all of them. What a
variant adds is therefore taken within each round, and only then summarised.

Rounds that were measured in the same processes make a draw. Chance moves them together, because the same code
in another process is slower or faster: a resample is therefore made of draws, and of rounds within each.
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
    """A number, and the interval in which 95 % of its bootstrap resamples lie.

    The interval covers what differs from round to round and from draw to draw, the latter roughly: draws are
    few. It does not cover what differs from machine to machine.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def estimate(rounds: int, figure: Callable[[Sequence[int]], float], draws: int = 1) -> Estimate:
    """A figure made of some of the rounds: of all of them, and of resamples of them.

    Args:
        rounds: how many there are.
        figure: makes it of the numbers of rounds.
        draws: how many draws the rounds are of, as many of each, one draw after the other.
    """
    chance = random.Random(_SEED)  # noqa: S311 - not secrets; the same rounds give the same interval
    resampled = sorted(figure(_resample(chance, rounds, draws)) for _ in range(_RESAMPLES))
    low, high = resampled[int(_LOW * _RESAMPLES)], resampled[int(_HIGH * _RESAMPLES)]
    return Estimate(figure(range(rounds)), low, high)


def _resample(chance: random.Random, rounds: int, draws: int) -> list[int]:
    size = rounds // draws
    firsts = chance.choices(range(0, rounds, size), k=draws)
    return [one for first in firsts for one in chance.choices(range(first, first + size), k=size)]


@dataclass(frozen=True)
class Rounds:
    """One number for each variant and round.

    Attributes:
        values: the numbers of each variant, in the order of the rounds.
        base: the variant to which the others add.
        draws: how many draws the rounds are of, as many of each.
    """

    values: Mapping[str, Sequence[float]]
    base: str
    draws: int = 1

    def spread(self, variant: str) -> Spread:
        """The variant's own numbers."""
        return Spread.of(self.values[variant])

    def added(self, variant: str) -> list[float]:
        """What the variant adds to the base, in each round."""
        return [own - bare for own, bare in zip(self.values[variant], self.values[self.base], strict=True)]

    def share(self, variant: str, other: str) -> Estimate:
        """What one variant adds, as a share of what another adds: a ratio of medians, draw by draw."""
        return _ratio(self.added(variant), self.added(other), self.draws)

    def ratio(self, variant: str, other: str) -> Estimate:
        """One variant's own numbers over another's: a ratio of medians, draw by draw."""
        return _ratio(self.values[variant], self.values[other], self.draws)


def _ratio(own: Sequence[float], others: Sequence[float], draws: int) -> Estimate:
    """The median of the draws' ratios: the machine may be faster in one draw than in the next."""
    size = len(own) // draws

    def ratio_of_draw(rounds: Sequence[int]) -> float:
        divisor = statistics.median([others[index] for index in rounds])
        return statistics.median([own[index] for index in rounds]) / divisor if divisor else float("inf")

    def ratio(rounds: Sequence[int]) -> float:
        return statistics.median(
            [ratio_of_draw(rounds[first : first + size]) for first in range(0, len(rounds), size)]
        )

    return estimate(len(own), ratio, draws)
