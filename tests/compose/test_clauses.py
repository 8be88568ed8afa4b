"""What docker-compose.yml promises of every service, clause by clause: nothing has to run for it.

Each clause is a function that says what is wrong with a file, and is shown a file with a fault, too, which it
has to find. That the file works is proved by `make test-compose`.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import pytest
from cmo_stack import topology

from .compose_file import BASE, ONE_SHOTS, PIN, SCALED, compose_file, flags, mounted, mounts, services

if TYPE_CHECKING:
    from collections.abc import Callable

    from .compose_file import File

THE_MACHINES_OWN = frozenset(
    {"privileged", "pid", "ipc", "uts", "userns_mode", "devices", "device_cgroup_rules", "cgroup"}
)
"""Keys by which a container is given a part of the machine, or may look out of its own."""
NEEDED: dict[str, set[str]] = {
    "redis": set(),
    "upstream": set(),
    "pager": set(),
    "grafana-password": set(),
    "victoria-metrics-volume": set(),
    # Its index is made with the upstream when it starts; without L3 the first answers are slow.
    "service": {"redis", "upstream"},
    "service-a": {"redis", "upstream"},
    "service-b": {"redis", "upstream"},
    "proxy": {"service-a", "service-b"},
    # What is asked before there is an answer counts as failed.
    "prober": {"service"},
    "proxy-prober": {"proxy"},
    "load": {"service", "prometheus"},
    "scale-load": {"proxy", "prometheus-a", "prometheus-b", "vmalert"},
    # What is sent before there is somebody to take it comes late: a page, or the watchdog.
    "prometheus": {"alertmanager"},
    "alertmanager": {"pager", "dead-man"},
    "alertmanager-a": {"pager", "scale-dead-man"},
    "alertmanager-b": {"pager", "scale-dead-man"},
    "dead-man": {"pager"},
    "scale-dead-man": {"pager"},
    "prometheus-a": {"victoria-metrics"},
    "prometheus-b": {"victoria-metrics"},
    # It reads there, once, since when alerts have been pending.
    "vmalert": {"victoria-metrics", "alertmanager-a", "alertmanager-b"},
    "victoria-metrics": {"victoria-metrics-volume"},
    # It takes its password once, when it makes its database.
    "grafana": {"grafana-password", "prometheus"},
}
"""Without whom a service, once started, fails, forgets, or says for a while what is not so."""
LOCKED = {
    "victoria-metrics": (
        "deleteAuthKey",
        "snapshotAuthKey",
        "forceMergeAuthKey",
        "forceFlushAuthKey",
        "logNewSeriesAuthKey",
        "metricNamesStatsResetAuthKey",
        "search.resetCacheAuthKey",
        "reloadAuthKey",
    ),
    "vmalert": ("reloadAuthKey",),
}
"""Flags for keys without which VictoriaMetrics does not do what its administrators may ask of it."""
LOOPBACK = re.compile(r"^127\.0\.0\.1:(?:\d+|\$\{\w+:-\d+\}):\d+$")


def unpinned(file: File) -> list[str]:
    return [
        f"{name}: {service['image']}" for name, service in services(file) if not PIN.match(service["image"])
    ]


def published_beyond_loopback(file: File) -> list[str]:
    ports = [(name, port) for name, service in services(file) for port in service.get("ports", ())]
    hosts = [name for name, service in services(file) if service.get("network_mode")]
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
            "the machine's own": not THE_MACHINES_OWN & set(service),
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


def started_without(file: File) -> list[str]:
    """Services that may start before what they need."""
    return [
        f"{name} before {other}"
        for name, service in services(file)
        for other in sorted(NEEDED[name] - set(service.get("depends_on", ())))
    ]


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
    """Servers of which somebody could change or delete something over HTTP: Prometheus', VictoriaMetrics'."""
    prometheus = [
        f"{name}: {feature}"
        for name, service in services(file)
        for feature in ("lifecycle", "admin-api")
        if service["image"].startswith("prom/prometheus:")
        if f"--no-web.enable-{feature}" not in flags(service) or f"--web.enable-{feature}" in flags(service)
    ]
    return prometheus + [
        f"{name}: {key}"
        for name, keys in LOCKED.items()
        for key in keys
        if [word for word in flags(file["services"][name]) if word.startswith(f"-{key}=")]
        != [f"-{key}=file:///nobody-knows-it"]
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
    return wrong


CLAUSES: tuple[Callable[[File], list[str]], ...] = (
    unpinned,
    published_beyond_loopback,
    unconfined,
    unchecked,
    started_too_early,
    started_without,
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
        opened,
        "victoria-metrics: deleteAuthKey",
        lambda s: s["victoria-metrics"]["command"].append("-deleteAuthKey="),
    ),
    (opened, "vmalert: reloadAuthKey", lambda s: s["vmalert"]["command"].pop()),
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
)


@pytest.mark.parametrize(("clause", "words", "spoil"), FAULTS)
def test_each_clause_finds_its_fault(
    clause: Callable[[File], list[str]], words: str, spoil: Callable[[Any], object]
) -> None:
    file = copy.deepcopy(compose_file())
    spoil(file["services"])
    assert any(words in line for line in clause(file))


@pytest.mark.parametrize("key", sorted(THE_MACHINES_OWN))
def test_a_part_of_the_machine_is_found(key: str) -> None:
    file = copy.deepcopy(compose_file())
    file["services"]["pager"][key] = "host"
    assert unconfined(file) == ["pager: the machine's own"]


@pytest.mark.parametrize(
    ("service", "other"), [(service, other) for service in NEEDED for other in sorted(NEEDED[service])]
)
def test_whoever_is_not_waited_for_is_found(service: str, other: str) -> None:
    file = copy.deepcopy(compose_file())
    # Taken from this one alone: several share what they wait for.
    waited_for = dict(file["services"][service].pop("depends_on"))
    del waited_for[other]
    file["services"][service]["depends_on"] = waited_for
    assert started_without(file) == [f"{service} before {other}"]


@pytest.mark.parametrize(
    ("service", "flag"), [("prometheus", "retention.time"), ("victoria-metrics", "retentionPeriod")]
)
def test_a_retention_that_is_too_short_is_found(service: str, flag: str) -> None:
    file = copy.deepcopy(compose_file())
    _flag(file, service, f"{flag}=40d", f"{flag}=15d")
    assert forgetful(file) == [service]
