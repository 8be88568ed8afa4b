"""When each user intends to ask: a pure function of scenario and seed.

Every user asks first in the opening window and last in the closing window, so that all users are held in
between, thinking time included. What lies between is spread evenly over users and time first, and then
warped by the pattern: a histogram over the stretch says which parts of it are busy.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from cmo_loadtest.scenarios import Pattern, Scenario, quotas

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPENING_FRACTION: Final = 0.1
_OPENING_SECONDS: Final = 1.0
_CLOSING_FRACTIONS: Final = (0.86, 0.98)
_JITTER: Final = 0.3  # of a user's own gap between two asks

# Busyness of equal parts of the stretch between the opening and the closing window.
_BUSYNESS: Final[dict[Pattern, tuple[float, ...]]] = {
    Pattern.SUSTAINED: (1.0,),
    # Three bursts of a fifteenth of the stretch each, with four fifths of the asks.
    Pattern.BURST: (1.0, 1.0, 16.0, 1.0, 1.0, 1.0, 1.0, 16.0, 1.0, 1.0, 1.0, 1.0, 16.0, 1.0, 1.0),
    # The 24 hours of a working day: a quiet night, a peak at ten, a lunch break, a second peak at fifteen.
    Pattern.REALISTIC: (
        1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 4.0, 7.0, 9.0, 10.0, 8.5,
        4.0, 5.0, 9.0, 9.5, 8.5, 7.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.0,
    ),
}  # fmt: skip


def opening_seconds(scenario: Scenario) -> float:
    """How long it takes from the scenario's start until every user has asked for the first time."""
    return min(_OPENING_FRACTION * scenario.duration_seconds, _OPENING_SECONDS)


def schedule(scenario: Scenario, seed: int) -> tuple[tuple[float, ...], ...]:
    """Intended start of every operation, in seconds from the scenario's start.

    Returns:
        One tuple of rising offsets for each user; their lengths are the quotas, and their sum is the
        scenario's operations.
    """
    draw = random.Random(f"schedule {scenario.name} {seed}")  # noqa: S311 - a seeded pattern, no secret
    opens = opening_seconds(scenario)
    closes, ends = (fraction * scenario.duration_seconds for fraction in _CLOSING_FRACTIONS)
    turns = list(range(scenario.users))
    draw.shuffle(turns)
    users = []
    for turn, quota in zip(turns, quotas(scenario.operations, scenario.users), strict=True):
        phase = turn / scenario.users
        between = [
            opens + (closes - opens) * _warp(position, _BUSYNESS[scenario.pattern])
            for position in _even_positions(quota - 2, phase, draw)
        ]
        users.append((opens * phase, *between, closes + (ends - closes) * phase))
    return tuple(users)


def _even_positions(count: int, phase: float, draw: random.Random) -> list[float]:
    """Rising positions in 0…1, one in each of ``count`` equal parts, at the user's phase with jitter."""
    places = ((phase + draw.uniform(-_JITTER, _JITTER) / 2) % 1.0 for _ in range(count))
    return [(part + place) / count for part, place in enumerate(places)]


def _warp(position: float, busyness: Sequence[float]) -> float:
    """Where an evenly spread position comes to lie when time is as busy as the histogram says."""
    heights = list(accumulate(busyness, initial=0.0))
    wanted = position * heights[-1]
    part = max(bisect_left(heights, wanted) - 1, 0)
    return (part + (wanted - heights[part]) / busyness[part]) / len(busyness)
