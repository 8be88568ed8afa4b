"""What the parts of docker-compose.yml say to each other, to its page and to what is kept beside it."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from cmo_exporter.catalogue import PROBE_SCENARIO
from cmo_loadtest.scenarios import SCENARIOS
from cmo_oracle.profile import load_profile
from cmo_stack.cli import COMMANDS, LazyCommand

from .compose_file import (
    BASE,
    PAGE,
    ROOT,
    SCALED,
    TEXT,
    VARIABLE,
    compose_file,
    filled_in,
    flags,
    mounted,
    services,
)


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


@pytest.mark.parametrize("module", sorted(set(re.findall(r"\bcmo_[a-z_.]+", TEXT))))
def test_modules_that_are_named_can_be_started(module: str) -> None:
    found = find_spec(module)
    if found and found.submodule_search_locations:
        found = find_spec(f"{module}.__main__")
    assert found
    assert found.origin
    # Without it `python -m` does nothing, and ends as if all were well.
    assert '__name__ == "__main__":' in Path(found.origin).read_text()


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


def test_the_commands_that_are_started_are_there() -> None:
    started = {
        words[1] for _, service in services(compose_file()) if (words := flags(service)) and words[0] == "cmo"
    }
    assert started == {"probe"}
    assert all(isinstance(COMMANDS[name], LazyCommand) for name in started)
