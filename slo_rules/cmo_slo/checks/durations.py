"""Durations as any Prometheus rule file may have them, in weeks and years too, which our files never use."""

from __future__ import annotations

import re
from typing import Final

SECOND_MILLISECONDS: Final = 1000
MINUTE_MILLISECONDS: Final = 60 * SECOND_MILLISECONDS
HOUR_MILLISECONDS: Final = 60 * MINUTE_MILLISECONDS
DAY_MILLISECONDS: Final = 24 * HOUR_MILLISECONDS

_UNIT_MILLISECONDS: Final = {
    "y": 365 * DAY_MILLISECONDS,
    "w": 7 * DAY_MILLISECONDS,
    "d": DAY_MILLISECONDS,
    "h": HOUR_MILLISECONDS,
    "m": MINUTE_MILLISECONDS,
    "s": SECOND_MILLISECONDS,
    "ms": 1,
}
# Prometheus wants the units in this order, each at most once: `1h30m`, never `30m1h`.
_DURATION: Final = re.compile(
    "".join(f"(?:(?P<{unit}>[0-9]{{1,18}}){unit})?" for unit in _UNIT_MILLISECONDS), re.ASCII
)


class DurationError(ValueError):
    """The text is no duration; the message says what one looks like."""


def parse_duration(text: str) -> int:
    """Milliseconds of a duration as Prometheus writes it: ``15s``, ``1h30m``, ``500ms``, ``4w``, ``0``.

    Raises:
        DurationError: it is none.
    """
    if text == "0":
        return 0
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        raise DurationError(f"{text!r} is no duration: expected one such as 15s, 1h30m or 4w")
    parts = found.groupdict()
    return sum(int(parts[unit] or 0) * size for unit, size in _UNIT_MILLISECONDS.items())


def format_duration(milliseconds: float) -> str:
    """A duration as people write it in a rule: the inverse of `parse_duration`, in days and smaller units."""
    left = round(milliseconds)
    sign = "-" if left < 0 else ""
    left, text = abs(left), ""
    for unit, size in _UNIT_MILLISECONDS.items():
        if unit in ("y", "w"):
            continue
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return sign + (text or "0s")
