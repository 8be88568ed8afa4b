"""Runbooks that alerts name, held against those that are there."""

from __future__ import annotations

from typing import Any

import pytest

from .checking import ERROR, in_rules, severities

RUNBOOKS = frozenset({"ShopFailing.md", "ShopSlow.md"})


def linking(
    link: str, alert: str = "ShopFailing", severity: str = "page", name: str = "runbook_url"
) -> dict[str, Any]:
    return {"alert": alert, "expr": "up == 0", "labels": {"severity": severity}, "annotations": {name: link}}


@pytest.mark.parametrize(
    "link",
    [
        "docs/runbooks/ShopFailing.md",
        "ShopFailing.md",
        "https://example.com/runbooks/ShopFailing.md",
        "https://example.com/runbooks/ShopFailing",
        "https://example.com/runbooks/ShopFailing/",
        "https://example.com/runbooks/shop/shopfailing",
        "https://example.com/runbooks/ShopFailing.html",
        "https://example.com/runbooks/ShopFailing.md#first-five-minutes",
        "https://example.com/runbooks/ShopFailing.md?plain=1",
        "https://example.com/runbooks/Shop%46ailing.md",
        "https://example.com/",
        "https://[broken",
        "https://example.com/{{ $labels.alertname }}.md",
        "",
    ],
)
def test_a_runbook_that_is_there_is_found_whatever_leads_to_it(link: str) -> None:
    expected = 1 if link == "https://[broken" else 0
    assert len(in_rules("runbook", linking(link), runbooks=RUNBOOKS)) == expected


@pytest.mark.parametrize("name", ["runbook_url", "runbook"])
@pytest.mark.parametrize("severity", ["page", "ticket", "critical", "warning"])
def test_one_that_is_not_there_is_an_error(name: str, severity: str) -> None:
    found = in_rules(
        "runbook", linking("docs/runbooks/ShopFaling.md", "Other", severity, name), runbooks=RUNBOOKS
    )
    assert severities(found) == [ERROR]
    assert "its runbook 'docs/runbooks/ShopFaling.md' does not exist" in found[0].wrong
    assert "did you mean ShopFailing.md?" in found[0].mend


def test_nothing_is_said_of_alerts_that_need_no_action_nor_without_runbooks_to_compare_with() -> None:
    missing = linking("docs/runbooks/Missing.md")
    assert in_rules("runbook", {**missing, "labels": {"severity": "info"}}, runbooks=RUNBOOKS) == []
    assert in_rules("runbook", missing) == []
    assert in_rules("runbook", missing, runbooks=frozenset()) == []
    assert len(in_rules("runbook", missing, runbooks=RUNBOOKS)) == 1


def test_of_an_address_it_says_that_it_was_not_fetched() -> None:
    (found,) = in_rules("runbook", linking("https://example.com/ShopFaling"), runbooks=RUNBOOKS)
    assert found.wrong.startswith("its runbook 'https://example.com/ShopFaling' is none of the given ones")
    assert found.wrong.endswith(", and the address is not fetched")
    assert found.mend == "expected ShopFaling.md among the runbooks; did you mean ShopFailing.md?"


@pytest.mark.parametrize("name", ["OwnScrapeFailing", "CMOShopFailing", "Shop"])
def test_only_a_slip_is_taken_for_another_name(name: str) -> None:
    there = RUNBOOKS | {"CMOScrapeFailing.md", "CMOProbeFailing.md"}
    (found,) = in_rules("runbook", linking(f"docs/runbooks/{name}.md"), runbooks=there)
    assert found.mend == f"expected {name}.md among the runbooks; write it, or correct the link"
