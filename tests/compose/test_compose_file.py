"""docker-compose.yml and what it mounts, clause by clause: read as plain YAML, so that nothing has to run.

That it works is proved by `make test-compose`. Each clause is a function that says what is wrong with a file,
and is shown a file with a fault, too, which it has to find.
"""

from __future__ import annotations

import configparser
import copy
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cmo_exporter.catalogue import PROBE_SCENARIO
from cmo_loadtest.scenarios import SCENARIOS
from cmo_oracle.profile import load_profile
from cmo_stack import servers, topology, vmalert_rules
from cmo_stack.cli import COMMANDS, LazyCommand

from . import stand_ins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Service = dict[str, Any]
    File = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
PAGE = (ROOT / "docs/compose.md").read_text()
PIN = re.compile(r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z]+)?$")
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
LOOPBACK = re.compile(r"^127\.0\.0\.1:(?:\d+|\$\{\w+:-\d+\}):\d+$")
ONE_SHOTS = {"grafana-password", "victoria-metrics-volume", "load", "scale-load"}
BASE = {
    "redis",
    "upstream",
    "service",
    "prober",
    "prometheus",
    "alertmanager",
    "grafana",
    "grafana-password",
    "pager",
    "dead-man",
}
SCALED = {
    "service-a",
    "service-b",
    "proxy",
    "proxy-prober",
    "prometheus-a",
    "prometheus-b",
    "victoria-metrics",
    "victoria-metrics-volume",
    "vmalert",
    "scale-dead-man",
    "alertmanager-a",
    "alertmanager-b",
}


def compose_file() -> File:
    file: File = yaml.safe_load(TEXT)
    return file


def filled_in(text: str) -> str:
    """A text as Compose reads it where nothing is set."""
    return VARIABLE.sub(lambda match: match[2], text)


def services(file: File) -> Iterator[tuple[str, Service]]:
    yield from file["services"].items()


def flags(service: Service) -> list[str]:
    return [filled_in(str(word)) for word in service.get("command", ())]


@dataclass(frozen=True)
class Mount:
    """One volume of a service; without a source, a volume that nobody has named."""

    source: str
    target: str
    read_only: bool


def mounted(service: Service) -> list[Mount]:
    """Every volume of a service, whether it is written on one line or on several."""
    return [
        Mount(filled_in(volume["source"]), volume["target"], read_only=volume.get("read_only", False))
        if isinstance(volume, dict)
        else _in_short(*filled_in(volume).split(":"))
        for volume in service.get("volumes", ())
    ]


def _in_short(source: str, target: str = "", options: str = "") -> Mount:
    if not target:
        return Mount("", source, read_only=False)
    return Mount(source, target, read_only="ro" in options.split(","))


def mounts(service: Service) -> dict[str, str]:
    """Where each source is mounted, without options."""
    return {mount.source: mount.target for mount in mounted(service)}


# ------------------------------------------------------------------ clauses: what is wrong, a line each


def unpinned(file: File) -> list[str]:
    return [
        f"{name}: {service['image']}" for name, service in services(file) if not PIN.match(service["image"])
    ]


def published_beyond_loopback(file: File) -> list[str]:
    ports = [(name, port) for name, service in services(file) for port in service.get("ports", ())]
    hosts = [
        name for name, service in services(file) if service.get("network_mode") or service.get("privileged")
    ]
    return [f"{name}: {port}" for name, port in ports if not LOOPBACK.match(str(port))] + hosts


def unconfined(file: File) -> list[str]:
    wrong = []
    for name, service in services(file):
        user = str(service.get("user", "0")).partition(":")[0]
        clauses = {
            "read_only": service.get("read_only") is True,
            "cap_drop": service.get("cap_drop") == ["ALL"] and not service.get("cap_add"),
            "no-new-privileges": service.get("security_opt") == ["no-new-privileges:true"],
            "mem_limit": bool(service.get("mem_limit")),
            "user": user.isdigit() and int(user) > 0,
            "the machine's own": not set(service) & {"pid", "ipc", "uts", "userns_mode", "devices", "cgroup"},
        }
        wrong += [f"{name}: {clause}" for clause, holds in clauses.items() if not holds]
    return wrong


def unchecked(file: File) -> list[str]:
    """Services without a health check, or with one for something that ends by itself."""
    wrong: list[str] = []
    for name, service in services(file):
        check = service.get("healthcheck", {})
        if name in ONE_SHOTS:
            if check != {"disable": True}:
                wrong.append(f"{name}: a health check of what ends by itself")
        elif not check.get("test") or check["test"][0] != "CMD":
            wrong.append(f"{name}: no health check")
    return wrong


def started_too_early(file: File) -> list[str]:
    """Dependencies that are not waited for until they are healthy, or done."""
    wrong = []
    for name, service in services(file):
        for other, how in service.get("depends_on", {}).items():
            ends = other in ONE_SHOTS
            expected = "service_completed_successfully" if ends else "service_healthy"
            if how.get("condition") != expected:
                wrong.append(f"{name} on {other}: {how.get('condition')}")
    return wrong


def out_of_profile(file: File) -> list[str]:
    """Services in other profiles than they should be in, and what is needed but not started with them."""
    wrong = []
    for name, service in services(file):
        if name in BASE:
            expected = []
        elif name in SCALED:
            expected = ["scale", "scale-load"]
        else:
            expected = [name]
        if service.get("profiles", []) != expected:
            wrong.append(f"{name}: {service.get('profiles')}")
        for other in service.get("depends_on", {}):
            needed = file["services"][other].get("profiles", [])
            own = set(service.get("profiles", []))
            if needed and (not own or not own <= set(needed)):
                wrong.append(f"{name} needs {other}")
    return wrong


def lost_data(file: File) -> list[str]:
    """Volumes that nobody declared, have no name, or are declared for nobody; and data without one."""
    used = {
        source
        for _, service in services(file)
        for source in mounts(service)
        if source and not source.startswith("./")
    }
    declared = set(file["volumes"])
    data = {
        "prometheus": "/prometheus",
        "alertmanager": "/alertmanager",
        "grafana": "/var/lib/grafana",
        "pager": "/var/lib/cmo",
        "dead-man": "/var/lib/cmo",
        "service": "/var/lib/cmo",
        "victoria-metrics": "/var/lib/victoria-metrics",
    }
    unkept = [name for name, path in data.items() if mounts(file["services"][name]).get(name) != path]
    anonymous = [
        f"{name}: {mount.target}"
        for name, service in services(file)
        for mount in mounted(service)
        if not mount.source
    ]
    return sorted(used ^ declared) + unkept + anonymous


def opened(file: File) -> list[str]:
    """Prometheus servers of which somebody could change or delete something over HTTP."""
    return [
        f"{name}: {feature}"
        for name, service in services(file)
        for feature in ("lifecycle", "admin-api")
        if service["image"].startswith("prom/prometheus:")
        if f"--no-web.enable-{feature}" not in flags(service) or f"--web.enable-{feature}" in flags(service)
    ]


def forgetful(file: File) -> list[str]:
    """Stores of the judged series that forget before the longest window is over."""
    kept = f"retention.time={topology.RETENTION}", f"retentionPeriod={topology.RETENTION}"
    stores = ("prometheus", "victoria-metrics")
    given = {name: flags(file["services"][name]) for name in stores}
    return [
        name
        for name, words in given.items()
        if not any(word.endswith(kept) for word in words) or any("retention.size" in word for word in words)
    ]


def left_down(file: File) -> list[str]:
    """Servers that stay away when they have ended, and what ends by itself and would be started for ever."""
    return [
        name
        for name, service in services(file)
        if service.get("restart", "no") != ("no" if name in ONE_SHOTS else "unless-stopped")
    ]


def kept_outside(file: File) -> list[str]:
    """Those that write what is to be kept to another place than their volume."""
    written = {
        "prometheus": "--storage.tsdb.path=/prometheus",
        "alertmanager": "--storage.path=/alertmanager",
        "pager": "/var/lib/cmo/pages.jsonl",
        "dead-man": "--log=/var/lib/cmo/dead-man.jsonl",
        "victoria-metrics": "-storageDataPath=/var/lib/victoria-metrics",
    }
    return [name for name, flag in written.items() if flag not in flags(file["services"][name])]


def with_a_known_password(file: File) -> list[str]:
    """Ways in which somebody could enter Grafana without the password in its file."""
    grafana = file["services"]["grafana"]
    settings = grafana["environment"]
    mounted = mounts(grafana).get("grafana-password", "/nowhere")
    wrong = [
        name for name in settings if name.startswith("GF_") and name != "GF_SECURITY_ADMIN_PASSWORD__FILE"
    ]
    if not str(settings.get("GF_SECURITY_ADMIN_PASSWORD__FILE", "")).startswith(f"{mounted}/"):
        wrong.append("GF_SECURITY_ADMIN_PASSWORD__FILE")
    if "grafana-password" not in grafana["depends_on"]:
        wrong.append("Grafana may start before there is a password")
    return wrong


CLAUSES: tuple[Callable[[File], list[str]], ...] = (
    unpinned,
    published_beyond_loopback,
    unconfined,
    unchecked,
    started_too_early,
    out_of_profile,
    lost_data,
    opened,
    forgetful,
    left_down,
    kept_outside,
    with_a_known_password,
)


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_clause(clause: Callable[[File], list[str]]) -> None:
    assert clause(compose_file()) == []


def _flag(file: File, service: str, old: str, new: str) -> None:
    command = file["services"][service]["command"]
    file["services"][service]["command"] = [str(word).replace(old, new) for word in command]


FAULTS: tuple[tuple[Callable[[File], list[str]], str, Callable[[Any], object]], ...] = (
    (unpinned, "grafana", lambda s: s["grafana"].update(image="grafana/grafana:latest")),
    (unpinned, "grafana", lambda s: s["grafana"].update(image="grafana/grafana")),
    (unpinned, "redis", lambda s: s["redis"].update(image="redis:8-alpine")),
    (published_beyond_loopback, "grafana", lambda s: s["grafana"].update(ports=["3000:3000"])),
    (published_beyond_loopback, "pager", lambda s: s["pager"].update(ports=["0.0.0.0:8095:8095"])),
    (published_beyond_loopback, "redis", lambda s: s["redis"].update(network_mode="host")),
    (unconfined, "redis: read_only", lambda s: s["redis"].pop("read_only")),
    (unconfined, "proxy: cap_drop", lambda s: s["proxy"].update(cap_add=["NET_RAW"])),
    (unconfined, "vmalert: no-new-privileges", lambda s: s["vmalert"].pop("security_opt")),
    (unconfined, "load: mem_limit", lambda s: s["load"].pop("mem_limit")),
    (unconfined, "grafana: user", lambda s: s["grafana"].update(user="0:0")),
    (unconfined, "service-b: user", lambda s: s["service-b"].pop("user")),
    (unconfined, "pager: the machine's own", lambda s: s["pager"].update(pid="host")),
    (unchecked, "pager", lambda s: s["pager"].pop("healthcheck")),
    (unchecked, "redis", lambda s: s["redis"].update(healthcheck={"disable": True})),
    (
        started_too_early,
        "grafana",
        lambda s: s["grafana"]["depends_on"]["prometheus"].update(condition="service_started"),
    ),
    (
        started_too_early,
        "grafana",
        lambda s: s["grafana"]["depends_on"]["grafana-password"].update(condition="service_healthy"),
    ),
    (out_of_profile, "proxy", lambda s: s["proxy"].pop("profiles")),
    (out_of_profile, "load", lambda s: s["load"].update(profiles=["scale"])),
    (
        out_of_profile,
        "prober needs proxy",
        lambda s: s["prober"]["depends_on"].update(proxy={"condition": "service_healthy"}),
    ),
    (lost_data, "prometheus", lambda s: s["prometheus"]["volumes"].pop(0)),
    (lost_data, "elsewhere", lambda s: s["pager"].update(volumes=["elsewhere:/var/lib/cmo"])),
    (opened, "prometheus: admin-api", lambda s: s["prometheus"]["command"].append("--web.enable-admin-api")),
    (
        opened,
        "prometheus-b: lifecycle",
        lambda s: s["prometheus-b"].update(command=["--no-web.enable-admin-api"]),
    ),
    (
        forgetful,
        "prometheus",
        lambda s: s["prometheus"]["command"].append("--storage.tsdb.retention.size=1GB"),
    ),
    (left_down, "proxy", lambda s: s["proxy"].update(restart="no")),
    (left_down, "load", lambda s: s["load"].update(restart="unless-stopped")),
    (
        kept_outside,
        "dead-man",
        lambda s: s["dead-man"]["command"].remove("--log=/var/lib/cmo/dead-man.jsonl"),
    ),
    (kept_outside, "prometheus", lambda s: s["prometheus"]["command"].pop(1)),
    (
        with_a_known_password,
        "GF_SECURITY_ADMIN_PASSWORD",
        lambda s: s["grafana"]["environment"].update(GF_SECURITY_ADMIN_PASSWORD="x"),
    ),
    (
        with_a_known_password,
        "GF_AUTH_ANONYMOUS_ENABLED",
        lambda s: s["grafana"]["environment"].update(GF_AUTH_ANONYMOUS_ENABLED="true"),
    ),
    (with_a_known_password, "before", lambda s: s["grafana"]["depends_on"].pop("grafana-password")),
)


@pytest.mark.parametrize(("clause", "words", "spoil"), FAULTS)
def test_each_clause_finds_its_fault(
    clause: Callable[[File], list[str]], words: str, spoil: Callable[[Any], object]
) -> None:
    file = copy.deepcopy(compose_file())
    spoil(file["services"])
    assert any(words in line for line in clause(file))


@pytest.mark.parametrize(
    ("service", "flag"), [("prometheus", "retention.time"), ("victoria-metrics", "retentionPeriod")]
)
def test_a_retention_that_is_too_short_is_found(service: str, flag: str) -> None:
    file = copy.deepcopy(compose_file())
    _flag(file, service, f"{flag}=40d", f"{flag}=15d")
    assert forgetful(file) == [service]


# ------------------------------------------------------------------ what the parts say to each other


def test_every_service_is_in_one_list() -> None:
    assert set(compose_file()["services"]) == BASE | SCALED | {"load", "scale-load"}


def test_the_page_names_every_service() -> None:
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.M) for name in re.findall(r"`([^`]+)`", row)
    }
    assert named == BASE | SCALED


def _limits_gib(names: set[str]) -> float:
    mebibytes = {"g": 1024, "m": 1}
    limits = [compose_file()["services"][name]["mem_limit"] for name in names]
    return sum(int(limit[:-1]) * mebibytes[limit[-1]] for limit in limits) / 1024


def test_the_page_says_how_much_memory_it_may_take() -> None:
    assert f"may use {_limits_gib(BASE):.1f} GiB of memory in all" in PAGE
    assert f"with limits of {_limits_gib(SCALED):.1f} GiB more" in PAGE


def test_there_are_files_for_the_intervals_that_are_named_and_for_no_others() -> None:
    example = (ROOT / ".env.example").read_text()
    for kind, said in {
        "prometheus": "scrapes and evaluates: 15s, or 1s, ",
        "replica": "replicas scrape, 15s or 5s and no other",
    }.items():
        assert said in example
        files = (ROOT / "compose/prometheus").glob(f"{kind}-*.yml")
        assert {path.stem.removeprefix(f"{kind}-") for path in files} == set(re.findall(r"\d+s", said))


def test_the_image_is_of_this_version_and_built_from_here() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = {name: service for name, service in services(compose_file()) if "build" in service}
    assert {service["image"] for service in ours.values()} == {f"cmo-observability:{version}"}
    assert {service["build"] for service in ours.values()} == {"."}


def test_every_variable_has_its_default_in_the_example() -> None:
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    used: dict[str, set[str]] = {}
    for name, default in VARIABLE.findall(TEXT):
        used.setdefault(name, set()).add(default)
    assert {name: {value} for name, value in example.items()} == used
    assert not [name for name in example if re.search("PASSWORD|SECRET|TOKEN|KEY", name)]


def test_defaults_of_profile_and_calibration_go_together() -> None:
    upstream, service = (compose_file()["services"][name] for name in ("upstream", "service"))
    profile = filled_in(service["environment"]["CMO_PROFILE"])
    calibration = flags(upstream)[flags(upstream).index("--calibration") + 1]
    assert load_profile(profile).upstream_calibration == calibration


def test_the_service_believes_the_load_test_and_the_prober() -> None:
    for name in ("service", "service-a", "service-b"):
        said = compose_file()["services"][name]["environment"]["CMO_SCENARIOS"]
        assert said.split() == [*SCENARIOS, PROBE_SCENARIO]


def test_instances_have_several_workers() -> None:
    for name in ("service-a", "service-b"):
        assert int(flags(compose_file()["services"][name])[-1]) > 1


def test_redis_answers_its_clients_and_keeps_nothing() -> None:
    words = flags(compose_file()["services"]["redis"])
    assert words[words.index("--protected-mode") + 1] == "no"
    assert words[words.index("--save") + 1] == ""


def test_what_is_mounted_is_there_and_read_only() -> None:
    for name, service in services(compose_file()):
        for mount in mounted(service):
            if mount.source.startswith("./"):
                assert (ROOT / mount.source).exists(), f"{name}: {mount.source}"
                assert mount.read_only, f"{name}: {mount.source}"


@pytest.mark.parametrize("module", ["answers", "first_password", "pager", "dead_man"])
def test_modules_that_are_started_are_there(module: str) -> None:
    assert f"cmo_stack.{module}" in TEXT
    assert (ROOT / f"stack/cmo_stack/{module}.py").exists()


def test_stand_ins_are_of_the_images_that_are_named() -> None:
    named = {service["image"] for _, service in services(compose_file()) if "build" not in service}
    assert set(stand_ins._IMAGES) | stand_ins.NO_STAND_IN == named
    assert f"FROM {stand_ins.PYTHON_IMAGE}" in (ROOT / "Dockerfile").read_text()


def test_every_address_is_one_at_which_a_service_answers() -> None:
    """Of those that nothing else asks: where nobody listens, a data source or a page is silently gone."""
    answering = {
        name: {int(port) for port in re.findall(r":(\d+)(?:/|$)", " ".join(asked))}
        for name, service in services(compose_file())
        for asked in [[str(word) for word in service["healthcheck"].get("test", ())]]
    }
    for name, service in services(compose_file()):
        answering[name] |= {int(str(port).rpartition(":")[2]) for port in service.get("ports", ())}
    texts = [TEXT, *(path.read_text() for path in sorted((ROOT / "compose").glob("[ag]*/*")))]
    asked = {found for text in texts for found in re.findall(r"http://([a-z][a-z-]*):(\d+)", text)}
    assert len(asked) >= 9
    assert [(name, port) for name, port in sorted(asked) if int(port) not in answering.get(name, ())] == []


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


@pytest.mark.parametrize("load", ["load", "scale-load"])
def test_the_load_ends_with_the_status_of_its_verdict(load: str) -> None:
    *_, script = compose_file()["services"][load]["command"]
    assert script.rstrip().splitlines()[-1].startswith("exec cmo check --run ")


def test_vmalert_reads_back_what_it_wrote() -> None:
    words = flags(compose_file()["services"]["vmalert"])
    addresses = {
        flag: [word.partition("=")[2] for word in words if word.startswith(f"-{flag}.url=")]
        for flag in ("datasource", "remoteWrite", "remoteRead")
    }
    assert addresses == {flag: ["http://victoria-metrics:8428"] for flag in addresses}


def test_users_keep_their_instance() -> None:
    text = (ROOT / "compose/haproxy/haproxy.cfg").read_text()
    assert re.search(r"^    cookie CMO_INSTANCE insert indirect nocache", text, re.MULTILINE)
    for name in ("a", "b"):
        assert f"    server {name} service-{name}:8000 cookie {name}\n" in text


def test_the_cluster_of_alertmanagers() -> None:
    for name in ("alertmanager-a", "alertmanager-b"):
        words = flags(compose_file()["services"][name])
        for member in ("a", "b"):
            assert f"--cluster.peer=alertmanager-{member}:9094" in words
    notifiers = [word for word in flags(compose_file()["services"]["vmalert"]) if "notifier.url" in word]
    assert notifiers == [f"-notifier.url=http://alertmanager-{member}:9093" for member in ("a", "b")]


# ------------------------------------------------------------------ configuration beside it


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
    assert "scale-dead-man" in SCALED


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


def test_the_commands_that_are_started_are_there() -> None:
    started = {
        words[1] for _, service in services(compose_file()) if (words := flags(service)) and words[0] == "cmo"
    }
    assert started == {"probe"}
    assert all(isinstance(COMMANDS[name], LazyCommand) for name in started)


# ------------------------------------------------------------------ the image


def test_the_image_is_small_and_runs_as_nobody_in_particular() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    assert len(stages) == 3, "a stage that builds, and one that runs"
    last = stages[-1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)
    assert "pip install" not in last
    assert "COPY . " not in last
    assert stages[1].count("--require-hashes") == 2


def test_only_what_is_named_reaches_the_engine() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    named = [line[1:] for line in lines if line.startswith("!")]
    assert all((ROOT / name).exists() for name in named)
    assert not {"tests", ".git", ".venv", ".cmo", ".env"} & set(named)
