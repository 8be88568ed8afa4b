"""Compiled rules with shorter hours, so that a test can wait for some: every duration divided by one number.

Exactly, or not at all: a duration that does not divide by it is an error, because a window that is rounded
holds other samples than the one that is tested.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cmo_slo.durations import MILLISECOND, duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

_RANGE = re.compile(r"(?<=\[)[\dhmsd]+(?=\])")
_SECONDS_OF_WINDOW = re.compile(r"(?<=\) / )\d+(?=, 1\)$)")
_LOOK_BACK = re.compile(r"(?<=\[)[\dhmsd]+(?=\] offset 1ms\))|(?<= < )\d+(?=\)\))")


def faster_hours(document: dict[str, Any], factor: int) -> dict[str, Any]:
    """The rules with hours, and what is made of hours, ``factor`` times as short; alerts are left out.

    Long windows are evaluated every second instead of every minute. The groups of other durations (events,
    objectives) stay as they are.

    Raises:
        ValueError: a duration cannot be divided exactly.
    """

    def shorter(group: dict[str, Any]) -> dict[str, Any]:
        if not group["name"].endswith(("-hourly", "-long-windows")):
            return group
        hourly = group["name"].endswith("-hourly")
        interval = divided_duration(group["interval"], factor) if hourly else "1s"
        return {**group, "interval": interval, "rules": [faster_rule(one, factor) for one in group["rules"]]}

    groups = [shorter(group) for group in document["groups"]]
    recording = [
        {**group, "rules": [rule for rule in group["rules"] if "record" in rule]} for group in groups
    ]
    return {"groups": [group for group in recording if group["rules"]]}


def faster_rule(rule: dict[str, Any], factor: int) -> dict[str, Any]:
    """A rule on hours, its ranges and the length of its window in seconds divided.

    Raises:
        ValueError: one of them cannot be divided exactly.
    """
    expression = _replaced(_RANGE, rule["expr"], lambda text: divided_duration(text, factor))
    return {**rule, "expr": _replaced(_SECONDS_OF_WINDOW, expression, lambda text: _divided(text, factor))}


def divided_duration(text: str, factor: int) -> str:
    """A duration divided; one that lacks a millisecond of a whole one lacks it afterwards, too.

    Raises:
        ValueError: it cannot be divided exactly.
    """
    milliseconds = parse_duration(text)
    lacks = MILLISECOND if milliseconds % 1000 == 999 else 0
    whole, rest = divmod(milliseconds + lacks, factor)
    if rest or not whole:
        raise ValueError(f"{text} is no multiple of {factor} ms")
    return duration(whole - lacks)


def with_look_back(document: dict[str, Any], seconds: int) -> dict[str, Any]:
    """The rules, with another age up to which a checkpoint is what the next increase is taken from."""

    def changed(rule: dict[str, Any]) -> dict[str, Any]:
        if not (rule.get("record", "").startswith("slo:") and rule["record"].endswith(":increase")):
            return rule
        expression, times = _LOOK_BACK.subn(
            lambda found: f"{seconds}s" if found[0].endswith("m") else str(seconds), rule["expr"]
        )
        assert times == 3, rule["expr"]
        return {**rule, "expr": expression}

    return {
        "groups": [{**group, "rules": list(map(changed, group["rules"]))} for group in document["groups"]]
    }


def _divided(text: str, factor: int) -> str:
    whole, rest = divmod(int(text), factor)
    if rest:
        raise ValueError(f"{text} s is no multiple of {factor} s")
    return str(whole)


def _replaced(pattern: re.Pattern[str], text: str, by: Callable[[str], str]) -> str:
    return pattern.sub(lambda found: by(found[0]), text)
