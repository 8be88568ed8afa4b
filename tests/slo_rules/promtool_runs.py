"""Runs of ``promtool test rules``, and alerts that are wrong beside the one that is right in the same run."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from cmo_slo.durations import parse_duration

from .rule_slice import rules_of_alert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cmo_stack.servers import Server

Document = dict[str, Any]

SLO_RULES: Final = Path(__file__).resolve().parents[2] / "slo_rules"
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# A run lasts seconds and ends: collecting its garbage, on every processor there is, takes a third of them.
_GO: Final = {"GOMAXPROCS": "1", "GOGC": "800"}

# Each run of promtool has a cost of its own, and so has each mistake in it.
_CASES_A_RUN: Final = 3
# Nothing happens in these, or all of it is bad, which a wrong limit seldom shows in.
_SELDOM_NOTICE: Final = re.compile("restart|reset|no series|idle|nobody")
_EXCLUSIONS: Final = "\nunless on ()"


def read(path: str) -> Document:
    """What is committed in a YAML file below ``slo_rules``."""
    document: Document = yaml.load((SLO_RULES / path).read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe one
    return document


def run(promtool: Server, rules: Document, test: Document, directory: Path) -> str:
    """What promtool says against a test of some rules; nothing when all of it holds."""
    # JSON is YAML, and written in a hundredth of the time.
    (directory / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
    (directory / "test.yml").write_text(json.dumps({**test, "rule_files": ["rules.yml"]}), encoding="utf-8")
    done = subprocess.run(
        [str(promtool.path), "test", "rules", "test.yml"],
        cwd=directory,
        env={**os.environ, **promtool.environment, **_GO},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return "" if done.returncode == 0 else done.stdout + done.stderr


def complaints(promtool: Server, rules: Document, alert: str, test: Document, directory: Path) -> str:
    """What promtool says against the test of one alert of some rules; nothing when all of it holds.

    Where it fires it has to with all that it leaves out. Where it is silent it has to be so by its own
    condition, which says more, and needs none of the rules of other pages.
    """
    alone = {**rule_of(rules, alert), "expr": own_expression(rules, alert)}
    if alone["expr"] == rule_of(rules, alert)["expr"]:
        return run(promtool, rules_of_alert(rules, alert), test, directory)
    firing = [case for case in test["tests"] if _fires(case)]
    silent = [case for case in test["tests"] if not _fires(case)]
    whole = run(promtool, rules_of_alert(rules, alert), {**test, "tests": firing}, directory)
    fewer = rules_of_alert(instead_of(rules, alert, [alone]), alert)
    return whole + run(promtool, fewer, {**test, "tests": silent}, directory)


def _fires(case: Document) -> bool:
    expected = [one.get("exp_alerts") for one in case.get("alert_rule_test", ())]
    return "promql_expr_test" in case or any(expected)


def rule_of(rules: Document, alert: str) -> Document:
    (found,) = (rule for group in rules["groups"] for rule in group["rules"] if rule.get("alert") == alert)
    return dict(found)


def own_expression(rules: Document, alert: str) -> str:
    """When it fires, but for the conditions of other pages that it leaves out."""
    return str(rule_of(rules, alert)["expr"]).partition(_EXCLUSIONS)[0]


def instead_of(rules: Document, alert: str, others: Sequence[Document]) -> Document:
    """The same rules with others in the place of an alert's."""
    return {
        "groups": [
            {
                **group,
                "rules": [
                    one
                    for rule in group["rules"]
                    for one in (others if rule.get("alert") == alert else [rule])
                ],
            }
            for group in rules["groups"]
        ]
    }


def unnoticed(
    promtool: Server, rules: Document, test: Document, wrong: Mapping[str, Document], directory: Path
) -> set[str]:
    """Which of some mistakes in the rule of an alert no case of its test notices.

    All the wrong alerts are in the rules at once, and everything that the test expects of the right one is
    expected of each of them: what they read is recorded once for all. Cases that may notice most for the
    fewest steps come first, and of the others only those run for which something is left to notice.

    Args:
        promtool: what runs the test.
        rules: rules with one alert, the right one.
        test: its test.
        wrong: the rule with each mistake.
        directory: where files may be written.
    """
    (alert,) = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    left = {f"{alert}_{number}": what for number, what in enumerate(wrong)}
    ordered = sorted(
        test["tests"], key=lambda case: (bool(_SELDOM_NOTICE.search(case["name"])), _steps(case))
    )
    for at in range(0, len(ordered), _CASES_A_RUN):
        beside = [{**wrong[what], "alert": name} for name, what in left.items()]
        several = instead_of(rules, alert, [rule_of(rules, alert), *beside])
        cases = [_of_each(case, alert, [alert, *left]) for case in ordered[at : at + _CASES_A_RUN]]
        complaint = run(promtool, several, {**test, "tests": cases}, directory)
        # As it names them of both kinds of expectations: `alertname: A,` and `{alertname=\\"A\\",`.
        failed = set(re.findall(r'alertname(?:: |=\\")(\w+)', complaint))
        assert alert not in failed, f"{alert} itself:\n{complaint}"
        left = {name: what for name, what in left.items() if name not in failed}
        if not left:
            break
    return set(left.values())


def _steps(case: Document) -> int:
    expectations = [*case.get("alert_rule_test", ()), *case.get("promql_expr_test", ())]
    return max(parse_duration(one["eval_time"]) for one in expectations)


def _of_each(case: Document, alert: str, names: Sequence[str]) -> Document:
    """A case that expects the same of several alerts."""
    expanded = dict(case)
    for kind, field in (("alert_rule_test", "alertname"), ("promql_expr_test", "expr")):
        if kind in case:
            expanded[kind] = [
                {**one, field: one[field].replace(alert, name)} for one in case[kind] for name in names
            ]
    return expanded
