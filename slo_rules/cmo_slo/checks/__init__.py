"""Policy checks of rule files, one file each: what Prometheus and promtool accept without a word, wrongly.

A check takes the files that one Prometheus loads together and what is known of how it runs, and yields
findings. Adding one is a file here with its entry in ``CHECKS``, a page in ``docs/rules-check/`` and a test
file in ``tests/slo_rules/checks/``, all of its name. Nothing here reads or writes a file.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cmo_slo.checks import (
    attainability,
    cost,
    duplicates,
    guards,
    inhibition,
    matching,
    names,
    policy,
    runbook,
    templates,
    time_to_reach,
    windows,
)
from cmo_slo.checks.context import Context
from cmo_slo.checks.finding import Check, Finding, Severity
from cmo_slo.checks.rule_document import ReadFile, read_rules
from cmo_slo.checks.rules import RuleDocument

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = [
    "CHECKS",
    "Check",
    "Context",
    "Finding",
    "ReadFile",
    "RuleDocument",
    "Severity",
    "read_rules",
    "run_checks",
]

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "attainability": attainability.check,
        "time_to_reach": time_to_reach.check,
        "windows": windows.check,
        "guards": guards.check,
        "names": names.check,
        "matching": matching.check,
        "policy": policy.check,
        "templates": templates.check,
        "runbook": runbook.check,
        "duplicates": duplicates.check,
        "inhibition": inhibition.check,
        "cost": cost.check,
    }
)
"""Every check by its name, which is also the name of its file, its page and its tests."""


def run_checks(
    documents: Sequence[RuleDocument], context: Context, disabled: Collection[str] = ()
) -> Iterator[Finding]:
    """All findings of all checks that are not disabled, on files that are loaded together."""
    for name, check in CHECKS.items():
        if name not in disabled:
            yield from check(documents, context)
