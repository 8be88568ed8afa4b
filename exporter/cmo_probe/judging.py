"""Whether an answer is a good one, as a user would say who knows the right answer.

The service's own word is believed only where it speaks against itself: a trail that says `success` over an
apology or a wrong answer counts for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_exporter.catalogue import ProbeResult

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from cmo_probe.answers import Answer
    from cmo_probe.asking import Exchange
    from cmo_probe.canaries import Canary


def judge(
    canary: Canary, exchange: Exchange, apologies: Sequence[re.Pattern[str]]
) -> tuple[ProbeResult, str]:
    """The result, and why it is no success; the reason quotes neither question nor answer."""
    if exchange.failure is not None or exchange.answer is None:
        return exchange.failure or ProbeResult.INVALID, exchange.cause
    answer = exchange.answer
    if answer.source == "default":
        return ProbeResult.APOLOGY, "the trail says so"
    if any(pattern.search(answer.text) for pattern in apologies):
        return ProbeResult.APOLOGY, "the text says so"
    if answer.outcome not in (None, "success"):
        if answer.source is None:
            return ProbeResult.TRUNCATED, f"the trail's outcome is {answer.outcome}"
        return ProbeResult.DEGRADED, f"the trail's outcome is {answer.outcome}, its source {answer.source}"
    if why := _wrong(canary, answer):
        return ProbeResult.WRONG_ANSWER, why
    if canary.sources and answer.source not in canary.sources:
        unnamed = "a source that is not named: answer with a trail, or take sources out of the canary"
        return ProbeResult.WRONG_SOURCE, f"from {answer.source or unnamed}"
    if exchange.seconds > canary.maximum_seconds:
        return ProbeResult.TOO_SLOW, f"more than {canary.maximum_seconds:g} s"
    return ProbeResult.SUCCESS, ""


def _wrong(canary: Canary, answer: Answer) -> str:
    text = answer.text.casefold()
    lacking = [expected for expected in canary.must_contain if expected.casefold() not in text]
    if lacking:
        return f"lacks {len(lacking)} of {len(canary.must_contain)} expected texts"
    if canary.must_match is not None and not canary.must_match.search(answer.text):
        return "must_match is not found"
    return ""
