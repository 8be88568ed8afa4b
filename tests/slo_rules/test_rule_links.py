"""Where links of alerts lead: what is said on the command line or in variables, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from cmo_slo.cli_rules import rules
from cmo_slo.link_address import wrong_with_address
from cmo_slo.objectives import ObjectivesError, find_objectives, parse_objectives
from cmo_slo.rulefile import shipped_files, shipped_rules_directory

WIKI = "https://git.example.org/docs/runbooks"
GRAFANA = "https://grafana.example.org"
FLAGS = ("--runbooks-url", WIKI, "--dashboards-url", GRAFANA)
VARIABLES = {"CMO_RUNBOOKS_URL": WIKI, "CMO_DASHBOARDS_URL": GRAFANA}


def run(*arguments: str | Path, variables: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(rules, [str(argument) for argument in arguments], env=variables)


def alerts(text: str) -> list[dict[str, Any]]:
    document = yaml.safe_load(text)
    groups = document["spec"]["groups"] if "spec" in document else document["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def without_links(text: str) -> list[dict[str, Any]]:
    found = alerts(text)
    for alert in found:
        del alert["annotations"]["runbook_url"], alert["annotations"]["dashboard_url"]
    return found


@pytest.mark.parametrize("form", ["prometheus", "operator"])
@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        pytest.param(FLAGS, {}, id="flags"),
        pytest.param((), VARIABLES, id="variables"),
        pytest.param(FLAGS, dict.fromkeys(VARIABLES, "http://a"), id="flags before variables"),
        pytest.param(("--runbooks-url", f"{WIKI}/", "--dashboards-url", f"{GRAFANA}/"), {}, id="a slash"),
    ],
)
def test_every_alert_links_to_the_addresses_that_are_said(
    flags: tuple[str, ...], variables: dict[str, str], form: str
) -> None:
    result = run("build", "cmo-015", "--format", form, "--output", "-", *flags, variables=variables)
    assert result.exit_code == 0, result.output
    built = alerts(result.stdout)
    shipped = (shipped_rules_directory() / "cmo-015.yml").read_text(encoding="utf-8")
    assert [alert["alert"] for alert in built] == [alert["alert"] for alert in alerts(shipped)]
    for alert in built:
        assert alert["annotations"]["runbook_url"] == f"{WIKI}/{alert['alert']}.md"
        assert alert["annotations"]["dashboard_url"].startswith(f"{GRAFANA}/d/cmo-")


def test_nothing_else_of_an_alert_changes_and_what_is_not_said_stays() -> None:
    shipped = (shipped_rules_directory() / "cmo-015.yml").read_text(encoding="utf-8")
    with_both = run("build", "cmo-015", "--output", "-", *FLAGS).stdout
    assert without_links(with_both) == without_links(shipped)

    with_one = run("build", "cmo-015", "--output", "-", *FLAGS[:2]).stdout
    assert all(alert["annotations"]["dashboard_url"].startswith("/d/") for alert in alerts(with_one))


def test_a_check_of_what_was_built_knows_its_links(tmp_path: Path) -> None:
    built = tmp_path / "rules.yml"
    assert run("build", "cmo-015", "--output", built, *FLAGS).exit_code == 0
    check: list[str | Path] = ["check", built, "--objectives", "cmo-015", "--retention", "40d"]

    assert run(*check, *FLAGS).exit_code == 0
    assert run(*check, variables=VARIABLES).exit_code == 0
    other = run(*check)
    assert other.exit_code == 1
    assert "is not what the objectives compile to" in other.stdout


def test_variables_change_nothing_of_what_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has set them would else commit addresses of one team for everybody."""
    expected = shipped_files(tmp_path / "rules", tmp_path)
    monkeypatch.setattr("cmo_slo.cli_rules.shipped_files", lambda: expected)
    result = run("build", variables=VARIABLES)

    assert result.exit_code == 0, result.output
    for file in expected:
        assert file.fresh
        assert GRAFANA not in file.content
    assert "CMO_RUNBOOKS_URL and CMO_DASHBOARDS_URL count where OBJECTIVES are named" in result.stderr


WRONG = {
    "wiki.example.org/runbooks": "begins neither with https:// nor with http://",
    "docs/runbooks": "begins neither with https:// nor with http://",
    "ftp://wiki.example.org": "begins neither with https:// nor with http://",
    "javascript:alert(1)": "begins neither with https:// nor with http://",
    "https://": "names no host",
    "https:///runbooks": "names no host",
    "https://[::1/runbooks": "is no address",
    "https://wiki.example.org:port/": "is no address",
    "https://wiki.example.org/run books": "holds characters that no link has",
    "https://wiki.example.org/{{ $value }}": "holds characters that no link has",
    "https://wiki.example.org/\n": "holds characters that no link has",
    "https://wiki.example.org/?page=": "has a ? or a #",
    "https://wiki.example.org/#": "has a ? or a #",
    "https://me:secret@wiki.example.org/": "an address with a user in it",
    "ftp://me:secret@wiki.example.org/": "an address with a user in it",
    "https://me:secret@wiki.example.org/a b": "an address with a user in it",
    "https://me:secret@wiki.example.org/?page=": "an address with a user in it",
}


@pytest.mark.parametrize("option", ["--runbooks-url", "--dashboards-url"])
@pytest.mark.parametrize(("address", "wrong"), WRONG.items())
def test_an_address_that_leads_nowhere_is_refused(address: str, wrong: str, option: str) -> None:
    result = run("build", "cmo-015", "--output", "-", option, address)
    assert result.exit_code == 2, "click's own status for usage, which the entry point maps to 3"
    said = " ".join(result.stderr.split())
    assert f"Invalid value for '{option}'" in said
    assert wrong in said
    assert said.endswith("expected one such as https://git.example.org/docs/runbooks.")
    assert "secret" not in said
    assert result.stdout == ""


ADDRESSES = (
    WIKI,
    "http://10.0.0.1:3000",
    "https://[::1]:3000/grafana/",
    "https://git.example.org/a/b/-/blob/main",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_of_all_forms_are_taken(address: str) -> None:
    assert wrong_with_address(address) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("build", "--runbooks-url", WIKI),
        ("build", "--dashboards-url", GRAFANA),
        ("check", "--runbooks-url", WIKI),
        ("check", "rules.yml", "--dashboards-url", GRAFANA),
    ],
)
def test_links_without_objectives_are_asked_for_them(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, "click's own status for usage, which the entry point maps to 3"
    assert "OBJECTIVES" in result.stderr.upper()


FOLDERS = (
    "docs/runbooks",
    "docs/runbooks/",
    "/docs/runbooks",
    "./docs/runbooks",
    "../runbooks",
    ".github/runbooks",
    "docs/v1.2/runbooks",
    "./runbooks.d",
    "docs/runbooks:old",
)


def with_links_in_the_file(**links: str) -> str:
    """The shipped objectives, saying where links lead."""
    text = find_objectives("cmo-015").read_text(encoding="utf-8")
    return text.replace("objectives:\n", f"links: {json.dumps(links)}\n\nobjectives:\n", 1)


@pytest.mark.parametrize(("address", "wrong"), WRONG.items())
def test_an_address_of_grafana_in_a_file_is_checked_as_well(address: str, wrong: str) -> None:
    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(with_links_in_the_file(dashboards=address), "my.yml")
    (problem,) = caught.value.problems
    assert problem.field == "links.dashboards"
    assert wrong in problem.wrong
    assert problem.expected == "one such as https://git.example.org/docs/runbooks"
    assert problem.mend == "write the whole address"
    assert "secret" not in str(problem)


WRONG_IN_A_FILE = {
    **{address: wrong for address, wrong in WRONG.items() if address != "docs/runbooks"},
    "wiki.example.org": "begins neither with https:// nor with http://",
    "//wiki.example.org/runbooks": "begins neither with https:// nor with http://",
    "localhost:3000/runbooks": "begins neither with https:// nor with http://",
    "runbooks.d": "begins neither with https:// nor with http://",
    "docs/run books": "holds characters that no link has",
    "docs\\runbooks": "holds characters that no link has",
    "docs/{{ $labels.job }}": "holds characters that no link has",
    "docs/runbooks?page=": "has a ? or a #",
    "docs/runbooks#": "has a ? or a #",
}


@pytest.mark.parametrize(("link", "wrong"), WRONG_IN_A_FILE.items())
def test_runbooks_in_a_file_that_lead_nowhere_are_refused(link: str, wrong: str) -> None:
    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(with_links_in_the_file(runbooks=link), "my.yml")
    (problem,) = caught.value.problems
    assert problem.field == "links.runbooks"
    assert wrong in problem.wrong
    assert problem.expected == (
        "a folder such as docs/runbooks, or an address such as https://git.example.org/docs/runbooks"
    )
    assert problem.mend == "write one of these; a folder named like a host begins with ./"
    assert "secret" not in str(problem)


@pytest.mark.parametrize("link", [*FOLDERS, *ADDRESSES])
def test_runbooks_in_a_file_may_be_a_folder_or_an_address(link: str) -> None:
    objectives = parse_objectives(with_links_in_the_file(runbooks=link, dashboards=""), "my.yml")
    assert (objectives.links.runbooks, objectives.links.dashboards) == (link, "")


def test_the_steps_of_the_page_on_alertmanager_give_what_it_shows(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/alertmanager.md").read_text(encoding="utf-8")
    (block,) = (
        one for one in re.findall(r"```console\n(.*?)```", page, re.DOTALL) if "--runbooks-url" in one
    )
    lines = [line.removeprefix("   ") for line in block.replace("\\\n", " ").splitlines()]
    build, *greps = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]
    rules_file = build[-1]
    assert build[:2] == ["cmo", "rules"]
    assert run(*build[2:-1], tmp_path / "rules.yml").exit_code == 0
    shown = [f"wrote {rules_file}"]
    for grep in greps:
        assert grep[-1] == rules_file
        done = subprocess.run(
            [*grep[:-1], tmp_path / "rules.yml"], capture_output=True, text=True, check=False
        )
        shown += done.stdout.splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("$ ")] == shown
