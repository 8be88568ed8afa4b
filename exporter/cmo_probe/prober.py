"""Ask the canaries one after another: once, or for ever at an interval; count each, and log each failure."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cmo_exporter.catalogue import ProbeResult

from cmo_probe.asking import Exchange, Service, ask
from cmo_probe.judging import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_probe.canaries import Canaries, Canary
    from cmo_probe.metrics import ProbeMetrics


@dataclass(frozen=True)
class Asked:
    """One question that was asked, what came of it, and what that is worth."""

    canary: Canary
    result: ProbeResult
    why: str
    exchange: Exchange

    @property
    def succeeded(self) -> bool:
        """Whether a user would have been content."""
        return self.result is ProbeResult.SUCCESS

    def as_json(self) -> dict[str, Any]:
        """All of it that holds neither question nor answer; None for what there was not."""
        exchange, answer = self.exchange, self.exchange.answer
        return {
            "canary": self.canary.name,
            "result": str(self.result),
            "why": self.why,
            "http_status": exchange.http_status,
            "seconds": _rounded(exchange.seconds),
            "first_byte_seconds": _rounded(exchange.first_byte_seconds),
            "first_token_seconds": _rounded(exchange.first_token_seconds),
            "connection_seconds": {
                step: _rounded(seconds) for step, seconds in exchange.connection_seconds.items()
            },
            "trail_outcome": answer.outcome if answer else None,
            "trail_source": answer.source if answer else None,
        }


def ask_each_once(service: Service, canaries: Canaries) -> Iterator[Asked]:
    """Every canary, in the order of the file."""
    return (_asked(service, canaries, canary) for canary in canaries.canaries)


def ask_for_ever(
    service: Service,
    canaries: Canaries,
    metrics: ProbeMetrics,
    *,
    interval_seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Ask one canary each interval, round and round, until an exception (a signal) ends it.

    A question that takes longer than the interval delays the next one; none is asked beside another, and
    none is made up for.
    """
    waiting = threading.Event()
    due = time.monotonic()
    for canary in itertools.cycle(canaries.canaries):
        asked = _asked(service, canaries, canary)
        metrics.record(canary.name, asked.result, asked.exchange)
        if not asked.succeeded:
            tell(failure_line(asked))
        due = max(due + interval_seconds, time.monotonic())
        waiting.wait(due - time.monotonic())


def failure_line(asked: Asked) -> str:
    """One line of JSON for the log."""
    return json.dumps({"time": _now(), "level": "warning", "event": "probe_failed", **asked.as_json()})


def _asked(service: Service, canaries: Canaries, canary: Canary) -> Asked:
    exchange = ask(service, canary)
    return Asked(canary, *judge(canary, exchange, canaries.apologies), exchange)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
