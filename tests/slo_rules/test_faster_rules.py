"""Rules with shorter hours are those of the committed file: divided exactly, and nothing else changed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from .faster_rules import divided_duration, faster_hours, faster_rule, with_look_back
from .promtool_runs import read

RULES: dict[str, Any] = read("rules/cmo-015-1s.yml")


@pytest.mark.parametrize(
    ("text", "factor", "divided"),
    [
        ("1h", 900, "4s"),
        ("59m59s999ms", 900, "3s999ms"),
        ("5h59m59s999ms", 900, "23s999ms"),
        ("29d23h59m59s999ms", 900, "47m59s999ms"),
        ("1h", 1, "1h"),
        ("59m59s999ms", 1, "59m59s999ms"),
        ("90s", 1000, "90ms"),
    ],
)
def test_a_duration_is_divided_exactly(text: str, factor: int, divided: str) -> None:
    assert divided_duration(text, factor) == divided


@pytest.mark.parametrize(("text", "factor"), [("1h", 7), ("59m59s998ms", 900), ("1ms", 2), ("1s", 2000)])
def test_what_does_not_divide_is_refused(text: str, factor: int) -> None:
    with pytest.raises(ValueError, match="no multiple"):
        divided_duration(text, factor)


def test_a_window_in_seconds_is_divided_and_the_seconds_of_a_step_are_not() -> None:
    rule = {
        "expr": "clamp_max((\n  sum_over_time(a[5h59m59s999ms])\n"
        "or\ncount_over_time(b[1h]) * 15\n) / 21600, 1)"
    }
    assert faster_rule(rule, 900)["expr"] == (
        "clamp_max((\n  sum_over_time(a[23s999ms])\nor\ncount_over_time(b[4s]) * 15\n) / 24, 1)"
    )
    with pytest.raises(ValueError, match="no multiple"):
        faster_rule({"expr": "clamp_max((\n  a\n) / 21601, 1)"}, 900)


def test_the_committed_rules_become_faster_and_differ_in_nothing_else() -> None:
    faster = faster_hours(RULES, 900)

    intervals = {group["name"].removeprefix("cmo-015-"): group["interval"] for group in faster["groups"]}
    assert intervals == {
        "events": "1s",
        "hourly": "4s",
        "long-windows": "1s",
        "tickets": "1m",
        "objectives": "1s",
    }
    hours = {
        "hourly": {"3s999ms"},
        "long-windows": {"999ms", "3s999ms", "23s999ms", "1m35s999ms", "4m47s999ms", "47m59s999ms"},
    }
    for group in faster["groups"]:
        name = group["name"].removeprefix("cmo-015-")
        (before,) = (one for one in RULES["groups"] if one["name"] == group["name"])
        recording = [rule for rule in before["rules"] if "record" in rule]
        if name not in hours:
            assert group["rules"] == recording
            continue
        ranges = {text for rule in group["rules"] for text in re.findall(r"\[(.*?)\]", rule["expr"])}
        assert ranges == hours[name]
        numbers = re.compile(r"\[[^\]]*\]|/ \d+, 1")
        assert [{**rule, "expr": numbers.sub("", rule["expr"])} for rule in group["rules"]] == [
            {**rule, "expr": numbers.sub("", rule["expr"])} for rule in recording
        ]


def test_another_look_back_is_everywhere() -> None:
    changed = yaml.safe_dump(with_look_back(faster_hours(RULES, 900), 6))
    assert "[1m] offset 1ms" not in changed
    assert "< 60))" not in changed
    increases = sum(
        rule["record"].startswith("slo:") and rule["record"].endswith(":increase")
        for group in RULES["groups"]
        for rule in group["rules"]
        if "record" in rule
    )
    assert increases > 0
    assert changed.count("[6s] offset 1ms") == 2 * increases
    assert changed.count("< 6))") == increases
