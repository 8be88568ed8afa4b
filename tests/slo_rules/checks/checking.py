"""How the tests of the checks write rule files and ask one check about them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml
from cmo_slo.checks import CHECKS, Context, Finding, RuleDocument, Severity, read_rules
from cmo_slo.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

DAYS_40 = parse_duration("40d")


def alert(expression: str, name: str = "SomethingWrong", **fields: Any) -> dict[str, Any]:
    """One alert that pages."""
    return {"alert": name, "expr": expression, "labels": {"severity": "page"}, **fields}


def record(name: str, expression: str, **labels: str) -> dict[str, Any]:
    """One recording rule."""
    return {"record": name, "expr": expression, **({"labels": labels} if labels else {})}


def group(*rules: dict[str, Any], name: str = "group", interval: str | None = None) -> dict[str, Any]:
    """One group of rules."""
    return {"name": name, **({"interval": interval} if interval else {}), "rules": list(rules)}


def rule_file(*groups: dict[str, Any]) -> str:
    """A rule file of these groups."""
    return yaml.safe_dump({"groups": list(groups)}, sort_keys=False)


def documents(*texts: str) -> tuple[RuleDocument, ...]:
    """Rule files that must be readable, named rules-0.yml and so on."""
    found: list[RuleDocument] = []
    for number, text in enumerate(texts):
        read = read_rules(text, f"rules-{number}.yml")
        assert read.findings == (), [str(finding) for finding in read.findings]
        found += read.documents
    return tuple(found)


def findings(check: str, *texts: str, **context: Any) -> list[Finding]:
    """What one check finds in files that are loaded together."""
    found = list(CHECKS[check](documents(*texts), replace(Context(), **context)))
    for finding in found:
        assert finding.check == check
        assert finding.line > 0
        assert finding.wrong
        assert "; " in finding.mend, f"{finding.mend!r} must say what was expected, and how to mend it"
    return found


def in_rules(
    check: str, *rules: dict[str, Any], interval: str | None = None, **context: Any
) -> list[Finding]:
    """What one check finds in one group of rules."""
    return findings(check, rule_file(group(*rules, interval=interval)), **context)


def severities(found: Sequence[Finding]) -> list[Severity]:
    """Their severities, in order."""
    return [finding.severity for finding in found]


ERROR, WARNING = Severity.ERROR, Severity.WARNING
