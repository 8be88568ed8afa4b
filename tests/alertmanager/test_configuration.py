"""The Alertmanager's configuration on real Alertmanagers: it loads, and reads well on a phone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import requests
import yaml
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

CONFIGURATION = Path(__file__).resolve().parents[2] / "alertmanager/alertmanager.yml"
AMTOOLS = servers.installed("amtool")


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


def test_every_alertmanager_starts_with_it(alertmanager_server: servers.Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        str(alertmanager_server.path),
        f"--config.file={CONFIGURATION}",
        f"--storage.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with ManagedProcess(
        alertmanager_server.label,
        command,
        log_path=tmp_path / "log",
        ready=lambda: answers(f"{url}/-/ready"),
        environment=alertmanager_server.environment,
    ):
        status = requests.get(f"{url}/api/v2/status", timeout=10).json()
    running = yaml.safe_load(status["config"]["original"])
    assert running["route"]["receiver"] == "pager"
    assert running["route"]["group_wait"] == "0s"
    assert running["receivers"][0]["webhook_configs"][0]["send_resolved"] is True


def render(amtool: servers.Server, template: str, status: str, tmp_path: Path) -> str:
    alert = {
        "status": status,
        "labels": {"alertname": "CMOLiveQueriesFailing"},
        "annotations": {
            "summary": "Live queries are failing",
            "description": "30% of the live queries were bad.",
            "runbook": "docs/runbooks/CMOLiveQueriesFailing.md",
            "dashboard": "/d/cmo-015",
        },
        "startsAt": "2026-01-01T10:00:00Z",
        "endsAt": "2026-01-01T10:02:30Z",
    }
    data = tmp_path / "data.json"
    data.write_text(
        json.dumps(
            {
                "status": status,
                "receiver": "pager",
                "groupLabels": {"alertname": "CMOLiveQueriesFailing"},
                "commonLabels": alert["labels"],
                "commonAnnotations": alert["annotations"],
                "externalURL": "http://127.0.0.1:9093",
                "alerts": [alert],
            }
        )
    )
    command = [
        str(amtool.path),
        "template",
        "render",
        f"--template.glob={CONFIGURATION.parent / 'templates/*.tmpl'}",
        f'--template.text={{{{ template "{template}" . }}}}',
        f"--template.data={data}",
    ]
    done = subprocess.run(
        command, env={**os.environ, **amtool.environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("amtool", AMTOOLS, ids=lambda server: server.label)
def test_a_page_says_first_what_is_wrong_and_last_where_to_go(amtool: servers.Server, tmp_path: Path) -> None:
    assert render(amtool, "cmo.title", "firing", tmp_path) == "PAGE: Live queries are failing"
    assert render(amtool, "cmo.text", "firing", tmp_path).splitlines() == [
        "30% of the live queries were bad.",
        "Since 10:00:00 UTC",
        "Runbook: docs/runbooks/CMOLiveQueriesFailing.md",
        "Dashboard: /d/cmo-015",
    ]


@pytest.mark.parametrize("amtool", AMTOOLS, ids=lambda server: server.label)
def test_a_resolution_says_how_long_it_was(amtool: servers.Server, tmp_path: Path) -> None:
    assert render(amtool, "cmo.title", "resolved", tmp_path) == "RESOLVED: Live queries are failing"
    assert render(amtool, "cmo.text", "resolved", tmp_path) == (
        "Live queries are failing: over since 10:02:30 UTC, after 2m30s"
    )
