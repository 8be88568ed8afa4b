"""The service's own account of how it answered one query.

It is put into every response, and the load test compares it with the exporter's metrics. So the two must
not share an origin: the trail is written by the pipeline as things happen, and is never read back from the
exporter, nor the exporter fed from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SUCCESSFUL_SOURCES: Final = frozenset({"cache", "lightrag", "perplexity"})
_HTTP_STATUS: Final = {"timeout": 504, "rejected": 503}


@dataclass
class Trail:
    """What happened to one query, in the words of the metric catalogue."""

    outcome: str = "error"
    source: str | None = None
    cache: str = "bypass"
    tiers: list[tuple[str, str]] = field(default_factory=list)
    fallbacks: list[tuple[str, str, str]] = field(default_factory=list)
    retries: int = 0
    breaker: str = "closed"

    def looked_up(self, tier: str, result: str) -> None:
        """A cache tier was asked; ``result`` is hit, miss or error."""
        self.tiers.append((tier, result))

    def fell_back(self, source: str, target: str, reason: str) -> None:
        """``source`` could not answer, ``target`` was asked instead."""
        self.fallbacks.append((source, target, reason))

    def answered(self, source: str) -> None:
        """The answer came from ``source``; an apology is one, from ``default``, and is an error."""
        self.source = source
        self.outcome = "success" if source in SUCCESSFUL_SOURCES else "error"

    @property
    def http_status(self) -> int:
        """504 and 503 for a time-out and a refusal; 200 for all else: the CMO hides its failures so."""
        return _HTTP_STATUS.get(self.outcome, 200)

    def as_json(self) -> dict[str, object]:
        """The trail as responses carry it."""
        return {
            "outcome": self.outcome,
            "source": self.source,
            "cache": self.cache,
            "tiers": [list(step) for step in self.tiers],
            "fallbacks": [list(step) for step in self.fallbacks],
            "retries": self.retries,
            "breaker": self.breaker,
        }
