"""What the stack consists of, as data: each part's command, how to tell that it serves, and its address.

The order is the order of starting: a part stands after what it needs. Stopping goes the other way.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from cmo_exporter.catalogue import PROBE_SCENARIO
from cmo_loadtest.scenarios import SCENARIOS
from cmo_oracle.profile import load_profile
from cmo_probe.canaries import default_file

from cmo_stack import configuration, health, servers
from cmo_stack.health import LOOPBACK
from cmo_stack.revision import revision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cmo_stack.ports import Ports

OBJECTIVES: Final = "cmo-015"

RETENTION: Final = "40d"
"""How long Prometheus keeps samples: longer than the longest window, of 30 days."""

JOB: Final = "cmo"
"""The scrape job of the service."""

PROBE_INTERVAL_SECONDS: Final = 15
"""Between two canary questions: each of the four once a minute, 20 in the five that a page looks at.

Half of them cost a model call and some milliseconds of the processor that the load test needs, too.
"""


@dataclass(frozen=True)
class Settings:
    """One stack. ``directory`` holds all that it writes; the engine's index outlives it."""

    ports: Ports
    directory: Path
    index_directory: Path
    profile: str = "report"
    seed: int = 1
    scrape_interval_seconds: int = 15


@dataclass(frozen=True)
class Part:
    """One process of the stack. ``port``: where it must be this process that listens."""

    name: str
    version: str
    command: tuple[str, ...]
    address: str
    serves: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None


def parts(settings: Settings) -> tuple[Part, ...]:
    """Every part of the stack, in the order of starting; writes their configuration into its directory.

    Raises:
        ServerMissingError: a server is not on this machine.
    """
    settings.directory.mkdir(parents=True, exist_ok=True)
    return (
        _redis(settings),
        _upstream(settings),
        _pager(settings),
        _dead_man(settings),
        _alertmanager(settings),
        # It takes Prometheus five seconds to begin with its first targets, and the service as long to load.
        _prometheus(settings),
        _service(settings),
        _prober(settings),  # which begins to ask at once
    )


def checks(ports: Ports) -> dict[str, Callable[[], bool]]:
    """For each part by name, whether it serves now."""
    return {
        "redis": partial(health.redis_answers, ports.redis),
        "upstream": partial(health.answers, ports.upstream, "/healthz"),
        "service": partial(health.answers, ports.service, "/readyz"),
        "prober": partial(health.answers, ports.prober, "/metrics"),
        "pager": partial(health.answers, ports.pager, "/healthz"),
        "dead-man": partial(health.answers, ports.dead_man, "/healthz"),
        "alertmanager": partial(health.answers, ports.alertmanager, "/-/ready"),
        "prometheus": partial(health.answers, ports.prometheus, "/-/ready"),
    }


def timing_log(settings: Settings) -> Path:
    """Where the service's independent timer writes."""
    return settings.directory / "timing.jsonl"


def page_log(settings: Settings) -> Path:
    """Where the pager keeps what it receives."""
    return settings.directory / "pages.jsonl"


def dead_man_timeout_seconds(scrape_interval_seconds: int) -> float:
    """How long the watchdog may be silent: 5 minutes at 15 s scrapes.

    Twenty evaluations, and at least twice the minute in which the Alertmanager sends the watchdog again,
    whatever the scrape interval is: one lost notification is no outage.
    """
    return max(20.0 * scrape_interval_seconds, 120.0)


def _redis(settings: Settings) -> Part:
    server, port = servers.newest("redis-server"), settings.ports.redis
    # A cache only: nothing is kept, and room is made by dropping what was used least recently.
    options = [
        "--bind",
        LOOPBACK,
        "--port",
        str(port),
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
    ]
    limits = ["--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"]
    return Part(
        name="redis",
        version=server.label,
        command=(str(server.path), *options, *limits, "--dir", str(settings.directory)),
        address=f"redis://{LOOPBACK}:{port}/0",
        environment=server.environment,
        serves=checks(settings.ports)["redis"],
        port=port,
    )


def _upstream(settings: Settings) -> Part:
    port = settings.ports.upstream
    calibration = load_profile(settings.profile).upstream_calibration
    options = ["--port", str(port), "--calibration", calibration, "--seed", str(settings.seed)]
    return _python_part(
        "upstream",
        ["cmo_oracle.upstream", *options],
        version=f"stub, calibration {calibration}",
        address=f"http://{LOOPBACK}:{port}/v1",
        port=port,
        serves=checks(settings.ports)["upstream"],
    )


def _service(settings: Settings) -> Part:
    ports = settings.ports
    options = {
        "--profile": settings.profile,
        "--port": ports.service,
        "--metrics-port": ports.metrics,
        "--upstream-url": f"http://{LOOPBACK}:{ports.upstream}/v1",
        "--redis-url": f"redis://{LOOPBACK}:{ports.redis}/0",
        "--index-directory": settings.index_directory,
        "--cache-directory": settings.directory / "cache",
        "--timing-log": timing_log(settings),
        "--revision": revision(),
    }
    words = [str(word) for option in options.items() for word in option]
    scenarios = [word for name in (*SCENARIOS, PROBE_SCENARIO) for word in ("--scenario", name)]
    return _python_part(
        "service",
        ["cmo_oracle", *words, *scenarios],
        version=f"profile {settings.profile}",
        address=f"http://{LOOPBACK}:{ports.service} (metrics: http://{LOOPBACK}:{ports.metrics}/metrics)",
        port=ports.service,
        serves=checks(ports)["service"],
    )


def _prober(settings: Settings) -> Part:
    ports = settings.ports
    options = {
        "--url": f"http://{LOOPBACK}:{ports.service}/query",
        "--canaries": default_file(),
        "--interval": PROBE_INTERVAL_SECONDS,
        "--scenario": PROBE_SCENARIO,
        "--metrics-host": LOOPBACK,
        "--metrics-port": ports.prober,
    }
    part = _python_part(
        "prober",
        ["cmo_stack.cli", "probe", *(str(word) for option in options.items() for word in option)],
        version=f"asks a canary question every {PROBE_INTERVAL_SECONDS} s",
        address=f"http://{LOOPBACK}:{ports.prober}/metrics",
        port=ports.prober,
        serves=checks(ports)["prober"],
    )
    # They are meant for the user's own `cmo probe`: this one must not end after `--once`, nor send a token.
    others = dict.fromkeys((name for name in os.environ if name.startswith("CMO_PROBE_")), "")
    return replace(part, environment={**part.environment, **others})


def _pager(settings: Settings) -> Part:
    port = settings.ports.pager
    return _python_part(
        "pager",
        ["cmo_stack.pager", "--port", str(port), "--log", str(page_log(settings))],
        version="receives pages",
        address=f"http://{LOOPBACK}:{port}/pages.txt",
        port=port,
        serves=checks(settings.ports)["pager"],
    )


def _dead_man(settings: Settings) -> Part:
    ports = settings.ports
    timeout_seconds = dead_man_timeout_seconds(settings.scrape_interval_seconds)
    options = {
        "--port": ports.dead_man,
        "--timeout": f"{timeout_seconds:g}",
        # Past the Alertmanager, which may be what has stopped.
        "--notify": f"http://{LOOPBACK}:{ports.pager}/alerts",
        "--log": settings.directory / "dead-man.jsonl",
    }
    return _python_part(
        "dead-man",
        ["cmo_stack.dead_man", *(str(word) for option in options.items() for word in option)],
        version=f"pages when the watchdog is silent for {timeout_seconds:g} s",
        address=f"http://{LOOPBACK}:{ports.dead_man}/status",
        port=ports.dead_man,
        serves=checks(ports)["dead-man"],
    )


def _alertmanager(settings: Settings) -> Part:
    server, port = servers.newest("alertmanager"), settings.ports.alertmanager
    committed = configuration.committed("alertmanager", "alertmanager.yml")
    rendered = settings.directory / "alertmanager.yml"
    rendered.write_text(
        configuration.alertmanager_configuration(
            committed.read_text(), ports=settings.ports, directory=committed.parent
        )
    )
    options = (
        f"--config.file={rendered}",
        f"--storage.path={settings.directory / 'alertmanager'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        f"--web.external-url=http://{LOOPBACK}:{port}",  # for the links in a page
        "--cluster.listen-address=",  # one of its kind: no gossip port
    )
    return Part(
        name="alertmanager",
        version=server.label,
        command=(str(server.path), *options),
        address=f"http://{LOOPBACK}:{port}",
        environment=server.environment,
        serves=checks(settings.ports)["alertmanager"],
        port=port,
    )


def _prometheus(settings: Settings) -> Part:
    server, port = servers.newest("prometheus"), settings.ports.prometheus
    rendered = settings.directory / "prometheus.yml"
    rendered.write_text(
        configuration.prometheus_configuration(
            configuration.committed("prometheus", "prometheus.yml").read_text(),
            ports=settings.ports,
            scrape_interval_seconds=settings.scrape_interval_seconds,
            rules=[configuration.rule_file(OBJECTIVES, settings.scrape_interval_seconds, settings.directory)],
        )
    )
    options = (
        f"--config.file={rendered}",
        f"--storage.tsdb.path={settings.directory / 'prometheus'}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--web.listen-address={LOOPBACK}:{port}",
        f"--web.external-url=http://{LOOPBACK}:{port}",  # for the links in a page
        "--enable-feature=exemplar-storage",  # single queries on panels of latency, with their traces
    )
    return Part(
        name="prometheus",
        version=server.label,
        command=(str(server.path), *options),
        address=f"http://{LOOPBACK}:{port}",
        environment=server.environment,
        serves=checks(settings.ports)["prometheus"],
        port=port,
    )


def _python_part(
    name: str,
    module_and_options: list[str],
    *,
    version: str,
    address: str,
    port: int,
    serves: Callable[[], bool],
) -> Part:
    return Part(
        name=name,
        version=version,
        command=(sys.executable, "-m", *module_and_options),
        address=address,
        serves=serves,
        port=port,
        environment={"PYTHONUNBUFFERED": "1", **_no_proxy_for_loopback(os.environ)},
    )


def _no_proxy_for_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep HTTP clients from asking a proxy for our own servers."""
    exceptions = [environment.get("no_proxy") or environment.get("NO_PROXY") or "", LOOPBACK, "localhost"]
    value = ",".join(part for part in exceptions if part)
    return {"no_proxy": value, "NO_PROXY": value}
