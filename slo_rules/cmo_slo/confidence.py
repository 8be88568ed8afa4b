"""How far a counted ratio may be from the true one, given that failures come in clusters.

A breaker opens, a provider stalls: one cause fails many questions in a row, so n questions tell less than n
independent ones. The interval is Wilson's (E. B. Wilson, JASA 22, 1927, 209-212), on an effective number of
events n / deff. The design effect deff is L. Kish's (Survey Sampling, 1965, chapter 5): the variance of the
ratio between blocks of time, by the usual ratio-to-size estimator for unequal clusters (W. G. Cochran,
Sampling Techniques, 3rd edition, 1977, chapter 9A),

    v = k / (k - 1) * sum((x_i - p * n_i) ** 2) / n ** 2

over the k blocks with n_i events, x_i of them good, divided by the variance p (1 - p) / n of independent
events. Blocks are scrape intervals, and 2, 4, 8 … of them joined while at least 8 blocks are left; the
largest design effect counts, because a cluster can be longer than a scrape interval. It is never below 1.
In a single block no cluster can be seen, and all of it may be one: n events tell no more than one does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_slo.count import Blocks

Z_95: Final = 1.959963984540054
_FEWEST_BLOCKS: Final = 8
METHOD: Final = "Wilson 95 %, effective events = events / design effect over blocks of scrape intervals"


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a ratio, and the design effect that it was widened by."""

    low: float
    high: float
    design_effect: float

    def straddles(self, target: float) -> bool:
        """Whether the target is within, so that chance alone could have decided."""
        return self.low <= target <= self.high


def interval(good: Blocks, total: Blocks) -> Interval:
    """The interval of the ratio of all good to all total events.

    Args:
        good: good events by target (or scenario) and scrape interval.
        total: all events, in the same places.

    Raises:
        ValueError: there are no events.
    """
    x, n = sum(map(sum, good)), sum(map(sum, total))
    if n <= 0:
        raise ValueError("a ratio of no events has no interval")
    effect = _design_effect(good, total)
    low, high = wilson(x, n, n / effect)
    return Interval(low, high, effect)


def wilson(good: float, total: float, effective: float) -> tuple[float, float]:
    """Wilson's 95 % interval of good / total, as if ``effective`` events had been seen."""
    p = good / total
    z2 = Z_95**2 / effective
    centre = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (p * (1 - p) + z2 / 4)) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def _design_effect(good: Blocks, total: Blocks) -> float:
    effect, length = 1.0, 1
    longest = max(map(len, total))
    while length <= longest:
        pairs = [
            (sum(x[at : at + length]), sum(n[at : at + length]))
            for x, n in zip(good, total, strict=True)
            for at in range(0, len(n), length)
        ]
        pairs = [pair for pair in pairs if pair[1] > 0]
        if length == 1 and len(pairs) == 1:
            good_events, events = pairs[0]
            return events if 0 < good_events < events else effect
        if len(pairs) < 2 or (length > 1 and len(pairs) < _FEWEST_BLOCKS):
            return effect
        effect = max(effect, _effect_of(pairs))
        length *= 2
    return effect


def _effect_of(pairs: Sequence[tuple[float, float]]) -> float:
    n = sum(total for _, total in pairs)
    p = sum(good for good, _ in pairs) / n
    independent = p * (1 - p) / n
    if independent <= 0:
        return 1.0
    k = len(pairs)
    between = k / (k - 1) * sum((good - p * total) ** 2 for good, total in pairs) / n**2
    return between / independent
