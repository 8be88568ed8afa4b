"""The committed configurations start every Alertmanager as they are, and without a word of warning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from .running import ROOM, running

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack import servers


@pytest.mark.parametrize("name", ["alertmanager.yml", "production.yml"])
def test_every_alertmanager_starts_with_it(
    alertmanager_server: servers.Server, tmp_path: Path, name: str
) -> None:
    with running(alertmanager_server, ROOM / name, tmp_path) as manager:
        configured = yaml.safe_load(manager.status()["config"]["original"])
        log = manager.log.lower()
    committed = yaml.safe_load((ROOM / name).read_text())
    assert configured["route"]["receiver"] == "pager"
    assert [each["name"] for each in configured["receivers"]] == [
        each["name"] for each in committed["receivers"]
    ]
    assert len(configured["inhibit_rules"]) == 2
    assert "level=error" not in log
    assert "level=warn" not in log


@pytest.mark.parametrize("name", ["alertmanager.yml", "production.yml"])
def test_pages_wait_for_nothing_and_tickets_for_what_may_silence_them(name: str) -> None:
    root = yaml.safe_load((ROOM / name).read_text())["route"]
    assert (root["group_by"], root["group_wait"], root["group_interval"]) == (["alertname"], "0s", "2s")
    routes = {tuple(route["matchers"]): route for route in root["routes"]}
    times = ("group_by", "group_wait", "group_interval")
    assert not set(times) & set(routes[('severity="page"',)]), "a page has the times of the root"
    ticket = routes[('severity="ticket"',)]
    assert [ticket[time] for time in times] == [["alertname", "component"], "1m", "5m"]
