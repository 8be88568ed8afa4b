"""The monitor's own series: every name that the dashboards may ask for is exposed by every version here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import requests
import yaml
from cmo_dashboards.checks.names import OF_THE_MONITOR
from cmo_slo.monitor_series import MONITOR_COUNTERS
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from cmo_stack.servers import Server

OF_ALL: Final = ("process_",)
LISTEN: Final = "--web.listen-address=127.0.0.1:{port}"


def test_prometheus_exposes_its_part(prometheus_server: Server, tmp_path: Path) -> None:
    rule = {"record": "one", "expr": "vector(1)"}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "seeded", "rules": [rule]}]}))
    nobody = {"static_configs": [{"targets": [f"127.0.0.1:{free_port()}"]}]}
    configuration = {"rule_files": ["rules.yml"], "alerting": {"alertmanagers": [nobody]}}
    (tmp_path / "server.yml").write_text(yaml.safe_dump(configuration))
    options = [f"--config.file={tmp_path / 'server.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    _exposes("prometheus_", prometheus_server, [*options, LISTEN], tmp_path)


def test_the_alertmanager_exposes_its_part(alertmanager_server: Server, tmp_path: Path) -> None:
    configuration = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    (tmp_path / "server.yml").write_text(yaml.safe_dump(configuration))
    options = [f"--config.file={tmp_path / 'server.yml'}", f"--storage.path={tmp_path / 'data'}"]
    options += ["--cluster.listen-address=", LISTEN]
    _exposes("alertmanager_", alertmanager_server, options, tmp_path)


def test_vmalert_exposes_its_part(vmalert: Path, tmp_path: Path) -> None:
    rules = [{"record": "one", "expr": "vector(1)"}, {"alert": "One", "expr": "vector(1)"}]
    group = {"name": "seeded", "interval": "1s", "rules": rules}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [group]}))
    nobody = f"http://127.0.0.1:{free_port()}"
    options = [f"-{one}.url={nobody}" for one in ("datasource", "remoteWrite", "notifier")]
    options += [f"-rule={tmp_path / 'rules.yml'}", "-httpListenAddr=127.0.0.1:{port}"]
    _exposes("vmalert_", vmalert, options, tmp_path)


def test_what_the_rules_read_of_the_monitor_the_dashboards_know_with_the_same_labels() -> None:
    assert {name: OF_THE_MONITOR[name] for name in MONITOR_COUNTERS} == dict(MONITOR_COUNTERS)


def _exposes(prefix: str, server: Server | Path, options: list[str], folder: Path) -> None:
    """A server exposes all that is known by a prefix; its last option says at which ``{port}``."""
    port = free_port()
    expected = {name: labels for name, labels in OF_THE_MONITOR.items() if name.startswith((prefix, *OF_ALL))}
    assert len(expected) > 4
    program, environment = (server, {}) if isinstance(server, Path) else (server.path, server.environment)
    command = [str(program), *options[:-1], options[-1].format(port=port)]
    found: dict[str, set[str]] = {}

    def complete() -> bool:
        # Some appear with the first evaluation, so that to be ready is not enough.
        found.update(_exposed(f"http://127.0.0.1:{port}/metrics"))
        return expected.keys() <= found.keys()

    with ManagedProcess(prefix, command, log_path=folder / "log", ready=complete, environment=environment):
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
