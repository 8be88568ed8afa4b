"""docs/alerts.md has every compiled alert: once, where its urgency says, with its summary and its runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from .promtool_runs import read

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
RULES: Final = read("rules/cmo-015.yml")
ALERTS: Final[list[dict[str, Any]]] = [
    rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
]
HEADINGS: Final = {
    "Pages": {"page"},
    "Tickets": {"ticket"},
    "Told to nobody, or to a machine": {"info", "watchdog"},
}
_ROW: Final = re.compile(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (.*?) \| (.*?) \|$", re.M)


def rows(page: str, heading: str) -> list[tuple[str, str, str]]:
    """Name, summary and last column of each row below a heading; each links to the runbook of its name."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = _ROW.findall(section)
    assert [name for name, runbook, *_ in found if name != runbook] == []
    return [(name, summary, last) for name, _, summary, last in found]


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_table_has_the_compiled_alerts_of_its_urgency_and_their_summaries(heading: str) -> None:
    compiled = [
        (alert["alert"], alert["annotations"]["summary"])
        for alert in ALERTS
        if alert["labels"]["severity"] in HEADINGS[heading]
    ]
    assert compiled
    assert sorted((name, summary) for name, summary, _ in rows(PAGE, heading)) == sorted(compiled)


def test_every_urgency_has_a_table() -> None:
    assert {alert["labels"]["severity"] for alert in ALERTS} == set().union(*HEADINGS.values())


def test_tickets_are_in_the_table_with_their_roles() -> None:
    roles = {alert["alert"]: alert["labels"]["role"] for alert in ALERTS}
    table = {name: role for name, _, role in rows(PAGE, "Tickets")}
    assert table == {name: roles[name] for name in table}
