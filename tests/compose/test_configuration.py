"""What is mounted into the containers: as on one machine but for addresses, and taken by its own server."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cmo_stack import servers, vmalert_rules

from .compose_file import ROOT, SCALED, compose_file, flags, mounts, services


def _yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def _targets(job: dict[str, Any]) -> list[str]:
    return [target for group in job["static_configs"] for target in group["targets"]]


@pytest.mark.parametrize(("interval", "rules"), [("15s", "cmo-015.yml"), ("1s", "cmo-015-1s.yml")])
def test_prometheus_is_configured_as_on_one_machine(interval: str, rules: str) -> None:
    ours, local = _yaml(f"compose/prometheus/prometheus-{interval}.yml"), _yaml("prometheus/prometheus.yml")
    assert ours["global"] == dict.fromkeys(("scrape_interval", "evaluation_interval"), interval)
    assert ours["rule_files"] == [f"/etc/prometheus/rules/{rules}"]
    assert [Path(path).name for path in local["rule_files"]] == ["cmo-015.yml"]
    assert [job["job_name"] for job in ours["scrape_configs"]] == [
        job["job_name"] for job in local["scrape_configs"]
    ]
    ports = [[target.rpartition(":")[2] for target in _targets(job)] for job in ours["scrape_configs"]]
    assert ports == [
        [target.rpartition(":")[2] for target in _targets(job)] for job in local["scrape_configs"]
    ]
    hosts = {target.partition(":")[0] for job in ours["scrape_configs"] for target in _targets(job)}
    assert hosts == {"service", "prober", "prometheus", "alertmanager"}


@pytest.mark.parametrize("interval", ["15s", "5s"])
def test_replicas_scrape_everything_twice_and_write_it_once(interval: str) -> None:
    ours, local = _yaml(f"compose/prometheus/replica-{interval}.yml"), _yaml("prometheus/prometheus.yml")
    assert ours["global"] == {"scrape_interval": interval, "external_labels": {"replica": "${CMO_REPLICA}"}}
    (write,) = ours["remote_write"]
    assert write["write_relabel_configs"] == [{"action": "labeldrop", "regex": "replica"}]
    assert write["queue_config"]["batch_send_deadline"] == "1s"
    assert "rule_files" not in ours
    local_jobs = [job["job_name"] for job in local["scrape_configs"]]
    assert [job["job_name"] for job in ours["scrape_configs"]] == [*local_jobs, "vmalert", "victoria-metrics"]
    named = {target.partition(":")[0] for job in ours["scrape_configs"] for target in _targets(job)}
    without_metrics = {"proxy", "scale-dead-man", "victoria-metrics-volume"}
    assert named == SCALED - without_metrics
    names = [compose_file()["services"][f"prometheus-{each}"]["environment"] for each in ("a", "b")]
    assert names == [{"CMO_REPLICA": "a"}, {"CMO_REPLICA": "b"}]


def test_the_scaled_stack_has_a_dead_man_that_hears_nothing_of_the_small_one() -> None:
    stack = compose_file()["services"]
    configured = {
        name: next(source for source in mounts(stack[name]) if source.endswith(".yml"))
        for name in ("alertmanager", "alertmanager-a", "alertmanager-b")
    }
    scaled = "./compose/alertmanager/alertmanager-scale.yml"
    assert configured.pop("alertmanager") == "./compose/alertmanager/alertmanager.yml"
    assert set(configured.values()) == {scaled}


def test_an_interval_that_has_no_file_is_an_error_and_no_empty_folder() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    chosen = [
        volume
        for _, service in services(compose_file())
        for volume in service.get("volumes", ())
        if isinstance(volume, dict)
    ]
    assert len(re.findall(r"-\$\{CMO_(?:SCALE_)?SCRAPE_INTERVAL:-15s\}s?\.yml", text)) == len(chosen) > 0
    assert all(volume["read_only"] and not volume["bind"]["create_host_path"] for volume in chosen)


def test_replicas_are_deduplicated_by_the_scrape_interval() -> None:
    assert "-dedup.minScrapeInterval=15s" in flags(compose_file()["services"]["victoria-metrics"])
    assert "/replica-15s.yml" in str(list(mounts(compose_file()["services"]["prometheus-a"])))


@pytest.mark.parametrize(
    "configuration", sorted(path.name for path in (ROOT / "compose/prometheus").glob("*.yml"))
)
def test_prometheus_itself_accepts_the_configuration(configuration: str, tmp_path: Path) -> None:
    text = (ROOT / "compose/prometheus" / configuration).read_text()
    # promtool looks for the rules where the container has them.
    moved = tmp_path / "prometheus.yml"
    moved.write_text(text.replace("/etc/prometheus/rules", str(ROOT / "slo_rules/rules")))
    promtool = servers.newest("promtool")
    done = subprocess.run([promtool.path, "check", "config", moved], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("configuration", "dead_man"),
    [("alertmanager.yml", "dead-man"), ("alertmanager-scale.yml", "scale-dead-man")],
)
def test_alertmanager_is_configured_as_on_one_machine_but_for_addresses(
    configuration: str, dead_man: str
) -> None:
    local = (ROOT / "alertmanager/alertmanager.yml").read_text()
    moved = local.replace("http://127.0.0.1:8095/", "http://pager:8095/")
    moved = moved.replace("http://127.0.0.1:8096/", f"http://{dead_man}:8096/")
    ours = (ROOT / "compose/alertmanager" / configuration).read_text()
    assert ours[ours.index("route:") :] == moved[moved.index("route:") :]


def test_alertmanager_itself_accepts_the_configuration(tmp_path: Path) -> None:
    amtool = servers.newest("amtool")
    (tmp_path / "alertmanager.yml").write_text((ROOT / "compose/alertmanager/alertmanager.yml").read_text())
    (tmp_path / "templates").symlink_to(ROOT / "alertmanager/templates")
    command = [str(amtool.path), "check-config", str(tmp_path / "alertmanager.yml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dead_man_waits_for_two_watchdogs() -> None:
    [timeout] = [
        word.partition("=")[2]
        for word in flags(compose_file()["services"]["dead-man"])
        if "--timeout=" in word
    ]
    routes = _yaml("compose/alertmanager/alertmanager.yml")["route"]["routes"]
    [route] = [each for each in routes if each["receiver"] == "dead-man"]
    apart = sum(int(route[name].removesuffix("s")) for name in ("repeat_interval", "group_interval"))
    assert float(timeout) >= 2 * apart


def test_grafana_lets_nobody_in_without_the_password() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "compose/grafana/grafana.ini")
    assert settings["auth.anonymous"].getboolean("enabled") is False
    assert settings["users"].getboolean("allow_sign_up") is False
    assert "admin_password" not in settings["security"]
    assert settings["analytics"].getboolean("reporting_enabled") is False


def test_grafana_begins_with_a_dashboard_that_is_there() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "compose/grafana/grafana.ini")
    home = Path(settings["dashboards"]["default_home_dashboard_path"])
    assert mounts(compose_file()["services"]["grafana"])["./grafana/dashboards"] == str(home.parent)
    assert (ROOT / "grafana/dashboards" / home.name).exists()


def test_grafana_is_given_what_its_provisioning_asks_for() -> None:
    grafana = compose_file()["services"]["grafana"]
    sources = [source for source in mounts(grafana) if source.startswith("./")]
    files = [
        path
        for source in sources
        for path in [ROOT / source, *(ROOT / source).glob("*.yml")]
        if path.is_file()
    ]
    asked = {
        name
        for path in files
        if path.suffix == ".yml"
        for name in re.findall(r"\$\{(\w+)\}", path.read_text())
    }
    assert asked <= set(grafana["environment"])
    assert "CMO_PROMETHEUS_URL" in asked
    assert grafana["environment"]["CMO_DASHBOARDS_DIR"] == mounts(grafana)["./grafana/dashboards"]


@pytest.mark.parametrize("seconds", [5, 15])
def test_rules_for_vmalert_are_fresh(seconds: int) -> None:
    committed = (ROOT / f"compose/vmalert/cmo-015-{seconds}s.yml").read_text()
    assert committed == vmalert_rules.render("cmo-015", seconds), "run `python -m cmo_stack.vmalert_rules`"
