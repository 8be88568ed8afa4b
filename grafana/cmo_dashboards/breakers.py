"""States of circuit breakers as numbers: in words, in fixed colours, and of several workers the worst."""

from __future__ import annotations

from typing import Final

from cmo_exporter import catalogue

from cmo_dashboards.colours import FAIL, NEUTRAL, WARN

BREAKER_STATES: Final = (
    ("closed", NEUTRAL),
    ("maintenance", WARN),
    ("budget_limited", WARN),
    ("rate_limited", WARN),
    ("degraded", WARN),
    ("half_open", WARN),
    ("open", FAIL),
)
"""With their colours, best first; the number of a state is its place, from 1 on."""
BEST: Final = 1
WORST: Final = len(BREAKER_STATES)
VALUE_TEXTS: Final = tuple(
    (float(number), state) for number, (state, _) in enumerate(BREAKER_STATES, start=BEST)
)
LINE_COLOURS: Final = {
    "closed": NEUTRAL,
    "maintenance": "#56B4E9",
    "budget_limited": "#CC79A7",
    "rate_limited": "#0072B2",
    "degraded": "#F0E442",
    "half_open": WARN,
    "open": FAIL,
}
"""Of lines that are named by a state: there no word stands in the colour, so no two have the same."""
VALUE_COLOURS: Final = tuple(
    (float(number), colour) for number, (_, colour) in enumerate(BREAKER_STATES, start=BEST)
)


def worst_state(by: str, *matchers: str) -> str:
    """The number of the worst state that any breaker is in, by some labels."""
    name = catalogue.BREAKER_STATE.name
    narrowed = "".join(f", {matcher}" for matcher in matchers)
    numbers = (
        f'({name}{{state="{state}"{narrowed}}} == 1) * {number}'
        for number, (state, _) in enumerate(BREAKER_STATES, start=BEST)
    )
    return f"max by ({by}) ({' or '.join(numbers)})"
