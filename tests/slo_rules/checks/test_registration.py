"""A check is a file, a page and a test file of one name, and an entry in CHECKS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cmo_slo.checks import CHECKS, Context, Finding, Severity, read_rules, run_checks
from cmo_slo.checks.alertmanager_config import read_alertmanager
from cmo_slo.checks.rule_document import CHECK as READING

from .checking import documents, group, rule_file
from .generators import sloth

ROOT = Path(__file__).resolve().parents[3]
PAGES = ROOT / "docs/rules-check"
NAMES = [*CHECKS, READING]


@pytest.mark.parametrize("name", NAMES)
def test_each_check_has_its_file_its_page_and_its_tests(name: str) -> None:
    assert (ROOT / f"slo_rules/cmo_slo/checks/{name}.py").is_file()
    assert (ROOT / f"tests/slo_rules/checks/test_{name}.py").is_file()
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    for section in ("## Why it matters", "## An example that fails", "## How to mend it"):
        assert section in page, f"{name}.md has no section {section!r}"


def example(name: str) -> str:
    """The YAML that a page says fails its check."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    return page.partition("## An example that fails")[2].partition("```yaml\n")[2].partition("```")[0]


@pytest.mark.parametrize("name", sorted(set(CHECKS) - {"inhibition"}))
def test_the_example_of_each_page_fails_its_check(name: str) -> None:
    read = read_rules(example(name), "example.yml")
    assert read.findings == ()
    context = Context(runbooks=frozenset({"ShopFailing.md"}))
    assert list(CHECKS[name](read.documents, context)) != []


def test_the_example_of_an_inhibition_fails_with_alerts_that_are_sums() -> None:
    page = {"alert": "ShopFailing", "expr": "sum(a) > 1", "labels": {"severity": "page"}}
    cause = {"alert": "CacheCold", "expr": "sum(b) > 1", "labels": {"severity": "ticket", "role": "cause"}}
    context = Context(alertmanager=read_alertmanager(example("inhibition"), "alertmanager.yml"))
    (found,) = CHECKS["inhibition"](documents(rule_file(group(page, cause))), context)
    assert str(found).startswith(
        "alertmanager.yml:2: inhibit_rules[0]: the label 'cluster' of `equal` is on neither"
    )


def test_the_example_of_what_cannot_be_read_has_a_finding_a_mistake() -> None:
    assert [finding.line for finding in read_rules(example(READING), "shop.yml").findings] == [4, 5, 6]


def test_the_index_links_every_page_and_no_other() -> None:
    index = (ROOT / "docs/rules-check.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"(rules-check/{name}.md)" in index
    assert {path.stem for path in PAGES.glob("*.md")} == set(NAMES)


def test_a_disabled_check_finds_nothing() -> None:
    rules = documents(sloth(0.7))
    everything = {finding.check for finding in run_checks(rules, Context())}
    assert "attainability" in everything
    some = {finding.check for finding in run_checks(rules, Context(), ["attainability"])}
    assert some == everything - {"attainability"}


def test_a_finding_is_one_line() -> None:
    finding = Finding("a.yml", 3, "g", "R", "names", Severity.ERROR, "is wrong", "expected right; mend it")
    assert str(finding) == "a.yml:3: R: is wrong; expected right; mend it [error names]"
    assert str(replace(finding, rule="")) == "a.yml:3: g: is wrong; expected right; mend it [error names]"
    assert str(replace(finding, rule="", group="")).startswith("a.yml:3: is wrong;")


def test_a_context_has_no_impossible_settings() -> None:
    with pytest.raises(ValueError, match="scrape_interval must be above 0"):
        Context(scrape_interval=0)
    with pytest.raises(ValueError, match="retention must be above 0"):
        Context(retention=-1)
    with pytest.raises(ValueError, match="budget must be above 0"):
        Context(budget=0)
