"""``cmo dashboards``: what is written, what is printed, and the exit statuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cmo_dashboards.cli import dashboards
from cmo_dashboards.shipped import compiled_directory
from cmo_slo.objectives import shipped_directory

if TYPE_CHECKING:
    from pathlib import Path


def test_build_writes_the_same_files_and_prints_where(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "dashboards.md"
    done = CliRunner().invoke(dashboards, ["build", "--output", str(tmp_path / "new"), "--docs", str(page)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [str(tmp_path / "new" / "cmo-015.json"), str(page)]
    built = (tmp_path / "new" / "cmo-015.json").read_bytes()
    assert built == (compiled_directory() / "cmo-015.json").read_bytes()


def test_check_of_the_compiled_dashboards_is_clean() -> None:
    done = CliRunner().invoke(dashboards, ["check"])
    assert (done.exit_code, done.stdout) == (0, "")


def test_check_prints_one_line_a_finding_and_exits_1(tmp_path: Path) -> None:
    document = json.loads((compiled_directory() / "cmo-015.json").read_text())
    document["panels"][1]["targets"][0]["expr"] = "sum(cmo_querys_total)"
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(document))
    done = CliRunner().invoke(dashboards, ["check", str(bad)])
    assert done.exit_code == 1
    [line] = done.stdout.splitlines()
    assert line.startswith(f"{bad}: names: ")
    assert "cmo_querys_total" in line


def test_check_says_when_the_compiled_dashboards_are_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads((compiled_directory() / "cmo-015.json").read_text())
    document["description"] = "edited by hand"
    (tmp_path / "cmo-015.json").write_text(json.dumps(document))
    monkeypatch.setattr("cmo_dashboards.cli.compiled_directory", lambda: tmp_path)
    done = CliRunner().invoke(dashboards, ["check"])
    assert done.exit_code == 1
    assert "is stale" in done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "is no dashboard"),
        ("{}", "is no dashboard"),
        ('{"panels": [null]}', "could read"),
        ('{"panels": [{"targets": [null]}]}', "could read"),
    ],
)
def test_a_file_that_is_no_dashboard_exits_3(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    done = CliRunner().invoke(dashboards, ["check", str(path)])
    assert done.exit_code == 3
    assert words in done.stderr
    assert done.stdout == ""


def test_wrong_objectives_exit_3_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (shipped_directory() / "cmo-015.yml").read_text()
    (tmp_path / "cmo-015.yml").write_text(text.replace("target: 50", "target: fifty"))
    monkeypatch.setattr("cmo_dashboards.shipped.shipped_directory", lambda: tmp_path)
    done = CliRunner().invoke(dashboards, ["build", "--output", str(tmp_path / "new")])
    assert done.exit_code == 3
    assert "cmo-015.yml" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_exits_3(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    done = CliRunner().invoke(dashboards, ["build", "--output", str(tmp_path / "taken")])
    assert done.exit_code == 3
    assert "cannot be written" in done.stderr
