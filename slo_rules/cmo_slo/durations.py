"""Durations as Prometheus writes them, and as whole milliseconds, in which they can be added and divided."""

from __future__ import annotations

import re
from typing import Final

MILLISECOND: Final = 1
SECOND: Final = 1000 * MILLISECOND
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
_UNITS: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND}
_DURATION: Final = re.compile(r"(\d+)(ms|[dhms])")


class DurationError(ValueError):
    """A text is no duration; the message says what one looks like."""


def parse_duration(text: str) -> int:
    """Milliseconds of a duration as Prometheus writes it: ``15s``, ``1m30s``, ``500ms``.

    Raises:
        DurationError: it is none.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise DurationError(f"{text!r} is no duration: expected one such as 15s, 1m30s or 500ms.")
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def duration(milliseconds: int) -> str:
    """A duration as Prometheus writes it; the inverse of `parse_duration`."""
    text = ""
    for unit, size in _UNITS.items():
        count, milliseconds = divmod(milliseconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"
