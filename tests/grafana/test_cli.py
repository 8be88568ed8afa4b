"""``cmo dashboards``: what is written, what is printed, and the exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cmo_dashboards.cli import dashboards
from cmo_dashboards.shipped import compiled_directory
from cmo_slo.objectives import shipped_directory
from cmo_stack.free_ports import free_port

if TYPE_CHECKING:
    from pathlib import Path


def test_build_writes_the_same_files_and_prints_where(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "dashboards.md"
    done = CliRunner().invoke(dashboards, ["build", "--output", str(tmp_path / "new"), "--docs", str(page)])
    assert done.exit_code == 0, done.output
    committed = _files(compiled_directory())
    assert _files(tmp_path / "new") == committed
    assert sorted(done.stdout.splitlines()) == sorted(
        [*(str(tmp_path / "new" / name) for name in committed), str(page)]
    )


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}


def test_build_with_published_runbooks_links_each_alert_to_its_own(tmp_path: Path) -> None:
    options = ["--output", str(tmp_path), "--runbooks-url", "https://git.example.org/runbooks/"]
    done = CliRunner().invoke(dashboards, ["build", *options])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "runbooks").exists(), "links lead to those that are published"
    for name in ("cmo-overview", "cmo-015"):
        document = json.loads((tmp_path / f"{name}.json").read_text())
        [table] = [panel for panel in document["panels"] if panel["type"] == "table"]
        [link] = table["fieldConfig"]["defaults"]["links"]
        assert link["url"] == "https://git.example.org/runbooks/${__data.fields.alertname}.md"
        assert "placement" not in link
    document = json.loads((tmp_path / "cmo-overview.json").read_text())
    pages = [panel["links"][0]["url"] for panel in document["panels"] if panel["title"].startswith("Success")]
    assert pages == ["https://git.example.org/runbooks/CMOLiveQueriesFailing.md"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "made", "--runbooks-url", "docs/runbooks"], "no browser could open that"),
        (["--output", "made", "--runbooks-url", "https://"], "expected"),
        (["--runbooks-url", "https://git.example.org"], "needs --output"),
    ],
)
def test_runbooks_that_nobody_could_open_exit_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(dashboards, ["build", *options])
    assert done.exit_code == 3
    assert words in done.stderr
    assert "pydantic" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_check_of_the_compiled_dashboards_is_clean() -> None:
    done = CliRunner().invoke(dashboards, ["check"])
    assert (done.exit_code, done.stdout) == (0, "")


def test_check_prints_one_line_a_finding_and_exits_1(tmp_path: Path) -> None:
    document = json.loads((compiled_directory() / "cmo-015.json").read_text())
    document["panels"][1]["targets"][0].update(expr="sum(cmo_querys_total)", legendFormat="")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(document))
    done = CliRunner().invoke(dashboards, ["check", str(bad)])
    assert done.exit_code == 1
    [line] = done.stdout.splitlines()
    assert line.startswith(f"{bad}: names: ")
    assert "cmo_querys_total" in line


@pytest.mark.parametrize("character", ["\n", "\x1b", "\ud800"])
def test_what_a_finding_quotes_does_not_break_its_line(tmp_path: Path, character: str) -> None:
    document = json.loads((compiled_directory() / "cmo-015.json").read_text())
    document["panels"][1]["targets"][0].update(expr=f"sum(cmo_querys_total){character}", legendFormat="")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(document))
    done = CliRunner().invoke(dashboards, ["check", str(bad)])
    assert done.exit_code == 1
    assert done.stdout.rstrip("\n").isprintable()


def test_check_says_when_the_compiled_dashboards_are_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in compiled_directory().glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    document = json.loads((tmp_path / "cmo-015.json").read_text())
    document["description"] = "edited by hand"
    (tmp_path / "cmo-015.json").write_text(json.dumps(document))
    monkeypatch.setattr("cmo_dashboards.cli.compiled_directory", lambda: tmp_path)
    done = CliRunner().invoke(dashboards, ["check"])
    assert done.exit_code == 1
    [line] = done.stdout.splitlines()
    assert line.startswith(str(tmp_path / "cmo-015.json"))
    assert "is stale" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--idle"], "needs --prometheus-url"),
        (["--prometheus-url", "http://127.0.0.1:1", "some.json"], "exclude each other"),
        (["--prometheus-url", "http://127.0.0.1:1", "--range", "an hour"], "such as 15m"),
        (["--prometheus-url", "http://127.0.0.1:1", "--range", "0s"], "such as 15m"),
        (["--prometheus-url", "http://127.0.0.1:1", "--scrape-interval", "1m"], "such as 15s"),
    ],
)
def test_options_of_a_live_check_that_make_no_sense_exit_3(options: list[str], words: str) -> None:
    done = CliRunner().invoke(dashboards, ["check", *options])
    assert done.exit_code == 3
    assert words in done.stderr
    assert done.stdout == ""


def test_a_prometheus_that_is_not_there_exits_4_in_words() -> None:
    command = [sys.executable, "-m", "cmo_stack.cli", "dashboards", "check"]
    url = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run([*command, "--prometheus-url", url], capture_output=True, text=True)
    assert done.returncode == 4
    assert f"No connection to {url}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
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
