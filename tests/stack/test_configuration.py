"""The committed configuration, rendered for a run, is one that the real servers accept."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from cmo_stack import configuration, servers
from cmo_stack.ports import Ports

PORTS = Ports(
    redis=1, upstream=2, service=3, metrics=4, prober=9, pager=5, dead_man=8, alertmanager=6, prometheus=7
)


def _prometheus(directory: Path, interval: int = 1) -> str:
    return configuration.prometheus_configuration(
        configuration.committed("prometheus", "prometheus.yml").read_text(),
        ports=PORTS,
        scrape_interval_seconds=interval,
        rules=[configuration.rule_file("cmo-015", interval, directory)],
    )


def _alertmanager() -> str:
    committed = configuration.committed("alertmanager", "alertmanager.yml")
    return configuration.alertmanager_configuration(
        committed.read_text(), ports=PORTS, directory=committed.parent
    )


@pytest.mark.parametrize("promtool", servers.installed("promtool"), ids=lambda server: server.label)
def test_promtool_accepts_it(promtool: servers.Server, tmp_path: Path) -> None:
    rendered = tmp_path / "prometheus.yml"
    rendered.write_text(_prometheus(tmp_path))
    _run(promtool, "check", "config", str(rendered))


@pytest.mark.parametrize("amtool", servers.installed("amtool"), ids=lambda server: server.label)
def test_amtool_accepts_it(amtool: servers.Server, tmp_path: Path) -> None:
    rendered = tmp_path / "alertmanager.yml"
    rendered.write_text(_alertmanager())
    assert "1 templates" in _run(amtool, "check-config", str(rendered))


def test_every_address_is_this_runs() -> None:
    content = yaml.safe_load(_prometheus(Path("unused")))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in content["scrape_configs"]}
    assert targets["cmo"] == ["127.0.0.1:4"]
    assert targets["probe"] == ["127.0.0.1:9"]
    assert targets["alertmanager"] == ["127.0.0.1:6"]
    assert content["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:6"]
    receivers = {each["name"]: each for each in yaml.safe_load(_alertmanager())["receivers"]}
    urls = {name: hook["url"] for name, each in receivers.items() for hook in each.get("webhook_configs", ())}
    assert urls.pop("dead-man").split("/")[2] == "127.0.0.1:8"
    assert {url.split("/")[2] for url in urls.values()} == {"127.0.0.1:5"}


def test_intervals_are_this_runs_and_no_job_has_its_own() -> None:
    template = "global: {scrape_interval: 15s}\nscrape_configs: [{job_name: cmo, scrape_interval: 30s}]\n"
    rendered = yaml.safe_load(
        configuration.prometheus_configuration(template, ports=PORTS, scrape_interval_seconds=2, rules=[])
    )
    assert rendered["global"]["scrape_interval"] == rendered["global"]["evaluation_interval"] == "2s"
    assert rendered["scrape_configs"] == [{"job_name": "cmo"}]


def test_a_committed_rule_file_is_used_and_another_interval_is_compiled(tmp_path: Path) -> None:
    assert configuration.rule_file("cmo-015", 1, tmp_path).parent != tmp_path
    compiled = configuration.rule_file("cmo-015", 7, tmp_path)
    assert compiled.parent == tmp_path
    assert "interval: 7s" in compiled.read_text()


def test_a_missing_file_says_where_it_was_looked_for() -> None:
    with pytest.raises(
        configuration.ConfigurationMissingError, match=r"prometheus/no\.yml is missing: looked in"
    ):
        configuration.committed("prometheus", "no.yml")


def _run(server: servers.Server, *arguments: str) -> str:
    done = subprocess.run(
        [str(server.path), *arguments],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
