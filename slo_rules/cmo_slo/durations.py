"""Durations as any Prometheus rule file may have them, and as whole milliseconds, which add up and divide."""

from __future__ import annotations

import re
from typing import Final

MILLISECOND: Final = 1
SECOND: Final = 1000 * MILLISECOND
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
_WRITTEN: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND}
_READ: Final = {"y": 365 * DAY, "w": 7 * DAY, **_WRITTEN}
# Prometheus wants the units in this order, each at most once: `1h30m`, never `30m1h`.
_DURATION: Final = re.compile("".join(f"(?:(?P<{unit}>[0-9]{{1,18}}){unit})?" for unit in _READ), re.ASCII)


class DurationError(ValueError):
    """A text is no duration; the message says what one looks like."""


def parse_duration(text: str) -> int:
    """Milliseconds of a duration as Prometheus writes it: ``15s``, ``1h30m``, ``500ms``, ``4w``, ``0``.

    Raises:
        DurationError: it is none.
    """
    if text == "0":
        return 0
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        raise DurationError(f"{text!r} is no duration: expected one such as 15s, 1h30m or 500ms")
    parts = found.groupdict()
    return sum(int(parts[unit] or 0) * size for unit, size in _READ.items())


def duration(milliseconds: float) -> str:
    """A duration as people write it in a rule: the inverse of `parse_duration`, in days and smaller units."""
    left = round(milliseconds)
    sign = "-" if left < 0 else ""
    left, text = abs(left), ""
    for unit, size in _WRITTEN.items():
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return sign + (text or "0s")
