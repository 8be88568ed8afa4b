"""The series that the rules of an objectives file record, with their fixed labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_slo.compile import compile_rules

if TYPE_CHECKING:
    from cmo_slo.model import Objectives


def recorded_series(objectives: Objectives) -> dict[str, dict[str, tuple[str, ...]]]:
    """Names of recorded series, with the labels that their rules set and the values that they set them to."""
    recorded: dict[str, dict[str, tuple[str, ...]]] = {}
    for group in compile_rules(objectives):
        for rule in group.rules:
            if rule.record:
                labels = recorded.setdefault(rule.record, {})
                for label, value in rule.labels.items():
                    labels[label] = tuple(sorted({*labels.get(label, ()), value}))
    return recorded
