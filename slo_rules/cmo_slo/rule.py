"""A Prometheus rule as plain data: what the compiler makes, and what is written down as YAML.

Also as the manifest of the Prometheus Operator, which holds the same groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cmo_slo.durations import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Rule:
    """One rule: it records a series, or raises an alert, never both.

    ``for_milliseconds`` is how long the expression must hold before the alert fires, and
    ``keep_firing_milliseconds`` for how long it fires on after it has ceased to.
    """

    expression: str
    record: str | None = None
    alert: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    for_milliseconds: int = 0
    keep_firing_milliseconds: int = 0

    def __post_init__(self) -> None:
        """Refuse a rule that neither records nor alerts, or does both, and a record that waits.

        Raises:
            ValueError: exactly one of ``record`` and ``alert`` must be given; only an alert can wait.
        """
        if (self.record is None) == (self.alert is None):
            raise ValueError("a rule either records a series or raises an alert")
        if self.record is not None and (self.for_milliseconds or self.keep_firing_milliseconds):
            raise ValueError("a recorded series neither waits nor lingers")

    def labelled(self, labels: Mapping[str, str]) -> Rule:
        """The same rule with more labels; its own win."""
        return replace(self, labels={**labels, **self.labels})


@dataclass(frozen=True)
class RuleGroup:
    """Rules evaluated one after the other, at the same instant; each sees what those before it recorded."""

    name: str
    interval_milliseconds: int
    rules: tuple[Rule, ...]


def labelled(rules: Iterable[Rule], labels: Mapping[str, str]) -> Iterator[Rule]:
    """The rules with more labels; their own win."""
    return (rule.labelled(labels) for rule in rules)


def as_document(groups: Sequence[RuleGroup]) -> dict[str, Any]:
    """A rule file as plain data, ready to be written as YAML."""
    return {
        "groups": [
            {
                "name": group.name,
                "interval": duration(group.interval_milliseconds),
                "rules": [_plain(rule) for rule in group.rules],
            }
            for group in groups
        ]
    }


def as_operator_manifest(name: str, groups: Sequence[RuleGroup]) -> dict[str, Any]:
    """The same groups as a ``PrometheusRule`` of the Prometheus Operator, called ``name``."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "cmo-observability"}},
        "spec": as_document(groups),
    }


def _plain(rule: Rule) -> dict[str, Any]:
    plain: dict[str, Any] = {"record": rule.record} if rule.record else {"alert": rule.alert}
    plain["expr"] = rule.expression
    if rule.for_milliseconds:
        plain["for"] = duration(rule.for_milliseconds)
    if rule.keep_firing_milliseconds:
        plain["keep_firing_for"] = duration(rule.keep_firing_milliseconds)
    if rule.labels:
        plain["labels"] = dict(rule.labels)
    if rule.annotations:
        plain["annotations"] = dict(rule.annotations)
    return plain
