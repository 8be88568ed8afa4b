"""The AlertmanagerConfig says what alertmanager/production.yml says: read back, compared, loaded."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cmo_stack import servers
from cmo_stack.kubernetes.alertmanager_config import NotInCustomResourceError, alertmanager_config

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/kubernetes/alertmanager-config.yml"
PRODUCTION: dict[str, Any] = yaml.safe_load((ROOT / "alertmanager/production.yml").read_text())
SECRETS = "/etc/alertmanager/secrets"
SMTP = ("smarthost", "from", "authUsername", "authPassword", "requireTLS")
PLAIN_NAMES = {
    "sourceMatch": "source_matchers",
    "targetMatch": "target_matchers",
    "routingKey": "routing_key_file",
    "apiURL": "api_url_file",
    "credentials": "credentials_file",
    "clientURL": "client_url",
}


def as_the_operator_reads_it(value: Any, name: str = "") -> Any:
    """The plain configuration: matchers as text, keys of the Secret as files, pairs as a mapping.

    Names are taken apart at their capitals, but for the few above.
    """
    if isinstance(value, list) and name in ("details", "headers"):
        return {one["key"]: one["value"] for one in value}
    if isinstance(value, list):
        return [as_the_operator_reads_it(one, name) for one in value]
    if not isinstance(value, dict):
        return value
    if "matchType" in value:
        return f'{value["name"]}{value["matchType"]}"{value["value"]}"'
    if value.keys() == {"name", "key"}:
        assert value["name"] == "cmo-alertmanager"
        return f"{SECRETS}/{value['key']}"
    return {plain_name(key): as_the_operator_reads_it(one, key) for key, one in value.items()}


def plain_name(name: str) -> str:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return PLAIN_NAMES.get(name, snake)


def read_back() -> dict[str, Any]:
    spec = yaml.safe_load(EXAMPLE.read_text())["spec"]
    mails = [mail for receiver in spec["receivers"] for mail in receiver.get("emailConfigs", ())]
    smtp = [{name: mail.pop(name) for name in SMTP} for mail in mails]
    assert smtp == smtp[:1] * len(smtp), "mail goes one way"
    plain: dict[str, Any] = as_the_operator_reads_it(spec)
    said = smtp[0]
    plain["global"] = {
        "smtp_smarthost": said["smarthost"],
        "smtp_from": said["from"],
        "smtp_auth_username": said["authUsername"],
        "smtp_auth_password_file": f"{SECRETS}/{said['authPassword']['key']}",
        "smtp_require_tls": said["requireTLS"],
    }
    return plain


def test_it_says_what_the_plain_configuration_says() -> None:
    everything_but_templates = {key: value for key, value in PRODUCTION.items() if key != "templates"}
    assert read_back() == everything_but_templates


def test_alertmanager_takes_what_the_operator_makes_of_it(tmp_path: Path) -> None:
    templates = str(ROOT / "alertmanager/templates/*.tmpl")
    (file := tmp_path / "alertmanager.yml").write_text(
        yaml.safe_dump({**read_back(), "templates": [templates]})
    )
    for amtool in servers.installed("amtool"):
        done = subprocess.run([str(amtool.path), "check-config", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " - 2 inhibit rules\n - 6 receivers\n - 1 templates" in done.stdout


def _changed(*place: str | int, value: Any) -> dict[str, Any]:
    changed: dict[str, Any] = yaml.safe_load(yaml.safe_dump(PRODUCTION))
    holder: Any = changed
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("global", "slack_api_url"), "https://…", "global.slack_api_url"),
        (("time_intervals",), [], "time_intervals"),
        (("route", "active_time_intervals"), ["nights"], "route.active_time_intervals"),
        (("route", "routes", 1, "routes", 0, "match"), {"a": "b"}, "route.routes.routes.match"),
        (("inhibit_rules", 0, "source_match"), {}, "inhibit_rules.source_match"),
        (("receivers", 0, "opsgenie_configs"), [], "receivers.opsgenie_configs"),
        (("receivers", 0, "slack_configs", 0, "api_url"), "https://…", "receivers.slack_configs.api_url"),
        (("receivers", 0, "webhook_configs", 0, "http_config", "proxy_url"), "x", "http_config.proxy_url"),
    ],
)
def test_a_field_without_counterpart_is_an_error_and_never_left_out(
    place: tuple[str | int, ...], value: Any, named: str
) -> None:
    with pytest.raises(NotInCustomResourceError, match=named.replace(".", r"\.")):
        alertmanager_config(_changed(*place, value=value))


@pytest.mark.parametrize("matcher", ["severity", 'severity = "page"', 'a="\\"', "a=b", 'a="b",c="d"'])
def test_a_matcher_that_is_not_understood_is_an_error(matcher: str) -> None:
    with pytest.raises(NotInCustomResourceError, match="no matcher"):
        alertmanager_config(_changed("route", "routes", 0, "matchers", value=[matcher]))


@pytest.mark.parametrize("kind", ["=", "!=", "=~", "!~"])
def test_every_kind_of_matcher_is_kept(kind: str) -> None:
    made = alertmanager_config(_changed("route", "routes", 0, "matchers", value=[f'role{kind}"a.b"']))
    expected = {"name": "role", "matchType": kind, "value": "a.b"}
    assert made["spec"]["route"]["routes"][0]["matchers"] == [expected]
