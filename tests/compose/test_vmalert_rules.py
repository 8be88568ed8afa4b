"""Rules for vmalert: the same rules, in groups of which each waits for those that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cmo_stack import vmalert_rules
from cmo_stack.vmalert_rules import ARRIVAL_SECONDS, VISIBLE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
CHAIN = [
    {"record": "copy", "expr": "counter >= 0"},
    {"record": "copy:increase", "expr": "copy - last_over_time(copy[5m] offset 1ms)"},
    {"record": "good", "expr": "sum(copy:increase)"},
    {"alert": "Bad", "expr": "good < 1"},
    {"alert": "Down", "expr": "absent(up)"},
]


def test_a_rule_is_as_deep_as_what_it_reads() -> None:
    assert vmalert_rules.depths(CHAIN) == [0, 1, 2, 3, 0]


def test_a_name_within_a_longer_one_is_not_meant() -> None:
    rules = [{"record": "a", "expr": "up"}, {"record": "b", "expr": "a:b + x_a + a_x"}]
    assert vmalert_rules.depths(rules) == [0, 0]


def test_what_is_recorded_by_several_rules_is_as_deep_as_the_deepest() -> None:
    rules = [
        {"record": "window", "expr": "up"},
        {"record": "window", "expr": "other"},
        {"record": "other", "expr": "up"},
        {"record": "end", "expr": "window"},
    ]
    assert vmalert_rules.depths(rules) == [0, 1, 0, 2]


PAGES = [
    {"record": "good", "expr": "sum(counter)"},
    {"alert": "Down", "expr": "absent(up)"},
    {"alert": "Failing", "expr": 'good < 1 unless on () ALERTS{alertname="Hanging",alertstate="firing"}'},
    {"alert": "Hanging", "expr": 'hung > 1 unless on () ALERTS{alertname=~"Down|Failing"}'},
    {"alert": "Slow", "expr": 'slow{alert="Hanging"} > 1 unless on () ALERTS{alertname="Down"}'},
    {"alert": "NotSlow", "expr": 'slow > 1 unless on () ALERTS{alertname=~"Down|NotSlow|Slower"}'},
]


def test_a_page_waits_for_the_pages_before_it_that_it_asks_for() -> None:
    assert vmalert_rules.depths(PAGES) == [0, 0, 1, 2, 1, 1]


def test_pages_that_wait_for_pages_do_not_delay_what_sums_up_records() -> None:
    sums = {"record": "sums", "expr": "sum_over_time(good[1h])"}
    slow = {"name": "slow", "interval": "1m", "rules": [sums]}
    fast = {"name": "fast", "interval": "15s", "rules": PAGES}
    groups = vmalert_rules.regrouped({"groups": [fast, slow]}, 15)
    assert [group["name"] for group in groups["groups"]] == ["fast-0", "fast-1", "fast-2", "slow"]
    assert groups["groups"][-1]["eval_delay"] == f"{ARRIVAL_SECONDS + 15 + VISIBLE_SECONDS}s"


def test_every_page_of_ours_comes_after_those_that_it_asks_for() -> None:
    """Else two pages come at once, where Prometheus would send one."""
    groups = yaml.safe_load((ROOT / "compose/vmalert/cmo-015-15s.yml").read_text())["groups"]
    delay_of = {
        rule["alert"]: int(group["eval_delay"].removesuffix("s"))
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    }
    pages = ["CMOServiceDown", "CMOLiveQueriesFailing", "CMOLiveQueriesHanging", "CMOLiveQueriesSlow"]
    delays = [delay_of[page] for page in [*pages, "CMONoLiveTraffic"]]
    assert delays == sorted(set(delays))


def test_each_group_waits_for_the_one_before_it() -> None:
    slow = {
        "name": "slow",
        "interval": "1m",
        "rules": [{"record": "sums", "expr": "sum_over_time(good[1h])"}],
    }
    document = {"groups": [{"name": "fast", "interval": "15s", "rules": CHAIN}, slow]}
    groups = vmalert_rules.regrouped(document, 15)["groups"]
    step = 15 + VISIBLE_SECONDS
    assert [(group["name"], group["eval_delay"]) for group in groups] == [
        ("fast-0", f"{ARRIVAL_SECONDS}s"),
        ("fast-1", f"{ARRIVAL_SECONDS + step}s"),
        ("fast-2", f"{ARRIVAL_SECONDS + 2 * step}s"),
        ("fast-3", f"{ARRIVAL_SECONDS + 3 * step}s"),
        ("slow", f"{ARRIVAL_SECONDS + 3 * step}s"),
    ]


@pytest.mark.parametrize("seconds", [5, 15])
def test_no_rule_is_lost_or_changed(seconds: int) -> None:
    def rules(text: str) -> list[str]:
        document: dict[str, Any] = yaml.safe_load(text)
        return sorted(repr(rule) for group in document["groups"] for rule in group["rules"])

    ours = rules(vmalert_rules.render("cmo-015", seconds))
    if seconds == 15:
        assert ours == rules((ROOT / "slo_rules/rules/cmo-015.yml").read_text())
    assert len(ours) == len(rules((ROOT / "slo_rules/rules/cmo-015-1s.yml").read_text()))


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "rules.yml")
    assert vmalert_rules.main(["no-such-objectives", "--output", output]) == 3
    assert "no-such-objectives" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        vmalert_rules.main(["cmo-015", "--scrape-interval", "1", "--output", output])
    assert "at least 5" in capsys.readouterr().err
