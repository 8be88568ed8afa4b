"""Who gets which alert: asked of amtool, for every alert, on both configurations."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cmo_slo.rulefile import shipped_rules_directory
from cmo_stack import servers

from .alerts import ALERTS
from .running import ROOM

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = ("alertmanager.yml", "production.yml")
AMTOOLS = servers.installed("amtool")
every_amtool = pytest.mark.parametrize("amtool", AMTOOLS, ids=lambda server: server.label)
every_file = pytest.mark.parametrize("name", FILES)


def run(amtool: servers.Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(amtool.path), *arguments],
        env={**os.environ, **amtool.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def receiver(amtool: servers.Server, name: str, labels: Mapping[str, str]) -> str:
    words = [f"{label}={value}" for label, value in labels.items()]
    done = run(amtool, "config", "routes", "test", f"--config.file={ROOM / name}", *words)
    # The one warning that every such call has, whatever the configuration.
    assert done.stderr in {"", "Warning: --config.file flag overrides the --alertmanager.url.\n"}
    return done.stdout.strip()


def content(name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOM / name).read_text())
    return parsed


@every_amtool
@every_file
def test_every_alert_goes_to_its_receiver(amtool: servers.Server, name: str) -> None:
    found = {each: receiver(amtool, name, each.labels()) for each in ALERTS}
    assert {each: got for each, got in found.items() if got != each.receiver} == {}


@every_amtool
@every_file
@pytest.mark.parametrize(
    "labels",
    [
        {"alertname": "SomebodyElses"},
        {"alertname": "Misspelt", "severity": "Page"},
        {"alertname": "X", "severity": "critical"},
    ],
    ids=lambda labels: labels["alertname"],
)
def test_an_alert_that_no_route_knows_is_a_page(
    amtool: servers.Server, name: str, labels: dict[str, str]
) -> None:
    assert receiver(amtool, name, labels) == "pager"


@every_amtool
@every_file
def test_amtool_accepts_it_without_a_warning(amtool: servers.Server, name: str) -> None:
    done = run(amtool, "check-config", str(ROOM / name))
    said = done.stdout + done.stderr
    assert "2 inhibit rules\n - 6 receivers\n - 1 templates" in said
    assert "warn" not in said.lower()


def test_every_compiled_alert_is_in_the_table() -> None:
    """With its severity, so that a new alert, or one that changes, cannot be forgotten here."""
    table = {(each.name, each.severity) for each in ALERTS}
    compiled = {
        (rule["alert"], rule["labels"]["severity"])
        for file in shipped_rules_directory().glob("*.yml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert compiled
    assert compiled <= table


def test_both_configurations_route_and_silence_alike() -> None:
    stack, production = (content(name) for name in FILES)
    assert stack["route"] == production["route"]
    assert stack["inhibit_rules"] == production["inhibit_rules"]
    assert {each["name"] for each in stack["receivers"]} == {each["name"] for each in production["receivers"]}


def test_the_stack_has_its_receivers_on_this_machine() -> None:
    urls = [
        hook["url"]
        for each in content("alertmanager.yml")["receivers"]
        for hook in each.get("webhook_configs", ())
    ]
    assert len(urls) == 5
    assert all(url.startswith("http://127.0.0.1:") for url in urls)


@every_file
def test_no_secret_stands_in_it(name: str) -> None:
    """Whatever holds a secret in an Alertmanager's configuration is there only as the name of a file."""
    inline = {
        "api_key",
        "api_url",
        "api_secret",
        "auth_password",
        "auth_secret",
        "bearer_token",
        "bot_token",
        "client_secret",
        "credentials",
        "password",
        "routing_key",
        "secret_key",
        "service_key",
        "slack_api_url",
        "smtp_auth_password",
        "smtp_auth_secret",
        "token",
        "user_key",
    }
    pairs = list(_pairs(content(name)))
    assert {key for key, _ in pairs} & inline == set()
    files = [value for key, value in pairs if key.endswith("_file")]
    assert all(value.startswith("/etc/alertmanager/secrets/") for value in files)
    assert len(set(files)) == (7 if name == "production.yml" else 0)


def test_what_is_to_be_filled_in_is_marked() -> None:
    lines = (ROOM / "production.yml").read_text().splitlines()
    examples = [line for line in lines if "example.org" in line and not line.startswith("#")]
    assert examples
    assert [line for line in examples if "# FILL IN" not in line] == []


def _pairs(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        inside = [pair for item in value.values() for pair in _pairs(item)]
        return [*((key, item) for key, item in value.items()), *inside]
    if isinstance(value, list):
        return [pair for item in value for pair in _pairs(item)]
    return []
