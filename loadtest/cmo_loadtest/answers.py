"""Read one answer of the service: what the user got, by the trail that the service puts into it.

The HTTP status says nothing about it, because the service hides failures behind apologies with status 200.
An answer without a readable trail is an error with its reason, never a guess in the service's favour.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

OUTCOMES: Final = ("success", "error", "timeout", "rejected")
"""What a trail can say; a user that left would have read no trail."""

_UNPROCESSABLE: Final = 422
_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True)
class Answer:
    """What one operation came to. ``error`` says why there is no trail to go by; empty where there is one."""

    outcome: str
    http_status: int | None = None
    source: str | None = None
    cache: str | None = None
    tiers: tuple[tuple[str, str], ...] = ()
    fallbacks: tuple[tuple[str, str, str], ...] = ()
    error: str = ""


def transport_failure(cause: BaseException) -> Answer:
    """No answer came: the connection was refused, reset, cut or silent for too long."""
    text = str(cause) or "no details"
    return Answer("error", error=f"{type(cause).__name__}: {text}")


def read_answer(http_status: int, body: bytes) -> Answer:
    """Read the trail in the body of a response, whatever its status.

    A 422 without a trail is the framework refusing a malformed request before any work, hence rejected.
    """
    try:
        content = json.loads(body)
        trail = content["trail"]
        outcome = trail["outcome"]
        if outcome not in OUTCOMES:
            return _unreadable(http_status, f"unknown outcome {str(outcome)[:_SHOWN_CHARACTERS]!r}")
        return Answer(
            outcome=outcome,
            http_status=http_status,
            source=trail.get("source"),
            cache=trail.get("cache"),
            tiers=tuple((tier, result) for tier, result in trail.get("tiers") or ()),
            fallbacks=tuple(
                (source, target, reason) for source, target, reason in trail.get("fallbacks") or ()
            ),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if http_status == _UNPROCESSABLE:
            return Answer("rejected", http_status, error="HTTP 422 without a trail")
        return _unreadable(http_status, _reason(error))


def _unreadable(http_status: int, reason: str) -> Answer:
    return Answer("error", http_status, error=f"HTTP {http_status} without a readable trail ({reason})")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "the body is not JSON"
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return "of another shape"


def record_fields(answer: Answer) -> dict[str, Any]:
    """The answer's part of a line in ``operations.jsonl``."""
    return {
        "http_status": answer.http_status,
        "outcome": answer.outcome,
        "source": answer.source,
        "cache": answer.cache,
        "tiers": answer.tiers,
        "fallbacks": answer.fallbacks,
        "error": answer.error,
    }
