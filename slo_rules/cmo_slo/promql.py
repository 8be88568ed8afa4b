"""The few forms of PromQL that compiled rules are written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_slo.durations import MILLISECOND, duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def selector(series: str, labels: Mapping[str, Sequence[str]], *more: str) -> str:
    """A selector of one series by the values that its labels may have; ``more`` are finished matchers."""
    matchers = [*(matcher(name, values) for name, values in labels.items()), *more]
    return f"{series}{{{','.join(matchers)}}}" if matchers else series


def matcher(name: str, values: Sequence[str]) -> str:
    """A matcher of any of some values; those of the catalogue are words, which a pattern reads literally."""
    return f'{name}="{values[0]}"' if len(values) == 1 else f'{name}=~"{"|".join(values)}"'


def edge(threshold_seconds: float) -> str:
    """A matcher of one bucket edge, which some expose as ``2.0`` and others as ``2``."""
    if threshold_seconds == int(threshold_seconds):
        whole = int(threshold_seconds)
        return f'le=~"{whole}|{whole}[.]0"'
    return f'le="{threshold_seconds}"'


def summed(series: str, window_milliseconds: int, *, ago_milliseconds: int = 0) -> str:
    """What a recorded series of increases adds up to in a window that ends now, or some time ago."""
    return f"sum_over_time({within(series, window_milliseconds, ago_milliseconds=ago_milliseconds)})"


def within(series: str, window_milliseconds: int, *, ago_milliseconds: int = 0) -> str:
    """The samples of a recorded series in a window that ends now, or some time ago.

    A range of the window less 1 ms holds the same samples whether its left end counts (Prometheus 2) or not.
    """
    offset = f" offset {duration(ago_milliseconds)}" if ago_milliseconds else ""
    return f"{series}[{duration(window_milliseconds - MILLISECOND)}]{offset}"


def or_zero(part: str, total: str) -> str:
    """A part of a total, 0 where it was never counted: an outage from the first query on must be seen."""
    return f"{part}\nor 0 * {total}"


def indented(expression: str, by: str = "  ") -> str:
    """An expression moved right, for use within parentheses."""
    return expression.replace("\n", f"\n{by}")
