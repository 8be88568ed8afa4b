"""Rule files as frozen data, whoever wrote them: what the checks are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmo_slo.checks.promql import Expression

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Rule:
    """One rule. Times are in milliseconds; ``expression`` is ``None`` where ``text`` does not parse."""

    text: str
    expression: Expression | None
    line: int
    record: str | None = None
    alert: str | None = None
    hold: int = 0
    keep_firing: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        """Refuse a rule that neither records nor alerts, or does both.

        Raises:
            ValueError: exactly one of ``record`` and ``alert`` must be given.
        """
        if (self.record is None) == (self.alert is None):
            raise ValueError("a rule either records a series or raises an alert")

    @property
    def name(self) -> str:
        """What it records, or the alert that it raises."""
        return self.record or self.alert or ""

    @property
    def severity(self) -> str:
        """Its label of that name, empty where it has none."""
        return self.labels.get("severity", "")


@dataclass(frozen=True)
class Group:
    """Rules evaluated one after the other; ``interval`` is in milliseconds, ``None`` for Prometheus' own."""

    name: str
    line: int
    rules: tuple[Rule, ...]
    interval: int | None = None


@dataclass(frozen=True)
class RuleDocument:
    """One document of rules; ``native`` unless it is a manifest, which promtool cannot read."""

    file: str
    groups: tuple[Group, ...]
    native: bool = True
