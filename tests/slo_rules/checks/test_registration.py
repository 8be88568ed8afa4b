"""A check is a file, a page and a test file of one name, and an entry in CHECKS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cmo_slo.checks import CHECKS, Context, Finding, Severity, read_rules, run_checks
from cmo_slo.checks.rule_document import CHECK as READING

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


@pytest.mark.parametrize("name", CHECKS)
def test_the_example_of_each_page_fails_its_check(name: str) -> None:
    if name in ("inhibition", "runbook"):
        pytest.skip("its example is about another file")
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    example = page.partition("## An example that fails")[2].partition("```yaml\n")[2].partition("```")[0]
    read = read_rules(example, "example.yml")
    assert read.findings == ()
    assert list(CHECKS[name](read.documents, Context())) != []


def test_the_index_links_every_page_and_no_other() -> None:
    index = (ROOT / "docs/rules-check.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"(rules-check/{name}.md)" in index
    assert {path.stem for path in PAGES.glob("*.md")} == set(NAMES)


def test_a_disabled_check_finds_nothing() -> None:
    documents = read_rules(sloth(0.7), "rules.yml").documents
    everything = {finding.check for finding in run_checks(documents, Context())}
    assert "attainability" in everything
    some = {finding.check for finding in run_checks(documents, Context(), ["attainability"])}
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
