"""The rules that some alerts need, verbatim from a compiled file: promtool evaluates all that it is given."""

from __future__ import annotations

import re
from typing import Any

_SELECTOR = re.compile(r"([a-z_]+:[\w:]+)(?:\{([^}]*)\})?")
_OBJECTIVE = re.compile(r'objective=~?"([^"]*)"')
_FIRING = re.compile(r'ALERTS\{[^}]*alertname=~?"([^"]*)"')
_MATCHER = re.compile(r'(\w+)(=~?)"([^"]*)"')


def rules_of_alert(document: dict[str, Any], *alerts: str) -> dict[str, Any]:
    """The same groups in the same order, with the rules that the alerts read, directly or not."""
    everything = [rule for group in document["groups"] for rule in group["rules"]]
    own = [rule["expr"] for rule in everything if rule.get("alert") in alerts]
    asked = {alert for expression in own for alert in _asked(expression)}
    own += [rule["expr"] for rule in everything if rule.get("alert") in asked]
    objectives = {name for names in _OBJECTIVE.findall("\n".join(own)) for name in names.split("|")}
    # A window is recorded for all objectives at once: what others count is nothing to this alert.
    everything = [
        rule
        for rule in everything
        if not objectives or rule.get("labels", {}).get("objective") in (None, *objectives)
    ]
    wanted: list[dict[str, Any]] = []
    waiting = [rule for rule in everything if rule.get("alert") in alerts]
    while waiting:
        rule = waiting.pop()
        if rule not in wanted:
            wanted.append(rule)
            waiting += [one for one in everything if _reads(rule, one)]
    groups = [
        {**group, "rules": [rule for rule in group["rules"] if rule in wanted]}
        for group in document["groups"]
    ]
    return {"groups": [group for group in groups if group["rules"]]}


def _asked(expression: str) -> set[str]:
    """The alerts of which an expression asks whether they fire."""
    return {alert for names in _FIRING.findall(expression) for alert in names.split("|")}


def _reads(rule: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a rule selects what another records, as far as the labels say that the other sets itself.

    Or asks whether it fires.
    """
    return other.get("alert", "") in _asked(rule["expr"]) or any(
        name == other.get("record") and _selects(matchers, other["labels"])
        for name, matchers in _SELECTOR.findall(rule["expr"])
    )


def _selects(matchers: str, labels: dict[str, str]) -> bool:
    for name, operator, value in _MATCHER.findall(matchers):
        if name in labels:
            allowed = [value] if operator == "=" else value.split("|")
            if labels[name] not in allowed:
                return False
    return True
