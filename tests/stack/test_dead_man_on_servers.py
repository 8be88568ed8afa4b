"""The dead-man behind real servers: it pages when Prometheus or the Alertmanager stops, and never sooner."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from cmo_stack import configuration, dead_man, health, servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from cmo_stack.topology import dead_man_timeout_seconds

from .watched_dead_man import Watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cmo_stack.ports import Ports

    Wait = Callable[[Callable[[], bool], str], None]

PAIRS: Final = list(
    {
        (prometheus.label, alertmanager.label): (prometheus, alertmanager)
        for end in (0, -1)
        for prometheus, alertmanager in [
            (servers.installed("prometheus")[end], servers.installed("alertmanager")[end])
        ]
    }.values()
)


@pytest.mark.parametrize("name", ["alertmanager.yml", "production.yml"])
def test_the_timer_lets_one_lost_notification_pass(name: str) -> None:
    route = yaml.safe_load(configuration.committed("alertmanager", name).read_text())["route"]
    (watchdog,) = [each for each in route["routes"] if each["receiver"] == "dead-man"]
    apart = _seconds(watchdog["repeat_interval"]) + _seconds(watchdog["group_interval"])
    timers = [dead_man.DEFAULT_TIMEOUT_SECONDS, *(dead_man_timeout_seconds(each) for each in range(1, 61))]
    assert all(timer >= 2 * apart for timer in timers)
    assert dead_man_timeout_seconds(15) == dead_man.DEFAULT_TIMEOUT_SECONDS


def test_a_stopped_prometheus_and_a_stopped_alertmanager_page(tmp_path: Path, wait_until: Wait) -> None:
    """The oldest servers and the newest, side by side, because most of it is waiting."""

    def stop_each(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        assert_stops_page(*PAIRS[number], folder, wait_until)

    with ThreadPoolExecutor() as side_by_side:
        for _ in side_by_side.map(stop_each, range(len(PAIRS))):
            pass


def assert_stops_page(
    prometheus_version: servers.Server,
    alertmanager_version: servers.Server,
    folder: Path,
    wait_until: Wait,
) -> None:
    watched = Watched(folder, 3.0, {})
    prometheus = _prometheus(prometheus_version, folder, watched.ports)
    alertmanager = _alertmanager(alertmanager_version, folder, watched.ports)
    with watched.pager, watched.dead_man, alertmanager, prometheus:
        wait_until(lambda: watched.is_in("hearing"), "the watchdog being heard")

        prometheus.kill()
        wait_until(lambda: _alerts(watched.ports) == [], "the watchdog's endsAt, which ends its repetition")
        wait_until(lambda: watched.statuses()[-1:] == ["firing"], "the page of Prometheus' end")
        assert watched.is_in("silent")

        prometheus.start()
        wait_until(lambda: watched.statuses()[-1] == "resolved", "the resolution")

        alertmanager.stop()
        wait_until(lambda: watched.statuses()[-1] == "firing", "the page of the Alertmanager's end")
        alertmanager.start()
        wait_until(lambda: watched.statuses()[-1] == "resolved", "its resolution")


def _prometheus(server: servers.Server, directory: Path, ports: Ports) -> ManagedProcess:
    labels = {"severity": "watchdog", "role": "monitoring", "component": "prometheus", "slo": "cmo-015"}
    rule = {"alert": "CMOWatchdog", "expr": "vector(1)", "labels": labels}
    (directory / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "watchdog", "rules": [rule]}]}))
    content = yaml.safe_load(configuration.committed("prometheus", "prometheus.yml").read_text())
    content["global"] = {"evaluation_interval": "1s"}
    content["rule_files"] = [str(directory / "rules.yml")]
    del content["scrape_configs"]
    content["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
        f"{health.LOOPBACK}:{ports.alertmanager}"
    ]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(content))
    port = free_port()
    command = [
        str(server.path),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        f"--web.listen-address={health.LOOPBACK}:{port}",
        # An alert ends four times this after Prometheus was last heard; by default, after four minutes.
        "--rules.alert.resend-delay=1s",
    ]
    return ManagedProcess(
        server.label,
        command,
        log_path=directory / "prometheus.log",
        ready=partial(health.answers, port, "/-/ready"),
        environment=server.environment,
    )


def _alertmanager(server: servers.Server, directory: Path, ports: Ports) -> ManagedProcess:
    committed = configuration.committed("alertmanager", "alertmanager.yml")
    content = yaml.safe_load(
        configuration.alertmanager_configuration(
            committed.read_text(), ports=ports, directory=committed.parent
        )
    )
    for route in content["route"]["routes"]:
        if route["receiver"] == "dead-man":
            route.update(group_interval="1s", repeat_interval="1s")
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(content))
    command = [
        str(server.path),
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address={health.LOOPBACK}:{ports.alertmanager}",
        "--cluster.listen-address=",
    ]
    return ManagedProcess(
        server.label,
        command,
        log_path=directory / "alertmanager.log",
        ready=partial(health.answers, ports.alertmanager, "/-/ready"),
        environment=server.environment,
    )


def _alerts(ports: Ports) -> list[Any]:
    alerts: list[Any] = json.loads(health.get(ports.alertmanager, "/api/v2/alerts")[1])
    return alerts


def _seconds(duration: str) -> float:
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
