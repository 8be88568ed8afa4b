"""The same thing twice, and neighbours that only look like it."""

from __future__ import annotations

from .checking import ERROR, WARNING, alert, findings, group, in_rules, record, rule_file, severities


def test_a_series_recorded_twice_is_an_error() -> None:
    found = in_rules("duplicates", record("a:b:c", "sum(x)", slo="s"), record("a:b:c", "sum(y)", slo="s"))
    assert severities(found) == [ERROR]
    assert "as the rule in line 4" in found[0].wrong


def test_labels_tell_series_apart() -> None:
    assert in_rules("duplicates", record("a:b:c", "sum(x)", w="1"), record("a:b:c", "sum(y)", w="2")) == []
    assert in_rules("duplicates", record("a:b:c", "sum(x)"), record("a:b:c", "sum(x)", w="2")) == []


def test_an_alert_raised_twice_is_an_error_unless_labels_tell_it_apart() -> None:
    page, ticket = alert("a > 2", "A"), alert("a > 1", "A", labels={"severity": "ticket"})
    assert severities(in_rules("duplicates", page, alert("a > 3", "A"))) == [ERROR]
    assert in_rules("duplicates", page, ticket) == []
    assert in_rules("duplicates", page, record("A", "sum(b)", severity="page")) == []


def test_files_that_are_loaded_together_are_held_against_each_other() -> None:
    text = rule_file(group(record("a:b:c", "sum(x)")))
    (found,) = findings("duplicates", text, text)
    assert found.file == "rules-1.yml"
    assert "line 4 of rules-0.yml" in found.wrong


def test_one_expression_under_two_names_is_a_warning_however_it_is_written() -> None:
    found = in_rules("duplicates", record("a:b:c", "sum by (a, b) (x)"), record("d:e:f", "sum(x) by (b,a)"))
    assert severities(found) == [WARNING]
    assert "has the same expression as a:b:c in line 4" in found[0].wrong
    assert severities(in_rules("duplicates", alert("a > 1", "A"), alert("a > 1", "B"))) == [WARNING]


def test_expressions_that_only_look_alike_are_let_be() -> None:
    for rules in (
        [record("a:b:c", "sum(x)"), record("d:e:f", "sum(y)")],
        [record("a:b:c", "vector(0.95)"), record("d:e:f", "vector(0.95)")],
        [record("a:b:c", "x > 1"), alert("x > 1", "A")],
        [alert("a > 1", "A"), alert("a > 1", "B", **{"for": "1h"})],
        [record("a:b:c", "sum(rate(x[5m]))"), record("d:e:f", "sum(rate(x[10m]))")],
    ):
        assert in_rules("duplicates", *rules) == []


def test_a_roll_up_may_be_what_is_recorded_more_often_too() -> None:
    hourly = group(record("a:b:hourly", "sum_over_time(x[1h])"), name="hourly", interval="1h")
    often = group(record("a:b:sum", "sum_over_time(x[1h])"), name="often", interval="1m")
    assert findings("duplicates", rule_file(hourly, often)) == []


def test_a_group_name_twice_in_a_file_is_an_error_and_in_two_files_is_none() -> None:
    one, other = group(record("a:b:c", "sum(x)")), group(record("d:e:f", "sum(y)"))
    found = findings("duplicates", rule_file(one, other))
    assert severities(found) == [ERROR]
    assert "stands in line 2 already" in found[0].wrong
    assert findings("duplicates", rule_file(one), rule_file(other)) == []
