"""Reading rule files that people have: every form, and every mistake as a finding with its line."""

from __future__ import annotations

import pytest
from cmo_slo.checks import Context, Severity, read_rules, run_checks
from cmo_slo.checks.alertmanager_config import read_alertmanager
from hypothesis import given
from hypothesis import strategies as st

from .checking import documents, rule_file

NATIVE = """\
# A comment
groups:
  - name: shop
    interval: 1m
    rules:
      - record: job:requests:rate5m
        expr: sum by (job) (rate(requests_total[5m]))
        labels: {team: a}
      - alert: ShopFailing
        expr: |
          job:requests:rate5m
            > 1
        for: 5m
        keep_firing_for: 1w
        labels:
          severity: page
          tier: 1
        annotations:
          summary: It fails
"""
MANIFEST = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: shop
spec:
  groups:
    - name: shop
      rules:
        - alert: ShopFailing
          expr: up == 0
---
apiVersion: v1
kind: ConfigMap
data: {a: b}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
spec: {groups: [{name: shop, rules: [{alert: Other, expr: up == 1}]}]}
"""


def test_prometheus_own_form_is_read_with_its_lines() -> None:
    (document,) = documents(NATIVE)
    assert document.native
    (group,) = document.groups
    assert (group.name, group.line, group.interval) == ("shop", 3, 60_000)
    recorded, alert = group.rules
    assert (recorded.record, recorded.alert, recorded.line) == ("job:requests:rate5m", None, 6)
    assert dict(recorded.labels) == {"team": "a"}
    assert (alert.name, alert.line, alert.hold, alert.keep_firing) == ("ShopFailing", 9, 300_000, 604_800_000)
    assert dict(alert.labels) == {"severity": "page", "tier": "1"}
    assert str(alert.expression) == "job:requests:rate5m > 1"


def test_manifests_are_read_out_of_several_documents() -> None:
    first, second = documents(MANIFEST)
    assert not first.native
    assert first.groups[0].rules[0].line == 9
    assert second.groups[0].rules[0].name == "Other"
    spec = "spec: {groups: [{name: a, rules: [{alert: B, expr: c}]}]}"
    listed = f"kind: List\nitems:\n- kind: PrometheusRule\n  {spec}"
    assert documents(listed)[0].groups[0].rules[0].name == "B"


def test_anchors_and_merged_mappings_are_read() -> None:
    text = """\
base: &base {severity: page, team: a}
groups:
  - name: shop
    rules:
      - &first {alert: A, expr: up == 0, labels: {<<: *base, team: b}}
      - {<<: *first, alert: B}
"""
    (document,) = documents(text)
    first, second = document.groups[0].rules
    assert dict(first.labels) == {"severity": "page", "team": "b"}
    assert (second.name, second.text, dict(second.labels)) == ("B", "up == 0", dict(first.labels))


def test_labels_of_a_group_are_those_of_its_rules() -> None:
    rule = "{alert: B, expr: up, labels: {team: b}}"
    text = f"groups: [{{name: a, labels: {{severity: page, team: a}}, rules: [{rule}]}}]"
    assert dict(documents(text)[0].groups[0].rules[0].labels) == {"severity": "page", "team": "b"}


def test_json_is_yaml() -> None:
    assert documents('{"groups": [{"name": "a", "rules": [{"alert": "B", "expr": "up"}]}]}')[0].groups


@pytest.mark.parametrize("field", ["partial_response_strategy: warn", "source_tenants: [a]", "limit: 3"])
def test_fields_of_other_rulers_are_let_be(field: str) -> None:
    assert documents(f"groups:\n- name: a\n  {field}\n  rules: [{{alert: B, expr: up}}]")


RULE = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: up}\n"


@pytest.mark.parametrize(
    ("text", "line", "wrong", "mend"),
    [
        ("", 1, "the file is empty", "expected `groups:`"),
        ("# nothing", 1, "the file is empty", "expected `groups:`"),
        ("a: 1", 1, "there are no rule groups", "expected `groups:`"),
        ("just text", 1, "there are no rule groups", "expected `groups:`"),
        ("groups:", 1, "`groups` is no list", "expected `groups:`"),
        ("groups: 3", 1, "`groups` is no list", "expected"),
        ("groups: [3]", 1, "a group is no mapping", "expected `- name"),
        ("groups:\n- name: g\n  rules: 3", 3, "`rules` is no list", "expected a list"),
        ("groups:\n- name: g\n  rules: [3]", 3, "a rule is no mapping", "expected `- alert:`"),
        ("groups:\n- rules: [{alert: A, expr: up}]", 2, "a group without a name", "give it one"),
        ("groups:\n- name: g\n  rules: []", 2, "the group has no rules", "delete it"),
        ("groups:\n- name: g\n  rules:", 2, "the group has no rules", "delete it"),
        (RULE.replace("alert: A, ", ""), 4, "neither `record` nor `alert`", "add one"),
        (
            RULE.replace("alert: A", "alert: A, record: 'a:b:c'"),
            4,
            "both `record` and `alert`",
            "keep or add one",
        ),
        (RULE.replace(", expr: up", ""), 4, "a rule without an expression", "expected `expr:`"),
        (RULE.replace("expr: up", "exrp: up"), 4, "unknown field 'exrp'", "did you mean expr?"),
        (
            RULE.replace("  rules", "  intervall: 1m\n  rules"),
            3,
            "unknown field 'intervall'",
            "did you mean interval?",
        ),
        (
            RULE.replace("expr: up", "expr: 'sum('"),
            4,
            "cannot be read: unclosed left parenthesis",
            "correct it",
        ),
        (RULE.replace("expr: up", "expr: 'up[5m]'"), 4, "gives a range of samples or text", "put a function"),
        (
            RULE.replace("expr: up", "expr: 'up[5m:1m]'"),
            4,
            "gives a range of samples or text",
            "put a function",
        ),
        (RULE.replace("expr: up", "expr: [up]"), 4, "`expr` is no text", "expected text"),
        (RULE.replace("expr: up", "expr: up, for: soon"), 4, "`for`: 'soon' is no duration", "such as 5m"),
        (RULE.replace("expr: up", "expr: up, for: 30m1h"), 4, "`for`: '30m1h' is no duration", "such as 5m"),
        (RULE.replace("  rules", "  interval: often\n  rules"), 3, "`interval`: 'often'", "such as 5m"),
        (RULE.replace("expr: up", "expr: up, labels: [a]"), 4, "`labels` is no mapping", "mend it"),
        (
            RULE.replace("expr: up", "expr: up, labels: {a: [b]}"),
            4,
            "`labels` holds what is no text",
            "put quotes",
        ),
        (RULE.replace("expr: up", "expr: up, expr: down"), 4, "'expr' stands there twice", "delete one"),
        (
            RULE.replace("expr: up", "expr: up, labels: {a: b, a: c}"),
            4,
            "'a' stands there twice",
            "delete one",
        ),
        (RULE.replace("alert: A", "record: 'a:b:c', for: 5m"), 4, "a recording rule has `for`", "delete it"),
        (RULE.replace("alert: A", "record: 'a b'"), 4, "'a b' is no name of a series", "rename it"),
        ("groups: [", 1, "not YAML", "expected YAML"),
        ("a: b: c", 1, "not YAML", "expected YAML"),
        ("{{ if .Values.x }}\ngroups: []", 2, "not YAML", "must be rendered first"),
        ("groups:\n\t- a", 2, "not YAML", "expected YAML"),
        ("a: *nothing", 1, "not YAML", "expected YAML"),
        ("a: \x00", 1, "", ""),
        ("[" * 100_000, 1, "nested more than 50 deep", "check its form"),
        ("- " * 100_000, 1, "nested more than 50 deep", "check its form"),
        (f"\n[{'1,' * 1_000_001}]", 2, "more than 1,000,000 values", "split the file"),
        ("groups: &a [*a]", 1, "a group is no mapping", "write it so"),
        (
            RULE.replace("expr: up", f"expr: '{'(' * 5000}up{')' * 5000}'"),
            4,
            "it is nested 5,000 deep",
            "correct",
        ),
        (
            RULE.replace("expr: up", f"expr: '{'+'.join(['up'] * 5000)}'"),
            4,
            "it has 4,999 operators",
            "correct",
        ),
        (RULE.replace("expr: up", f"expr: '{'-' * 5000}up'"), 4, "it has 5,000 operators", "correct"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_mistake_is_a_finding_with_its_line(text: str, line: int, wrong: str, mend: str) -> None:
    read = read_rules(text, "rules.yml")
    found = [one for one in read.findings if wrong in one.wrong and mend in one.mend]
    assert found, [str(one) for one in read.findings]
    assert found[0].line == line
    assert str(found[0]).startswith(f"rules.yml:{line}: ")
    list(run_checks(read.documents, Context()))


def test_one_mistake_does_not_hide_the_rest() -> None:
    text = """\
groups:
  - name: g
    rules:
      - alert: A
        expr: sum(
      - alert: B
        expr: up
        for: soon
      - alert: C
        expr: up == 0
"""
    read = read_rules(text, "rules.yml")
    assert [(one.line, one.rule) for one in read.findings] == [(5, "A"), (8, "B")]
    assert [rule.name for rule in read.documents[0].groups[0].rules] == ["A", "B", "C"]
    assert read.documents[0].groups[0].rules[0].expression is None


def test_aliases_that_stand_for_millions_of_rules_are_cut_short() -> None:
    rules = "rules: &rules [" + ", ".join(["{alert: A, expr: up}"] * 1000) + "]"
    groups = "\n".join(f"- {{name: g{number}, rules: *rules}}" for number in range(1000))
    read = read_rules(f"{rules}\ngroups:\n{groups}", "rules.yml")
    assert any("more than 50,000 rules" in one.wrong for one in read.findings)
    assert sum(len(group.rules) for document in read.documents for group in document.groups) == 50_000


def test_thousands_of_rules_do_not_hang() -> None:
    rules = "".join(
        f"  - alert: Alert{number}\n    labels: {{severity: page}}\n    expr: >-\n"
        f"      sum(rate(http_errors_{number}_total[5m])) / sum(rate(cmo_things_{number}[5m])) > 0.1\n"
        for number in range(4_000)
    )
    read = read_rules(f"groups:\n- name: many\n  rules:\n{rules}", "rules.yml")
    assert read.findings == ()
    found = list(run_checks(read.documents, Context()))
    assert {finding.rule for finding in found if finding.check == "names"} == {
        f"Alert{number}" for number in range(4_000)
    }


def test_rules_that_read_each_other_a_thousandfold_are_followed_once() -> None:
    """Each reads the one before twice: followed without memory that is two to the power of their number."""
    chain = [
        {"record": f"a:b{number}:c", "expr": f"a:b{number - 1}:c + a:b{number - 1}:c"}
        for number in range(1, 61)
    ]
    circle = [{"record": "a:b:x", "expr": "a:b:y + a:b:y"}, {"record": "a:b:y", "expr": "a:b:x * a:b:x"}]
    alerts = [
        {"alert": f"A{number}", "expr": f"{name} > 1", "labels": {"severity": "page"}}
        for number, name in enumerate(("a:b60:c", "a:b:x"))
    ]
    inhibited = read_alertmanager("inhibit_rules: [{source_matchers: [a=b], equal: [x]}]", "a.yml")
    rules = documents(rule_file({"name": "g", "rules": [*chain, *circle, *alerts]}))
    list(run_checks(rules, Context(alertmanager=inhibited)))


def test_the_longest_expressions_that_are_read_are_checked_too() -> None:
    long = [
        {"record": f"a:b{number}:c", "expr": " + ".join([f"a:b{number - 1}:c"] * 200)}
        for number in range(1, 9)
    ]
    sums = "sum(" * 99 + "a:b8:c" + ")" * 99
    alert = {"alert": "A", "expr": f"{sums} > 1", "labels": {"severity": "page"}}
    inhibited = read_alertmanager("inhibit_rules: [{source_matchers: [a=b], equal: [x]}]", "a.yml")
    rules = documents(rule_file({"name": "g", "rules": [*long, alert]}))
    list(run_checks(rules, Context(alertmanager=inhibited)))


@given(st.text(alphabet='groups: [{-}]"\n\t&*!|>namerulexp0()%@`,#'))
def test_no_text_raises(text: str) -> None:
    read = read_rules(text, "rules.yml")
    assert read.documents or read.findings
    list(run_checks(read.documents, Context()))


@given(st.text(alphabet='abrtesum(){}[]=~!<>+-*/%^"5mhby, @:.offsetand', max_size=60))
def test_no_expression_raises(expression: str) -> None:
    read = read_rules(rule_file({"name": "g", "rules": [{"alert": "A", "expr": expression}]}), "rules.yml")
    found = [*read.findings, *run_checks(read.documents, Context())]
    assert all(one.severity in Severity for one in found)
