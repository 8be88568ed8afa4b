"""The committed Prometheus configuration and rules on real servers: they load, and every rule works."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from cmo_slo.rulefile import shipped_rules_directory
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from cmo_stack import servers

CONFIGURATION = Path(__file__).resolve().parents[2] / "prometheus/prometheus.yml"
RULES = ("cmo-015.yml", "cmo-015-1s.yml")
DEADLINE_SECONDS = 120.0
WITHOUT_A_SERVICE = {"CMOWatchdog", "CMOServiceDown", "CMOScrapeFailing"}
"""What is pending or fires where nothing is scraped."""


def answer(url: str, path: str) -> Any:
    return requests.get(f"{url}{path}", timeout=10).json()["data"]


def ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=1).ok
    except requests.RequestException:
        return False


def start(server: servers.Server, configuration: Path, tmp_path: Path) -> tuple[ManagedProcess, str]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        str(server.path),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        # The committed file names well-known ports: what listens there must not hear of this test's alerts.
        "--alertmanager.notification-queue-capacity=0",
    ]
    process = ManagedProcess(
        server.label,
        command,
        log_path=tmp_path / "log",
        ready=lambda: ready(url),
        environment=server.environment,
    )
    return process, url


def test_the_configuration_loads_as_it_is(prometheus_server: servers.Server, tmp_path: Path) -> None:
    process, url = start(prometheus_server, CONFIGURATION, tmp_path)
    with process:
        groups = answer(url, "/api/v1/rules")["groups"]
        running = yaml.safe_load(answer(url, "/api/v1/status/config")["yaml"])
    assert {group["name"].removeprefix("cmo-015-"): group["interval"] for group in groups} == {
        "events": 15.0,
        "hourly": 3600.0,
        "long-windows": 60.0,
        "tickets": 60.0,
        "objectives": 15.0,
    }
    jobs = [job["job_name"] for job in running["scrape_configs"]]
    assert jobs == ["cmo", "probe", "prometheus", "alertmanager"]
    assert running["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:9093"]


@pytest.mark.parametrize("name", RULES)
def test_no_rule_fails_without_a_service(
    prometheus_server: servers.Server, tmp_path: Path, name: str
) -> None:
    """Absent series are no error, and raise no alert but those that say that nothing is there."""
    configuration = tmp_path / "prometheus.yml"
    rules = yaml.safe_load((shipped_rules_directory() / name).read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group["interval"] = "1s"
    (tmp_path / name).write_text(yaml.safe_dump(rules))
    configuration.write_text(yaml.safe_dump({"rule_files": [str(tmp_path / name)]}))

    process, url = start(prometheus_server, configuration, tmp_path)
    with process:
        deadline = time.monotonic() + DEADLINE_SECONDS
        states: set[str] = {"unknown"}
        while "unknown" in states and time.monotonic() < deadline:
            found = [rule for group in answer(url, "/api/v1/rules")["groups"] for rule in group["rules"]]
            states = {rule["health"] for rule in found}
            time.sleep(0.1)
    assert states == {"ok"}
    alerts = {rule["name"]: rule for rule in found if rule.get("alerts")}
    assert set(alerts) == WITHOUT_A_SERVICE
    assert alerts["CMOWatchdog"]["state"] == "firing"
    # They wait as long as a restart takes: a monitor that has just started wakes nobody.
    assert {alert["state"] for alert in alerts["CMOServiceDown"]["alerts"]} == {"pending"}
    absent = {alert["labels"]["job"] for alert in alerts["CMOScrapeFailing"]["alerts"]}
    assert absent == {"cmo", "probe", "prometheus", "alertmanager"}
