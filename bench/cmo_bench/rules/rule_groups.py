"""Rule groups as plain data, whoever has made them: read from a rule file, or written as one.

Read from the file that Prometheus loads, and not taken from the compiler: what is measured is what is
deployed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECOND: Final = 1000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
"""Milliseconds, as all durations here."""

_UNITS: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": 1}


@dataclass(frozen=True)
class Rule:
    """One rule: it records a series, or raises an alert."""

    expression: str
    record: str | None = None
    alert: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a rule that does neither or both.

        Raises:
            ValueError: exactly one of ``record`` and ``alert`` must be given.
        """
        if (self.record is None) == (self.alert is None):
            raise ValueError("a rule either records a series or raises an alert")


@dataclass(frozen=True)
class RuleGroup:
    """Rules evaluated one after the other, so often."""

    name: str
    interval_milliseconds: int
    rules: tuple[Rule, ...]


def parse_groups(text: str) -> tuple[RuleGroup, ...]:
    """The groups of a rule file, each of which has an interval."""
    return tuple(
        RuleGroup(
            group["name"],
            _milliseconds(group["interval"]),
            tuple(
                Rule(rule["expr"], rule.get("record"), rule.get("alert"), rule.get("labels") or {})
                for rule in group["rules"]
            ),
        )
        for group in yaml.safe_load(text)["groups"]
    )


def render_groups(groups: Sequence[RuleGroup]) -> str:
    """A rule file."""
    document = [
        {
            "name": group.name,
            "interval": duration(group.interval_milliseconds),
            "rules": [_plain(rule) for rule in group.rules],
        }
        for group in groups
    ]
    text: str = yaml.safe_dump({"groups": document}, sort_keys=False)
    return text


def duration(milliseconds: int) -> str:
    """A duration as Prometheus writes it."""
    text = ""
    for unit, size in _UNITS.items():
        count, milliseconds = divmod(milliseconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _milliseconds(text: str) -> int:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[dhms])", text))


def _plain(rule: Rule) -> dict[str, Any]:
    kind = {"record": rule.record} if rule.record else {"alert": rule.alert}
    return {**kind, "expr": rule.expression, **({"labels": dict(rule.labels)} if rule.labels else {})}
