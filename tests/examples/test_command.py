"""`cmo kubernetes build` as people run it: what it writes, and what it says when it cannot."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from cmo_stack import cli

Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]


def test_it_writes_what_the_kustomization_names_and_nothing_to_standard_output(
    tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "not/yet/there"
    assert cli.run(["kubernetes", "build", "--output", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {*named, "kustomization.yaml"}
    assert err.splitlines() == [f"wrote {folder / name}" for name in [*named, "kustomization.yaml"]]


def test_the_command_of_the_readme_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "examples/kubernetes/README.md").read_text()
    (command,) = re.findall(r"^ +(cmo kubernetes build (?:.*\\\n)*.*)$", readme, re.MULTILINE)
    assert cli.run(shlex.split(command.replace("\\\n", " "))[1:]) == 0
    kustomization = next(tmp_path.glob("*/kustomization.yaml"))
    assert f"resources: [{kustomization.parent.name}]" in readme
    assert f"grep -rn 'FILL IN' {kustomization.parent.name}" in readme


@pytest.mark.parametrize("name", ["true", "123", "1e3", "monitoring"])
def test_a_namespace_is_a_text_whatever_it_looks_like(tmp_path: Path, name: str) -> None:
    assert cli.run(["kubernetes", "build", "--output", str(tmp_path), "--namespace", name]) == 0
    assert yaml.safe_load((tmp_path / "kustomization.yaml").read_text())["namespace"] == name


def test_what_is_there_under_other_names_stays(tmp_path: Path) -> None:
    (mine := tmp_path / "README.md").write_text("mine")
    assert cli.run(["kubernetes", "build", "--output", str(tmp_path)]) == 0
    assert mine.read_text() == "mine"


def test_links_lead_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMO_DASHBOARDS_URL", "https://grafana.example.org")
    arguments = ["--output", str(tmp_path), "--runbooks-url", "https://git.example.org/runbooks"]
    assert cli.run(["kubernetes", "build", *arguments]) == 0
    rules = yaml.safe_load((tmp_path / "prometheus-rule.yml").read_text())["spec"]["groups"]
    links = [rule["annotations"] for group in rules for rule in group["rules"] if "alert" in rule]
    assert {link["runbook_url"].rpartition("/")[0] for link in links} == {"https://git.example.org/runbooks"}
    assert {link["dashboard_url"].partition("/d/")[0] for link in links} == {"https://grafana.example.org"}


@pytest.mark.parametrize("address", ["https://git.example.org/runbooks", "HTTPS://git.example.org/runbooks"])
def test_dashboards_link_to_the_runbooks_as_alerts_do(address: str, tmp_path: Path) -> None:
    arguments = ["--output", str(tmp_path / "manifests"), "--runbooks-url", address]
    assert cli.run(["kubernetes", "build", *arguments]) == 0
    arguments = ["--output", str(tmp_path / "plain"), "--runbooks-url", "https://git.example.org/runbooks"]
    assert cli.run(["dashboards", "build", *arguments]) == 0
    plain = {path.name: path.read_text() for path in (tmp_path / "plain").iterdir()}
    manifests = [yaml.safe_load(path.read_text()) for path in (tmp_path / "manifests/dashboards").iterdir()]
    assert {name: text for one in manifests for name, text in one["data"].items()} == plain
    assert "https://git.example.org/runbooks/${__data.fields.alertname}.md" in plain["cmo-overview.json"]


def test_dashboards_link_where_the_objectives_say_for_good(tmp_path: Path) -> None:
    shipped = (ROOT / "slo_rules/objectives/cmo-015.yml").read_text()
    mine = tmp_path / "mine.yml"
    mine.write_text(f"{shipped}\nlinks:\n  runbooks: https://wiki.example.org/runbooks\n")
    assert cli.run(["kubernetes", "build", str(mine), "--output", str(tmp_path / "manifests")]) == 0
    overview = (tmp_path / "manifests/dashboards/cmo-overview.yml").read_text()
    assert "https://wiki.example.org/runbooks/${__data.fields.alertname}.md" in overview


def test_an_interval_has_one_spelling(tmp_path: Path) -> None:
    for spelling in ("60s", "1m"):
        arguments = ["--output", str(tmp_path / spelling), "--scrape-interval", spelling]
        assert cli.run(["kubernetes", "build", *arguments]) == 0
    one, other = ((tmp_path / spelling / "service-monitors.yml").read_text() for spelling in ("60s", "1m"))
    assert one == other


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--output"),
        (["--output", "there", "nothing.yml"], "nothing.yml"),
        (["--output", "there", "--namespace", "Monitoring"], "'Monitoring' is no name of a namespace"),
        (["--output", "there", "--scrape-interval", "soon"], "'soon' is no duration"),
        (["--output", "there", "--runbooks-url", "here"], "runbooks-url"),
        (["--output", "file/there"], "file/there/service-monitors.yml cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_words_and_nothing_is_written(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert cli.run(["kubernetes", "build", *arguments]) == 3
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in out + err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
