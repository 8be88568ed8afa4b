"""How a source of answers says that it has none: with one of the catalogue's reasons for a fallback."""

from __future__ import annotations

from typing import Final

from cmo_exporter.catalogue import FALLBACK_REASONS

API_TIMEOUT: Final = "api_timeout"
CIRCUIT_BREAKER_OPEN: Final = "circuit_breaker_open"
SERVICE_UNAVAILABLE: Final = "service_unavailable"
UNKNOWN_ERROR: Final = "unknown_error"

WORTH_RETRYING: Final = frozenset({API_TIMEOUT, "api_error", "rate_limit", SERVICE_UNAVAILABLE})
"""Reasons that may be gone a moment later. Low confidence or a spent budget will not be."""


class SourceFailedError(Exception):
    """A source of answers has failed. Holds a reason and no provider's text, which may quote a question."""

    def __init__(self, reason: str) -> None:
        self.reason = reason if reason in FALLBACK_REASONS else UNKNOWN_ERROR
        super().__init__(self.reason)


def describe(error: BaseException) -> str:
    """What went wrong and where, for a log: the class and the line, without the message.

    A library's message, and so its traceback, may quote the question that was asked.
    """
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    where = "" if step is None else f" at {step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
    return type(error).__name__ + where
