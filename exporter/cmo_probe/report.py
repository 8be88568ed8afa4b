"""What ``cmo probe --once`` prints: a table for people, JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_probe.prober import Asked

REPORT_VERSION: Final = 1
_HEAD: Final = ("canary", "result", "seconds", "first byte", "first token", "status", "source", "why")
_NUMBERS: Final = range(2, 6)


def as_table(asked: Sequence[Asked]) -> str:
    """One line a canary, and how many succeeded."""
    rows = [_HEAD, *(_row(one) for one in asked)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(_cell(row[at], widths[at], at) for at in range(len(_HEAD))).rstrip() for row in rows]
    good = sum(one.succeeded for one in asked)
    return "\n".join([*lines, "", f"{good} of {len(asked)} canaries succeeded."])


def as_json(asked: Sequence[Asked], url: str) -> str:
    """The same as one object; ``version`` changes when a field changes its meaning."""
    content = {"version": REPORT_VERSION, "url": url, "canaries": [one.as_json() for one in asked]}
    return json.dumps(content, indent=2)


def _row(one: Asked) -> tuple[str, ...]:
    exchange = one.exchange
    return (
        one.canary.name,
        one.result,
        _seconds(exchange.seconds),
        _seconds(exchange.first_byte_seconds),
        _seconds(exchange.first_token_seconds),
        "-" if exchange.http_status is None else str(exchange.http_status),
        (exchange.answer.source if exchange.answer else None) or "-",
        one.why,
    )


def _cell(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column in _NUMBERS else text.ljust(width)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
