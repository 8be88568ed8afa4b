"""The monitor's own series: every name that the dashboards may ask for is exposed by every version here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import requests
import yaml
from cmo_dashboards.checks.names import OF_THE_MONITOR
from cmo_slo.monitor_series import MONITOR_COUNTERS
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack.servers import Server

OF_BOTH: Final = ("process_",)


def test_prometheus_exposes_its_part(prometheus_server: Server, tmp_path: Path) -> None:
    rule = {"record": "one", "expr": "vector(1)"}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "seeded", "rules": [rule]}]}))
    nobody = {"static_configs": [{"targets": [f"127.0.0.1:{free_port()}"]}]}
    configuration = {"rule_files": ["rules.yml"], "alerting": {"alertmanagers": [nobody]}}
    (tmp_path / "server.yml").write_text(yaml.safe_dump(configuration))
    _exposes(prometheus_server, tmp_path, "prometheus_", [f"--storage.tsdb.path={tmp_path / 'data'}"])


def test_the_alertmanager_exposes_its_part(alertmanager_server: Server, tmp_path: Path) -> None:
    configuration = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    (tmp_path / "server.yml").write_text(yaml.safe_dump(configuration))
    options = [f"--storage.path={tmp_path / 'data'}", "--cluster.listen-address="]
    _exposes(alertmanager_server, tmp_path, "alertmanager_", options)


def test_what_the_rules_read_of_the_monitor_the_dashboards_know_with_the_same_labels() -> None:
    assert {name: OF_THE_MONITOR[name] for name in MONITOR_COUNTERS} == dict(MONITOR_COUNTERS)


def _exposes(server: Server, folder: Path, prefix: str, options: list[str]) -> None:
    port = free_port()
    expected = {
        name: labels for name, labels in OF_THE_MONITOR.items() if name.startswith((prefix, *OF_BOTH))
    }
    assert len(expected) > 4
    command = [
        str(server.path),
        f"--config.file={folder / 'server.yml'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *options,
    ]
    found: dict[str, set[str]] = {}

    def complete() -> bool:
        # Some appear with the first evaluation, so that to be ready is not enough.
        found.update(_exposed(f"http://127.0.0.1:{port}/metrics"))
        return expected.keys() <= found.keys()

    with ManagedProcess(
        server.label, command, log_path=folder / "log", ready=complete, environment=server.environment
    ):
        for name, labels in expected.items():
            assert set(labels) <= found[name], name


def _exposed(url: str) -> dict[str, set[str]]:
    try:
        text = requests.get(url, timeout=5).text
    except requests.RequestException:
        return {}
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
