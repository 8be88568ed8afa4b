"""The pager keeps and shows what a real Alertmanager sends it."""

from __future__ import annotations

import http.client
import json
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from cmo_stack import configuration, health, servers
from cmo_stack.free_ports import free_port
from cmo_stack.pager import phone_lines
from cmo_stack.ports import Ports
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALERT = {
    "labels": {"alertname": "CMOLiveQueriesFailing", "severity": "page"},
    "annotations": {"summary": "Live queries are failing", "runbook_url": "docs/runbooks/x.md"},
}


@pytest.fixture
def pager(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "cmo_stack.pager",
        "--port",
        str(port),
        "--log",
        str(tmp_path / "pages.jsonl"),
    ]
    with ManagedProcess(
        "pager", command, log_path=tmp_path / "pager.log", ready=partial(health.answers, port, "/healthz")
    ):
        yield port


def _post(port: int, path: str, content: object) -> int:
    connection = http.client.HTTPConnection(health.LOOPBACK, port, timeout=30)
    connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
    return connection.getresponse().status


def _pages(port: int) -> list[dict[str, object]]:
    pages: list[dict[str, object]] = json.loads(health.get(port, "/pages")[1])["pages"]
    return pages


def test_a_page_from_a_real_alertmanager_is_kept_and_shown(
    alertmanager_server: servers.Server,
    pager: int,
    tmp_path: Path,
    wait_until: Callable[[Callable[[], bool], str], None],
) -> None:
    ports = Ports(pager=pager, alertmanager=free_port())
    committed = configuration.committed("alertmanager", "alertmanager.yml")
    rendered = tmp_path / "alertmanager.yml"
    rendered.write_text(
        configuration.alertmanager_configuration(
            committed.read_text(), ports=ports, directory=committed.parent
        )
    )
    command = [
        str(alertmanager_server.path),
        f"--config.file={rendered}",
        f"--storage.path={tmp_path / 'storage'}",
        f"--web.listen-address={health.LOOPBACK}:{ports.alertmanager}",
        "--cluster.listen-address=",
    ]
    with ManagedProcess(
        "alertmanager",
        command,
        log_path=tmp_path / "alertmanager.log",
        ready=partial(health.answers, ports.alertmanager, "/-/ready"),
        environment=alertmanager_server.environment,
    ):
        assert _post(ports.alertmanager, "/api/v2/alerts", [ALERT]) == http.client.OK
        wait_until(lambda: bool(_pages(pager)), "the page has come")
    page = _pages(pager)[0]
    assert page["status"] == "firing"
    assert json.loads((tmp_path / "pages.jsonl").read_text().splitlines()[0]) == page
    shown = (tmp_path / "pager.log").read_text()
    assert "FIRING CMOLiveQueriesFailing [page]: Live queries are failing - docs/runbooks/x.md" in shown


@pytest.mark.parametrize("content", ["text", {"alerts": "none"}, {"alerts": [1]}, []])
def test_what_is_no_notification_is_refused(pager: int, content: object) -> None:
    assert _post(pager, "/page", content) == http.client.BAD_REQUEST
    assert _pages(pager) == []


def test_an_unknown_path_says_which_there_are(pager: int) -> None:
    status, body = health.get(pager, "/nothing")
    assert status == http.client.NOT_FOUND
    assert b"/pages" in body


def test_an_alert_without_labels_is_shown_too() -> None:
    assert phone_lines({"alerts": [{"status": "resolved"}]}) == ["RESOLVED unnamed alert"]
