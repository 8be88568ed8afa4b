"""docs/alertmanager.md and the runbook say what the committed files do, and its commands do what it shows."""

from __future__ import annotations

import copy
import datetime
import grp
import os
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import yaml
from cmo_stack import dead_man, servers, watchdog

from .receiving import receiving_http
from .running import ROOM, route_of, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
PAGE: Final = (DOCS / "alertmanager.md").read_text(encoding="utf-8")
PRODUCTION: Final = (ROOM / "production.yml").read_text(encoding="utf-8")
TAKEN_OUT: Final = dict(re.findall(r"^ +\| ([^|`]+) \| ([^|]*`(?:smtp_|[a-z]+_configs).*) \|$", PAGE, re.M))
every_amtool = pytest.mark.parametrize("amtool", servers.installed("amtool"), ids=lambda server: server.label)


def test_every_receiver_and_every_secret_is_explained() -> None:
    content = yaml.safe_load(PRODUCTION)
    named = {each["name"] for each in content["receivers"]} - {"nobody"}
    assert {name for name in named if f"`{name}`" not in PAGE} == set()
    secrets = set(re.findall("/etc/alertmanager/secrets/([a-z-]+)", PRODUCTION))
    assert len(secrets) == 7
    assert {name for name in secrets if f"`{name}`" not in PAGE} == set()


def test_every_time_is_the_committed_one() -> None:
    route = yaml.safe_load(PRODUCTION)["route"]
    tickets, watchdog = (route_of({"route": route}, name) for name in ("tickets", "dead-man"))
    assert (route["repeat_interval"], tickets["group_wait"], tickets["repeat_interval"]) == (
        "4h",
        "1m",
        "24h",
    )
    assert "| at once; alerts of one name are one page | after 4 h |" in PAGE
    assert PAGE.count("| after 1 min | after 24 h |") == 3
    assert (watchdog["repeat_interval"], watchdog["group_interval"]) == ("50s", "10s")
    assert "| the watchdog comes again | after 50 to 60 s |" in PAGE
    assert tickets["group_interval"] == "5m"
    assert "within `group_interval` (5 min)" in PAGE
    assert f"| {dead_man.DEFAULT_TIMEOUT_SECONDS:g} s; 120 s in a stack" in PAGE


def test_a_runbook_names_the_step_that_sends_a_test() -> None:
    runbook = (DOCS / "runbooks/CMONotificationsFailing.md").read_text(encoding="utf-8")
    (step,) = re.findall(r'\(\.\./alertmanager\.md\), "Put it to work", step (\d+)', runbook)
    assert f"\n{step}. **Send a page and a ticket.**" in PAGE


def test_the_dead_mans_page_has_its_runbook() -> None:
    assert (
        (DOCS.parent / watchdog.RUNBOOK).read_text(encoding="utf-8").startswith(f"# {watchdog.ALERT_NAME}\n")
    )


@dataclass(frozen=True)
class Machine:
    """Where the page's commands run: /etc/alertmanager does not exist there, and PATH has one amtool."""

    folder: Path
    amtool: servers.Server

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        """What a shell does that stops at the first failure."""
        group = grp.getgrgid(os.getgid()).gr_name
        text = commands.replace("/etc/alertmanager", str(self.folder))
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text.replace("group=prometheus", f"group={group}")],
            cwd=ROOT,
            env={
                **os.environ,
                **self.amtool.environment,
                "PATH": f"{self.amtool.path.parent}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
        )

    def shows(self, block: str) -> None:
        """Every command of a console block prints what stands below it."""
        for command, _, printed in (
            part.partition("\n") for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.M)[1:]
        ):
            done = self.run(command)
            assert done.returncode == 0, done.stderr
            said = done.stdout.replace(str(self.folder), "/etc/alertmanager")
            assert _lines(said) == _lines(printed)


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a language, without what a list indents them by."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, text in found]


def block(language: str, words: str) -> str:
    """The one block of the page that has these words."""
    (found,) = [each for each in blocks(PAGE, language) if words in each]
    return found


@every_amtool
def test_the_steps_lead_to_a_configuration_with_its_templates(amtool: servers.Server, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "etc/alertmanager", amtool)
    copied = machine.run(block("sh", "cp alertmanager/templates"))
    assert copied.returncode == 0, copied.stderr
    assert copied.stdout.count("FILL IN") == PRODUCTION.count("# FILL IN"), "each line, and not the heading"
    secrets = machine.run(block("sh", "group=prometheus"))
    assert secrets.returncode == 0, secrets.stderr
    assert (machine.folder / "secrets").stat().st_mode & 0o777 == 0o750
    assert (machine.folder / "secrets/smtp-password").stat().st_mode & 0o777 == 0o440
    assert (machine.folder / "secrets/smtp-password").read_text() == "THE SECRET"
    machine.shows(block("console", "- name: pager"))
    machine.shows(block("console", "template render"))


@every_amtool
def test_a_folder_without_templates_is_found_by_the_second_check_alone(
    amtool: servers.Server, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "etc/alertmanager", amtool)
    assert machine.run(block("sh", "cp alertmanager/templates")).returncode == 0
    shutil.rmtree(machine.folder / "templates")
    commands = block("console", "template render").replace("\\\n", "").splitlines()
    check, render = (machine.run(line.removeprefix("$ ")) for line in commands if line.startswith("$ "))
    assert check.returncode == 0
    assert "1 templates" in check.stdout, "which is why the page does not stop here"
    assert render.returncode == 1
    assert 'template "cmo.title" not defined' in render.stderr
    assert 'template "cmo.title" not defined' in PAGE


def test_the_page_has_every_kind_of_integration_that_somebody_may_lack() -> None:
    assert {"e-mail", "Slack", "PagerDuty", "ticket webhook"} <= set(TAKEN_OUT)
    assert len(TAKEN_OUT) == 5


@every_amtool
@pytest.mark.parametrize("lacking", list(TAKEN_OUT))
def test_who_lacks_one_kind_of_integration_is_told_of_every_page_and_ticket(
    amtool: servers.Server, tmp_path: Path, lacking: str
) -> None:
    left = without(yaml.safe_load(PRODUCTION), lacking)
    _accepted(amtool, tmp_path, left)
    assert silent(left) == set()


@every_amtool
def test_an_empty_receiver_is_accepted_and_the_page_says_how_to_fill_it(
    amtool: servers.Server, tmp_path: Path
) -> None:
    left = without(without(yaml.safe_load(PRODUCTION), "Slack"), "ticket webhook")
    _accepted(amtool, tmp_path, left)
    assert silent(left) == {"tickets", "model-tickets"}
    receivers = {each["name"]: each for each in left["receivers"]}
    for name in ("tickets", "model-tickets"):
        receivers[name]["email_configs"] = copy.deepcopy(receivers["monitoring-tickets"]["email_configs"])
    _accepted(amtool, tmp_path, left)
    assert silent(left) == set()


@every_amtool
def test_the_list_for_slack_and_pagerduty_alone_leaves_everybody_told_by_them(
    amtool: servers.Server, tmp_path: Path
) -> None:
    (shown,) = yaml.safe_load(block("yaml", "heartbeat-url"))
    left: dict[str, Any] = copy.deepcopy(yaml.safe_load(PRODUCTION))
    for lacking in ("e-mail", "ticket webhook", "webhook that keeps pages"):
        left = without(left, lacking)
    assert _taken_by_the_list() == {
        name: set(before) - set(after)
        for name, before, after in _receivers_of(yaml.safe_load(PRODUCTION), left)
        if set(before) - set(after)
    }
    left["receivers"] = [shown if each["name"] == "dead-man" else each for each in left["receivers"]]
    if amtool.version < (0, 26, 0):
        shown["webhook_configs"][0] = {"url": "https://heartbeat.example.org", "send_resolved": False}
    _accepted(amtool, tmp_path, left)
    assert silent(left) == set()
    kinds = {key for each in left["receivers"] if each["name"] != "dead-man" for key in each} - {"name"}
    assert kinds == {"slack_configs", "pagerduty_configs"}
    assert not [key for key in left["global"] if key.startswith("smtp_")]


def _taken_by_the_list() -> dict[str, set[str]]:
    """What the page's list takes out of each receiver but the dead-man."""
    section = PAGE.partition("**Slack and PagerDuty alone**")[2].partition("Secrets of step 3")[0]
    taken: dict[str, set[str]] = {}
    for names, kinds in re.findall(r"^ +- of (.*): (.*_configs.*)[;.]$", section, re.M):
        for name in re.findall("`([^`]+)`", names):
            taken[name] = set(re.findall("`([^`]+)`", kinds))
    return taken


def _receivers_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [
        (one["name"], one, other) for one, other in zip(before["receivers"], after["receivers"], strict=True)
    ]


def without(content: Mapping[str, Any], lacking: str) -> dict[str, Any]:
    """The configuration after what the page's table has for somebody who lacks this."""
    left: dict[str, Any] = copy.deepcopy(dict(content))
    receivers = {each["name"]: each for each in left["receivers"]}
    for part in TAKEN_OUT[lacking].split("; "):
        kind, *names = re.findall("`([^`]+)`", part)
        if kind == "smtp_…":
            taken = [key for key in left["global"] if key.startswith("smtp_")]
            assert taken
            for key in taken:
                del left["global"][key]
        else:
            for name in names:
                del receivers[name][kind]
    return left


def silent(content: Mapping[str, Any]) -> set[str]:
    """Receivers of pages and tickets that have no integration."""
    receivers = {each["name"]: each for each in content["receivers"]}
    told = {
        route["receiver"]
        for route in _routes(content["route"])
        if not set(route.get("matchers", ())) & {'severity="info"', 'severity="watchdog"'}
    }
    assert {"pager", "tickets", "model-tickets", "monitoring-tickets"} <= told
    return {
        name for name in told if not any(receivers[name][key] for key in receivers[name] if key != "name")
    }


def _routes(route: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [route, *(below for child in route.get("routes", ()) for below in _routes(child))]


def _accepted(amtool: servers.Server, folder: Path, content: Mapping[str, Any]) -> None:
    configured = folder / "alertmanager.yml"
    configured.write_text(yaml.safe_dump(content))
    done = Machine(folder, amtool).run(f"amtool check-config {configured}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_hosted_heartbeat_hears_the_watchdog_at_the_address_in_a_file(
    alertmanager_server: servers.Server, tmp_path: Path
) -> None:
    content = yaml.safe_load(PRODUCTION)
    (shown,) = yaml.safe_load(block("yaml", "heartbeat-url"))
    with receiving_http() as http:
        address = tmp_path / "heartbeat-url"
        address.write_text(f"{http.url}/beat/secret-4717")
        if alertmanager_server.version < (0, 26, 0):
            shown["webhook_configs"][0].update(url=address.read_text())
            del shown["webhook_configs"][0]["url_file"]
        content["receivers"] = [
            shown if each["name"] == shown["name"] else each for each in content["receivers"]
        ]
        configured = tmp_path / "alertmanager.yml"
        text = yaml.safe_dump(content).replace("/etc/alertmanager/secrets/heartbeat-url", str(address))
        configured.write_text(text)
        with running(alertmanager_server, configured, tmp_path) as manager:
            manager.post({"labels": {"alertname": "CMOWatchdog", "severity": "watchdog"}})
            wait_until("the watchdog", lambda: bool(http.at("/beat/secret-4717")))
            assert "secret-4717" not in manager.log


@every_amtool
def test_the_page_says_which_alertmanager_knows_no_address_in_a_file(
    amtool: servers.Server, tmp_path: Path
) -> None:
    configured = tmp_path / "alertmanager.yml"
    configured.write_text(
        "route: {receiver: dead-man}\nreceivers:\n" + textwrap.indent(block("yaml", "heartbeat-url"), "  ")
    )
    done = Machine(tmp_path, amtool).run(f"amtool check-config {configured}")
    assert (done.returncode != 0) == (amtool.version < (0, 26, 0))
    assert ("field url_file not found" in done.stdout + done.stderr) == (done.returncode != 0)
    assert "field url_file not found" in PAGE


def test_an_alertmanager_does_not_take_what_the_dead_man_posts(
    alertmanager_server: servers.Server, tmp_path: Path
) -> None:
    page = watchdog.notification(datetime.datetime.now(datetime.UTC), None, "http://127.0.0.1:8096")
    with running(alertmanager_server, ROOM / "production.yml", tmp_path) as manager:
        answer = requests.post(f"{manager.url}/api/v2/alerts", json=page, timeout=30)
    assert answer.status_code == 400
    assert "its API takes no webhooks, and answers 400" in PAGE


@pytest.mark.parametrize("name", ["alertmanager.md", "set-up.md"])
def test_the_tools_are_where_the_page_says(name: str) -> None:
    (line,) = [
        each for each in blocks((DOCS / name).read_text(encoding="utf-8"), "sh") if each.startswith("export")
    ]
    if not (ROOT / ".servers/forky/usr/bin").is_dir():
        pytest.skip("the set-up has unpacked no servers of Debian's next release here")
    tools = (
        "command -v amtool promtool prometheus prometheus-alertmanager; amtool --version; promtool --version"
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line + tools], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()[:4]
    assert {Path(each).parent for each in found} == {ROOT / ".servers/forky/usr/bin"}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
