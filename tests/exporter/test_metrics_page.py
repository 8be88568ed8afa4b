"""The metrics page says what the catalogue says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cmo_exporter import catalogue, metrics_page

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_the_committed_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_page.page(), (
        "The catalogue has changed. Run: python -m cmo_exporter.metrics_page docs/metrics.md"
    )


def test_every_metric_and_label_value_is_on_the_page() -> None:
    text = metrics_page.page()
    for metric in catalogue.CATALOGUE:
        assert f"## `{metric.name}`" in text
        for label, values in metric.labels.items():
            assert f"| `{label}` |" in text
            assert all(f"`{value}`" in text for value in values or ())


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics_page.main([str(tmp_path / "metrics.md")]) == 0
    assert (tmp_path / "metrics.md").read_text(encoding="utf-8") == metrics_page.page()
    assert metrics_page.main([]) == 0
    assert capsys.readouterr().out == metrics_page.page()
    assert metrics_page.main([str(tmp_path / "no" / "such")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert metrics_page.main(["one", "two"]) == 2
