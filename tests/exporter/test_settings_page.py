"""The settings page says what the code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from cmo_exporter import ExporterSettings, Price, defaults, settings_page

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "settings.md"


def test_the_committed_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page.page(), (
        "The settings have changed. Run: python -m cmo_exporter.settings_page docs/settings.md"
    )


@pytest.mark.parametrize("documented", [ExporterSettings, Price])
def test_every_setting_is_described_and_no_other(documented: type[ExporterSettings | Price]) -> None:
    assert list(settings_page.descriptions(documented)) == [setting.name for setting in fields(documented)]


def test_every_setting_is_on_the_page_below_a_heading() -> None:
    text = settings_page.page()
    for setting in (*fields(ExporterSettings), *fields(Price)):
        assert f"\n| `{setting.name}` | " in text
    assert all(f"\n## {heading}\n" in text for heading in settings_page._HEADINGS.values())


def test_an_example_in_a_variable_is_what_it_is_in_python() -> None:
    assert settings_page.KINDS.keys() == defaults._PARSERS.keys()
    for name, kind in settings_page.KINDS.items():
        in_python = eval(kind.in_python, {"Path": Path, "Price": Price})  # noqa: S307 - what the page tells to type
        assert defaults._PARSERS[name](kind.in_variable) == in_python


def test_every_variable_that_the_exporter_reads_is_on_the_page() -> None:
    read: set[str] = set()
    for module in (ROOT / "exporter" / "cmo_exporter").rglob("*.py"):
        if module.name != "settings_page.py":
            read.update(re.findall(r'"((?:CMO|OTEL)_[A-Z_]+)"', module.read_text(encoding="utf-8")))
    assert read == {defaults.PREFIX, *settings_page.VARIABLES}


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    assert settings_page.main([str(tmp_path / "settings.md")]) == 0
    assert (tmp_path / "settings.md").read_text(encoding="utf-8") == settings_page.page()
